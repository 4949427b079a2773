"""Progress of long work: a bar with an ETA in a terminal, a plain line now and then in a log file."""

import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """`update(done, **values)` tells how far the work is; values are shown beside the bar."""

    def __init__(self, total: int, label: str, *, quiet: bool = False) -> None:
        self._total, self._label, self._quiet = total, label, quiet
        self._started = self._last_line = time.monotonic()
        self._first_done: int | None = None
        self._bar: tqdm[None] | None = None
        if sys.stderr.isatty() and not quiet:
            self._bar = tqdm(total=total, desc=label, leave=False, dynamic_ncols=True)

    def update(self, done: int, **values: float | str) -> None:
        """`done`: units finished so far, 0..total. A resumed run may start above 0: the ETA counts from there."""
        if self._first_done is None:
            self._first_done = done
        shown = {key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in values.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.n = done
            self._bar.refresh()
        elif not self._quiet and time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(self._line(done, shown), file=sys.stderr, flush=True)

    def _line(self, done: int, shown: dict[str, str]) -> str:
        fresh = done - (self._first_done or 0)
        per_unit = (time.monotonic() - self._started) / fresh if fresh else 0.0
        eta = f", about {per_unit * (self._total - done):.0f} s left" if fresh else ""
        values = "".join(f"  {key} {value}" for key, value in shown.items())
        return f"{self._label}: {done}/{self._total}{eta}{values}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
