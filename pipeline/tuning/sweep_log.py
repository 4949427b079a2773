"""The reports of a sweep's trials, kept in a folder, so that a sweep that is run again repeats only what it lost."""

import hashlib
import json
from pathlib import Path

from pipeline.artifacts import read_json, write_json
from pipeline.config.space import Value

Metrics = dict[str, float]


class SweepLog:
    """Every decision of a sweep follows from its plan and its reports, so a killed one is simply run again: trials in
    the log are replayed from it, which gives exactly the sweep that was never interrupted.

    curves: by `trial_key`, of trials that train from beginning to end.  steps: by the key of `pipeline.tuning.steps`,
    of trials that pause or go on from another's weights.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.curves: dict[str, list[Metrics]] = {}
        self._seconds: dict[str, list[float]] = {}
        for file in sorted(folder.glob("*.json")):
            entry = read_json(file)
            key = trial_key(entry["values"])
            self.curves[key], self._seconds[key] = entry["curve"], entry["seconds"]
        stored = {file.stem: read_json(file) for file in sorted((folder / "steps").glob("*.json"))}
        self.steps: dict[str, Metrics] = {key: entry["metrics"] for key, entry in stored.items()}
        self._step_seconds: dict[str, float] = {key: entry["seconds"] for key, entry in stored.items()}

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints that steps left, by key."""
        return self.folder / "checkpoints"

    def add(self, values: dict[str, Value], position: int, metrics: Metrics, seconds: float = 0.0) -> float:
        """Report number `position` (from 0) of the trial with `values`; one that is known already changes nothing.

        Returns the seconds of work that it took when it was new.
        """
        key = trial_key(values)
        curve, times = self.curves.setdefault(key, []), self._seconds.setdefault(key, [])
        if position == len(curve):
            curve.append(metrics)
            times.append(round(seconds, 3))
            name = hashlib.sha256(key.encode()).hexdigest()[:16]
            write_json(self.folder / f"{name}.json", {"values": values, "curve": curve, "seconds": times})
        return times[position]

    def add_step(self, key: str, metrics: Metrics, seconds: float) -> float:
        """As `add`, for one step."""
        if key not in self.steps:
            self.steps[key], self._step_seconds[key] = metrics, round(seconds, 3)
            write_json(self.folder / "steps" / f"{key}.json", {"metrics": metrics, "seconds": self._step_seconds[key]})
        return self._step_seconds[key]


def trial_key(values: dict[str, Value]) -> str:
    """Equal for equal values to the last bit."""
    return json.dumps(values, sort_keys=True)
