"""What a sweep found: its best trial and its tables. No time and no name that changes from run to run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.tuning.sweep import METRIC, SweepPlan, SweptTrial


def best_trial(trials: Sequence[SweptTrial], plan: SweepPlan) -> SweptTrial:
    """Of the trials that ran to their end, the one with the lowest last METRIC.

    A stopped one is no candidate: its learning rate has not come down yet. Raises ValueError when all failed.
    """
    completed = [trial for trial in trials if trial.status(plan) == "completed"]
    if not completed:
        failures = "\n".join(f"  trial {trial.number} {trial.values}: {trial.failure}" for trial in trials)
        raise ValueError(
            f"all {len(trials)} trials of the sweep of {plan.name} failed:\n{failures}\n"
            "narrow tune.space or change tune.start in params.yaml"
        )
    return min(completed, key=lambda trial: (trial.curve[-1][METRIC], trial.number))


def trial_rows(trials: Sequence[SweptTrial], plan: SweepPlan) -> list[dict[str, Any]]:
    """One row per trial."""
    return [
        {
            "arm": plan.name,
            "trial": trial.number,
            **{name: trial.values[name] for name in sorted(plan.start)},
            "status": trial.status(plan),
            "reports": len(trial.curve),
            METRIC: trial.curve[-1][METRIC] if trial.curve else "",
            "validation_accuracy": trial.curve[-1]["validation_accuracy"] if trial.curve else "",
        }
        for trial in trials
    ]


def history_rows(swept: Mapping[str, Sequence[SweptTrial]], plans: Mapping[str, SweepPlan]) -> list[dict[str, Any]]:
    """A row per trial number: the lowest last METRIC of the trials completed so far, a column per sweep."""
    count = max(len(trials) for trials in swept.values())
    return [
        {"trial": number, **{name: _lowest(trials[: number + 1], plans[name]) for name, trials in swept.items()}}
        for number in range(count)
    ]


def _lowest(trials: Sequence[SweptTrial], plan: SweepPlan) -> float | str:
    values = [trial.curve[-1][METRIC] for trial in trials if trial.status(plan) == "completed"]
    return min(values, default="")


def summarise_sweep(trials: Sequence[SweptTrial], plan: SweepPlan) -> dict[str, float]:
    """The first trial's and the best trial's loss, and how many trials ended in which way."""
    counts = Counter(trial.status(plan) for trial in trials)
    best, first = best_trial(trials, plan), trials[0]
    return {
        METRIC: best.curve[-1][METRIC],
        "validation_accuracy": best.curve[-1]["validation_accuracy"],
        **({f"start_{METRIC}": first.curve[-1][METRIC]} if first.status(plan) == "completed" else {}),
        **{status: counts[status] for status in ("completed", "stopped", "failed")},
    }
