"""Trials in steps of one report each, which can pause and go on from a checkpoint, their own or another trial's.

A step's key is a hash of everything that led to it: the values it trained with and the key of the step before. Equal
keys mean equal weights, whoever trained them: a step whose report and checkpoint are stored is not trained again.
"""

import hashlib
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]

from pipeline.artifacts import read_json, write_json
from pipeline.launch.launcher import describe
from pipeline.tuning.points import Values
from pipeline.tuning.sweep import FAILURE, Message, SweepFunction, SweepPlan
from pipeline.tuning.sweep_log import Metrics, trial_key

FIT_FILE = "fit.ckpt"
PAST_FILE = "past.json"


@dataclass(frozen=True)
class Past:
    """What a trial has behind it.  key: of its last step, empty before the first.  reports: how many there were."""

    key: str = ""
    reports: int = 0

    def after(self, values: Values) -> "Past":
        """One step later."""
        text = f"{self.key}\n{trial_key(values)}"
        return Past(hashlib.sha256(text.encode()).hexdigest()[:32], self.reports + 1)


Told = Callable[[Message, Past, Past], None]
"""Called with a report, the step it belongs to and the step before; the folder then holds that step's checkpoint."""


class StepStore:
    """Checkpoints of steps by key. place: a folder, or an fsspec url; all nodes where trials run must reach it."""

    def __init__(self, place: str) -> None:
        self._files, self._folder = fsspec.core.url_to_fs(place)

    def add(self, key: str, file: Path) -> None:
        self._files.makedirs(self._folder, exist_ok=True)
        temporary = f"{self._folder}/{key}.{secrets.token_hex(4)}.tmp"
        self._files.put_file(str(file), temporary)
        self._files.mv(temporary, self._path(key))

    def fetch(self, key: str, file: Path) -> bool:
        """Whether the step's checkpoint was there."""
        fetched = file.with_suffix(".fetched")
        try:
            self._files.get_file(self._path(key), str(fetched))
        except FileNotFoundError:
            fetched.unlink(missing_ok=True)
            return False
        fetched.replace(file)
        return True

    def clear(self) -> None:
        if self._files.exists(self._folder):
            self._files.rm(self._folder, recursive=True)

    def _path(self, key: str) -> str:
        return f"{self._folder}/{key}.ckpt"


def read_past(folder: Path) -> Past:
    return Past(**read_json(folder / PAST_FILE))


def run_steps(
    function: SweepFunction,
    values: Values,
    shared: Any,
    folder: Path,
    past: Past,
    plan: SweepPlan,
    *,
    known: Mapping[str, Metrics],
    store: StepStore,
    tell: Told,
) -> None:
    """The steps after `past`, whose checkpoint (if it has steps) lies in `folder`: known ones from `store`, the others
    by training, which adds their checkpoints to the store.

    An exception becomes a message with the metric infinite: the step is worse than any other.
    """
    file = folder / FIT_FILE

    def tell_next(message: Message) -> None:
        nonlocal past
        before, past = past, past.after(values)
        write_json(folder / PAST_FILE, asdict(past))
        tell(message, past, before)

    while past.reports < plan.num_reports and (key := past.after(values).key) in known:
        if past.reports + 1 < plan.num_reports and not store.fetch(key, file):  # a fit leaves no checkpoint at its end
            break
        tell_next(dict(known[key]))
    if past.reports == plan.num_reports:
        return

    def keep(message: Message) -> None:
        if past.reports + 1 < plan.num_reports:
            store.add(past.after(values).key, file)
        tell_next(message)

    try:
        function(values, shared, keep, file)
    except Exception as error:
        tell({plan.metric: math.inf, FAILURE: describe(error)}, past, past)
