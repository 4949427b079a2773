"""Trials one after another in this process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from pipeline.launch.launcher import THREADS_PER_TRIAL, Failure, Item, Result, Shared, call


class LocalLauncher:
    """See `Launcher`. Works with one thread, as a Ray worker does, so that both give equal bits."""

    def map_trials(
        self,
        function: Callable[[Item, Shared], Result],
        items: Sequence[Item],
        shared: Shared,
        *,
        on_result: Callable[[Item, Result], None] | None = None,
    ) -> list[Result | Failure]:
        results: list[Result | Failure] = []
        for item in items:
            with limit_threads(THREADS_PER_TRIAL):
                result = call(function, item, shared)
            results.append(result)
            if on_result is not None and not isinstance(result, Failure):
                on_result(item, result)
        return results


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """torch works with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
