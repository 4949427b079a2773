"""What it means to launch trials: one call that maps a function over items, with equal results wherever it runs."""

import pickle
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Result = TypeVar("Result")

OnEpoch = Callable[[int, dict[str, float]], None]
"""Called with the updates done and the metrics at the end of each epoch of a fit."""

USER_ERRORS = (ValueError, ArithmeticError, OSError, MemoryError)
"""What a person can fix; any other exception is a bug."""


@dataclass(frozen=True)
class Failure:
    """An item that gave no result. name: str(item); reason: what went wrong, for a person to read."""

    name: str
    reason: str


class Launcher(Protocol):
    """Maps trials over whatever it was opened on."""

    def map_trials(
        self,
        function: Callable[[Item, Shared], Result],
        items: Sequence[Item],
        shared: Shared,
        *,
        on_result: Callable[[Item, Result], None] | None = None,
    ) -> list[Result | Failure]:
        """`function(item, shared)` for every item; results come in the order of `items`, failures in their place.

        function: importable by name, without side effects that matter; shared: read-only, its numpy arrays are handed
        over without a copy for each item; on_result: called in this process as each item succeeds, in any order.
        """
        ...


def call(function: Callable[..., Result], item: Any, shared: Any, *more: Any) -> Result | Failure:
    """The result, or the exception as a Failure: one bad trial must not take the others with it."""
    try:
        return function(item, shared, *more)
    except Exception as error:
        return Failure(str(item), describe(error))


def describe(error: Exception) -> str:
    """The message of an error that a person can fix; the traceback of any other."""
    if isinstance(error, USER_ERRORS):
        return str(error) or type(error).__name__
    return "".join(traceback.format_exception(error)).strip()


def measure_bytes(value: object) -> int:
    """Bytes of the buffers (arrays) and of the rest that pickling `value` would move."""
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return len(rest) + sum(buffer.raw().nbytes for buffer in buffers)


def raise_failures(failures: Sequence[Failure], total: int, remedy: str) -> None:
    """Raises ValueError naming every failed trial and why; nothing when there is none."""
    if failures:
        lines = "\n".join(f"  {failure.name}: {failure.reason}" for failure in failures)
        raise ValueError(f"{len(failures)} of {total} trials failed:\n{lines}\n{remedy}")
