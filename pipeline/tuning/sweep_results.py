"""What a sweep found: its best trial and its tables. No time and no name that changes from run to run."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.config.space import LogRandInt, LogUniform
from pipeline.tracking import FinishedRun
from pipeline.tuning.sweep import SweepPlan, SweptTrial


@dataclass(frozen=True)
class Swept:
    """A finished sweep.  column: what the plan's name is, in tables: arm or target."""

    plan: SweepPlan
    trials: list[SweptTrial]
    column: str


def best_trial(trials: Sequence[SweptTrial], plan: SweepPlan) -> SweptTrial:
    """Of the trials that ran to their end, the one with the lowest last metric.

    A stopped one is no candidate: its learning rate has not come down yet. Raises ValueError when all failed.
    """
    completed = [trial for trial in trials if trial.status(plan) == "completed"]
    if not completed:
        failures = "\n".join(f"  trial {trial.number} {trial.values}: {trial.failure}" for trial in trials)
        raise ValueError(
            f"all {len(trials)} trials of the sweep of {plan.name} failed:\n{failures}\n"
            "narrow tune.space or change tune.start in params.yaml"
        )
    return min(completed, key=lambda trial: (trial.curve[-1][plan.metric], trial.number))


def trial_rows(
    trials: Sequence[SweptTrial], plan: SweepPlan, column: str = "arm", *, seconds: bool = False
) -> list[dict[str, Any]]:
    """One row per trial: values and metrics at its last report, and the lowest metric of all its reports.

    column: what the plan's name is called.  seconds: also how long it trained, which differs from run to run.
    """
    metrics = _metrics(trials, plan)
    return [
        {
            column: plan.name,
            "trial": trial.number,
            **{name: trial.values[name] for name in sorted(plan.start)},
            "status": trial.status(plan),
            "reports": len(trial.curve),
            **{name: trial.curve[-1][name] if trial.curve else "" for name in metrics},
            f"best_{plan.metric}": min((entry[plan.metric] for entry in trial.curve), default=""),
            **({"seconds": round(trial.seconds, 3)} if seconds else {}),
        }
        for trial in trials
    ]


def report_rows(trials: Sequence[SweptTrial], plan: SweepPlan, column: str = "arm") -> list[dict[str, Any]]:
    """One row per report of each trial: the values it trained with, the donor whose weights it went on from (empty for
    its own), and what it measured."""
    metrics = _metrics(trials, plan)
    return [
        {
            column: plan.name,
            "trial": trial.number,
            "report": position + 1,
            **{name: (trial.path or [trial.values] * len(trial.curve))[position][name] for name in sorted(plan.space)},
            "donor": trial.donors.get(position, ""),
            **{name: entry[name] for name in metrics},
        }
        for trial in trials
        for position, entry in enumerate(trial.curve)
    ]


def _metrics(trials: Sequence[SweptTrial], plan: SweepPlan) -> list[str]:
    """Names of what the trials report, the plan's metric first."""
    reported = next((trial.curve[-1] for trial in trials if trial.curve), {})
    return [plan.metric, *sorted(name for name in reported if name != plan.metric)]


def history_rows(swept: Sequence[Swept]) -> list[dict[str, Any]]:
    """A row per trial number: the lowest last metric of the trials completed so far, a column per sweep."""
    count = max(len(found.trials) for found in swept)
    return [
        {"trial": number, **{found.plan.name: _lowest(found.trials[: number + 1], found.plan) for found in swept}}
        for number in range(count)
    ]


def _lowest(trials: Sequence[SweptTrial], plan: SweepPlan) -> float | str:
    values = [trial.curve[-1][plan.metric] for trial in trials if trial.status(plan) == "completed"]
    return min(values, default="")


def summarise_sweep(trials: Sequence[SweptTrial], plan: SweepPlan) -> dict[str, float]:
    """The first trial's and the best trial's metrics, and how many trials ended in which way."""
    counts = Counter(trial.status(plan) for trial in trials)
    best, first = best_trial(trials, plan), trials[0]
    started = bool(plan.first_point) and first.status(plan) == "completed" and not plan.pauses
    return {
        **{name: best.curve[-1][name] for name in _metrics(trials, plan)},
        **({f"start_{plan.metric}": first.curve[-1][plan.metric]} if started else {}),
        **{status: counts[status] for status in ("completed", "stopped", "failed")},
    }


def coordinates(swept: Swept) -> list[tuple[dict[str, float], bool]]:
    """For each trial that reported: its searched values with its last metric, and whether it ran to its end."""
    plan = swept.plan
    return [
        (
            {name: float(trial.values[name]) for name in sorted(plan.space)}
            | {plan.metric: trial.curve[-1][plan.metric]},
            trial.status(plan) == "completed",
        )
        for trial in swept.trials
        if trial.curve
    ]


def log_scales(plan: SweepPlan) -> list[str]:
    """The searched values that are drawn on a logarithmic scale."""
    return [name for name, found in plan.space.items() if isinstance(found, LogUniform | LogRandInt)]


def finished_runs(swept: Swept) -> list[FinishedRun]:
    """Each trial as a run of the tracker."""
    plan = swept.plan
    return [
        FinishedRun(
            name=f"{plan.name}-{trial.number}",
            config={"sweep": plan.name, **trial.values},
            curve=[
                {**entry, **{name: values[name] for name in plan.space}}
                for entry, values in zip(trial.curve, trial.path or [trial.values] * len(trial.curve), strict=True)
            ],
            summary={"status": trial.status(plan), "seconds": round(trial.seconds, 3)},
            failed=trial.failure,
        )
        for trial in swept.trials
    ]


def say_sweep(trials: Sequence[SweptTrial], plan: SweepPlan) -> list[str]:
    """Lines for the person who watches: each trial that failed and why, and the best one."""
    lines = [
        f"{plan.name}: trial {trial.number} failed ({_say_values(trial, plan)}): {trial.failure.splitlines()[0]}"
        for trial in trials
        if trial.failure
    ]
    best = best_trial(trials, plan)
    found = f"{plan.metric} {best.curve[-1][plan.metric]:.4f}, trial {best.number}"
    return [*lines, f"{plan.name}: {_say_values(best, plan)} ({found})"]


def _say_values(trial: SweptTrial, plan: SweepPlan) -> str:
    """What was searched, and the rest of `plan.start`, as text."""
    return ", ".join(f"{name} {trial.values[name]:.3g}" for name in sorted(plan.start))
