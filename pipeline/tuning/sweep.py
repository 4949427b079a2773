"""What a sweep is: drawn values tried one after another, the bad ones stopped early. Knows nothing of who runs it."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pipeline.artifacts import read_json, write_json
from pipeline.config.space import Distribution
from pipeline.launch.launcher import describe
from pipeline.tuning.trial import TrialData, TrialSpec, run_trial

Values = dict[str, float]
Metrics = dict[str, float]
Message = dict[str, Any]
"""Metrics, or {METRIC: nan, FAILURE: why}: all that travels from a trial to who runs the sweep."""
Report = Callable[[Message], None]

METRIC = "validation_nll"
"""What a sweep minimises, nats: at few labels it tells more than the accuracy's coarse steps."""
FAILURE = "failure"


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """One sweep. Equal plans give equal trials bit for bit when `max_concurrent` is 1."""

    name: str
    """What is swept, for messages: an arm."""
    space: Mapping[str, Distribution]
    """What is drawn, by name."""
    start: Values
    """Values of the first trial; those not in `space` hold for every trial."""
    num_trials: int
    """>= 1."""
    num_reports: int
    """Reports of a trial that is not stopped."""
    reduction_factor: int
    """ASHA lets the best 1/reduction_factor go on at each rung."""
    max_concurrent: int
    """Trials side by side."""
    threads: int
    """CPU threads of a trial."""
    seed: int
    """Of the searcher."""


@dataclass
class SweptTrial:
    """number: from 0 in the order of the draws.  curve: metrics of each report.  failure: why it failed, or empty."""

    number: int
    values: Values
    curve: list[Metrics] = field(default_factory=list)
    failure: str = ""

    def status(self, plan: SweepPlan) -> str:
        if self.failure:
            return "failed"
        return "completed" if len(self.curve) == plan.num_reports else "stopped"


class SweepFunction(Protocol):
    """A trial as a sweep sees it: reports what each validation gives, in order; equal values give equal reports."""

    def __call__(self, values: Values, shared: Any, report: Report) -> None: ...


class SweepLog:
    """The reports of every trial so far, kept in a folder, so that a sweep that is run again only repeats what it lost.

    The searcher is deterministic, so the sweep is simply run again: trials in the log are replayed from it, which
    gives exactly the sweep that was never interrupted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        entries = [read_json(file) for file in sorted(folder.glob("*.json"))]
        self.curves: dict[str, list[Metrics]] = {trial_key(entry["values"]): entry["curve"] for entry in entries}

    def add(self, values: Values, position: int, metrics: Metrics) -> None:
        """Report number `position` (from 0) of the trial with `values`; one that is known already changes nothing."""
        key = trial_key(values)
        curve = self.curves.setdefault(key, [])
        if position == len(curve):
            curve.append(metrics)
            name = hashlib.sha256(key.encode()).hexdigest()[:16]
            write_json(self._folder / f"{name}.json", {"values": values, "curve": curve})


class Recorder:
    """What a sweep has shown so far, on the side of who runs it."""

    def __init__(self, log: SweepLog, on_report: Callable[[SweptTrial], None] | None = None) -> None:
        self._log, self._on_report = log, on_report
        self.trials: dict[int, SweptTrial] = {}

    def known_curves(self) -> dict[str, list[Metrics]]:
        """What an interrupted sweep left, by `trial_key`."""
        return {key: list(curve) for key, curve in self._log.curves.items()}

    def begin(self, number: int, values: Values) -> SweptTrial:
        """The trial of that number, new or known: one whose process died begins again."""
        return self.trials.setdefault(number, SweptTrial(number, values))

    def add(self, trial: SweptTrial, position: int, message: Message) -> None:
        if FAILURE in message:
            trial.failure = message[FAILURE]
        elif position == len(trial.curve):
            trial.curve.append(message)
            self._log.add(trial.values, position, message)
        if self._on_report is not None:
            self._on_report(trial)


class Sweeper(Protocol):
    """Runs sweeps somewhere."""

    def sweep(self, plan: SweepPlan, function: SweepFunction, shared: Any, recorder: Recorder) -> list[SweptTrial]:
        """Every trial by number. One that fails is reported in its place and doesn't stop the others."""
        ...


def replay(
    function: SweepFunction, values: Values, shared: Any, known: Sequence[Metrics], num_reports: int, report: Report
) -> None:
    """Runs one trial. Known reports are passed on at once; it trains only when there are more to come.

    An exception becomes a message with METRIC nan, which the searcher leaves out of its model.
    """
    for metrics in known:
        report(dict(metrics))
    if len(known) == num_reports:
        return
    count = 0

    def report_new(metrics: Message) -> None:
        nonlocal count
        count += 1
        if count > len(known):
            report(metrics)

    try:
        function(values, shared, report_new)
    except Exception as error:
        report({METRIC: math.nan, FAILURE: describe(error)})


def trial_key(values: Values) -> str:
    """Equal for equal values to the last bit."""
    return json.dumps(values, sort_keys=True)


def sweep_trial(values: Values, shared: TrialData, report: Report, *, spec: TrialSpec) -> None:
    """`run_trial` as a SweepFunction: `spec` with the drawn values."""
    run_trial(replace(spec, **values), shared, report=lambda _, metrics: report(metrics))  # type: ignore[arg-type]
