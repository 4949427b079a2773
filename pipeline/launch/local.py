"""Trials one after another in this process."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from pipeline.launch.launcher import Failure, Item, Result, Shared, call


class LocalLauncher:
    """See `Launcher`. threads: of a trial, as on Ray, so that both give equal bits."""

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

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
            with limit_threads(self._threads):
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
