"""What a sweep is: drawn values tried one after another, the bad ones stopped early. Knows nothing of who runs it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.config.space import Distribution
from pipeline.config.tune import PAUSING
from pipeline.launch.launcher import describe
from pipeline.tuning.points import Values, grid_points, random_points
from pipeline.tuning.sweep_log import Metrics, SweepLog

Message = dict[str, Any]
"""Metrics, or {the plan's metric: nan, FAILURE: why}: all that travels from a trial to who runs the sweep."""
Report = Callable[[Message], None]

METRIC = "validation_nll"
"""What a classifier's sweep minimises, nats: at few labels it tells more than the accuracy's coarse steps."""
FAILURE = "failure"


@dataclass(frozen=True, kw_only=True)
class SweepPlan:
    """One sweep. Equal plans give equal trials bit for bit when `max_concurrent` is 1."""

    name: str
    """What is swept, for messages: an arm, or a target."""
    metric: str = METRIC
    """What is minimised, one of the metrics that a trial reports."""
    searcher: str = "tpe"
    """random, grid or tpe."""
    scheduler: str = "asha"
    """none, asha, hyperband, bohb or pbt."""
    space: Mapping[str, Distribution]
    """What is drawn, by name."""
    start: Values
    """Values of a trial as it is without a sweep; those not in `space` hold for every trial."""
    starts: bool = True
    """Whether the first trial has the values of `start`; a grid goes through its own points alone."""
    num_trials: int
    """>= 1."""
    num_reports: int
    """Reports of a trial that is not stopped."""
    reduction_factor: int
    """The best 1/reduction_factor go on at each rung."""
    max_concurrent: int
    """Trials side by side."""
    threads: int
    """CPU threads of a trial, or of each of its workers."""
    seed: int
    """Of the searcher."""

    @property
    def pauses(self) -> bool:
        """Whether trials are paused and go on from checkpoints."""
        return self.scheduler in PAUSING

    @property
    def first_point(self) -> list[Values]:
        """The values of `start` that are searched, where the first trial has them."""
        searched = {name: self.start[name] for name in sorted(self.space)}
        return [searched] if self.starts and self.searcher != "grid" else []

    def points(self) -> list[Values]:
        """All trials, of a searcher that looks at no result."""
        assert self.searcher in ("random", "grid")
        if self.searcher == "grid":
            return grid_points(self.space)
        first = self.first_point
        return [*first, *random_points(self.space, self.num_trials - len(first), self.seed)]


@dataclass
class SweptTrial:
    """number: from 0 in the order of the draws.  values: at its last report.  curve: metrics of each report.  failure:
    why it failed, or empty.  donors: the trial whose weights it went on from, by the number of the report before which
    it did.  path: values at each report, where they change.  seconds: of training.  lost: given up with its node."""

    number: int
    values: Values
    curve: list[Metrics] = field(default_factory=list)
    failure: str = ""
    donors: dict[int, int] = field(default_factory=dict)
    path: list[Values] = field(default_factory=list)
    seconds: float = field(default=0.0, compare=False)
    lost: bool = field(default=False, compare=False)

    def status(self, plan: SweepPlan) -> str:
        if self.failure:
            return "failed"
        return "completed" if len(self.curve) == plan.num_reports else "stopped"


class SweepFunction(Protocol):
    """A trial as a sweep sees it: reports what each validation gives, in order; equal values give equal reports.

    checkpoint: None, or a file that the trial writes before each report but the last and, if it exists, goes on from:
    then it reports only what comes after.
    """

    def __call__(self, values: Values, shared: Any, report: Report, checkpoint: Path | None) -> None: ...


class Recorder:
    """What a sweep has shown so far, on the side of who runs it."""

    def __init__(self, log: SweepLog, on_report: Callable[[SweptTrial], None] | None = None) -> None:
        self.log, self._on_report = log, on_report
        self.trials: dict[int, SweptTrial] = {}
        self._owners: dict[str, int] = {}
        self._seen: set[tuple[int, str]] = set()

    def known_curves(self) -> dict[str, list[Metrics]]:
        """What an interrupted sweep left, by `trial_key`."""
        return {key: list(curve) for key, curve in self.log.curves.items()}

    def begin(self, number: int, values: Values) -> SweptTrial:
        """The trial of that number, new or known: one whose process died begins again."""
        return self.trials.setdefault(number, SweptTrial(number, values))

    def add(self, trial: SweptTrial, position: int, message: Message, seconds: float = 0.0) -> None:
        """Report number `position`, from 0, after `seconds` of work."""
        if FAILURE in message:
            trial.failure = message[FAILURE]
        elif position == len(trial.curve):
            trial.curve.append(message)
            trial.seconds += self.log.add(trial.values, position, message, seconds)
        if self._on_report is not None:
            self._on_report(trial)

    def add_step(
        self, trial: SweptTrial, values: Values, message: Message, *, key: str, before: str, seconds: float
    ) -> None:
        """A report of a trial that may go on from another's checkpoint; key, before: see `pipeline.tuning.steps`."""
        if FAILURE in message:
            trial.failure = message[FAILURE]
        elif (trial.number, key) not in self._seen:  # a trial whose process died repeats steps
            if before and (trial.number, before) not in self._seen:
                trial.donors[len(trial.curve)] = self._owners[before]
            self._owners.setdefault(key, trial.number)
            self._seen.add((trial.number, key))
            trial.curve.append(message)
            trial.path.append(values)
            trial.values = values
            trial.seconds += self.log.add_step(key, message, seconds)
        if self._on_report is not None:
            self._on_report(trial)


class Sweeper(Protocol):
    """Runs sweeps somewhere."""

    def sweep(self, plan: SweepPlan, function: SweepFunction, shared: Any, recorder: Recorder) -> list[SweptTrial]:
        """Every trial by number. One that fails is reported in its place and doesn't stop the others."""
        ...


def replay(
    function: SweepFunction, values: Values, shared: Any, known: Sequence[Metrics], plan: SweepPlan, report: Report
) -> None:
    """Runs one trial. Known reports are passed on at once; it trains only when there are more to come.

    An exception becomes a message with the metric nan, which the searcher leaves out of its model.
    """
    for metrics in known:
        report(dict(metrics))
    if len(known) == plan.num_reports:
        return
    count = 0

    def report_new(metrics: Message) -> None:
        nonlocal count
        count += 1
        if count > len(known):
            report(metrics)

    try:
        function(values, shared, report_new, None)
    except Exception as error:
        report({plan.metric: math.nan, FAILURE: describe(error)})
