"""The study: every arm at every label budget with every seed, and what came out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.classifier import ARMS, GENERATORS, Study
from pipeline.launch.launcher import Failure, Launcher, raise_failures
from pipeline.tuning.arms import recipe, tuned_as
from pipeline.tuning.results import load_result, save_result
from pipeline.tuning.trial import TrialData, TrialResult, TrialSpec, pick_values, run_trial


@dataclass(frozen=True, order=True)
class StudyRow:
    """One finished trial."""

    arm: str
    budget: int
    seed: int
    validation_accuracy: float
    validation_nll: float


def study_recipes(study: Study, tuned: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """lr, weight_decay, dropout and synthetic_share of every arm of the study.

    tuned: best.json. Raises ValueError when an arm has no sweep to take its values from.
    """
    strange = [name for name in tuned if name not in ARMS or name in GENERATORS]
    if strange:
        raise ValueError(
            f"out/tune holds a sweep of {', '.join(strange)}, which has no values for the study's classifiers: set "
            "tune.target to classifier in params.yaml and run `dvc repro`"
        )
    return {
        arm: pick_values(tuned[tuned_as(arm, list(tuned))])
        | {"synthetic_share": study.synthetic_share if recipe(arm).generator else 0.0}
        for arm in study.arms
    }


def list_specs(
    study: Study,
    recipes: Mapping[str, Mapping[str, Any]],
    *,
    budgets: Sequence[int],
    num_seeds: int,
    root_seed: int,
    accelerator: str,
    precision: str,
) -> list[TrialSpec]:
    """Every trial of the study: arms in their order in params.yaml, then budgets, then seeds."""
    return [
        TrialSpec(
            purpose="study",
            arm=arm,
            budget=budget,
            seed=seed,
            root_seed=root_seed,
            steps=study.steps,
            batch_size=study.batch_size,
            accelerator=accelerator,
            precision=precision,
            **recipes[arm],
        )
        for arm in study.arms
        for budget in budgets
        for seed in range(num_seeds)
    ]


def run_study(
    specs: Sequence[TrialSpec],
    data: TrialData,
    launcher: Launcher,
    work: Path,
    on_done: Callable[[int, StudyRow | None], None],
) -> list[StudyRow]:
    """Runs the trials that `work` does not hold yet; `load_result(work, str(spec))` then gives each.

    on_done(trials finished, the latest) hears of each, and of the start with None. Raises ValueError naming every
    trial that failed, after all others are done and kept.
    """
    found = {str(spec): (spec, load_result(work, str(spec))) for spec in specs}
    finished = {name: _row(spec, result) for name, (spec, result) in found.items() if result is not None}
    on_done(len(finished), None)

    def keep(spec: TrialSpec, result: TrialResult) -> None:
        save_result(work, str(spec), result)
        finished[str(spec)] = _row(spec, result)
        on_done(len(finished), finished[str(spec)])

    waiting = [spec for spec in specs if str(spec) not in finished]
    results = launcher.map_trials(run_trial, waiting, data, on_result=keep)
    failures = [result for result in results if isinstance(result, Failure)]
    raise_failures(failures, len(specs), "All others are kept: mend it and run the same command again.")
    return [finished[str(spec)] for spec in specs]


def _row(spec: TrialSpec, result: TrialResult) -> StudyRow:
    assert spec.budget is not None
    return StudyRow(spec.arm, spec.budget, spec.seed, **result.metrics)


@dataclass(frozen=True)
class Cell:
    """One arm at one budget: means over its seeds."""

    arm: str
    budget: int
    num_seeds: int
    validation_accuracy: float
    validation_nll: float

    @property
    def scores(self) -> dict[str, float]:
        """The means by name."""
        return {"validation_accuracy": self.validation_accuracy, "validation_nll": self.validation_nll}


def summarise(rows: Iterable[StudyRow]) -> list[Cell]:
    """Means over the seeds, arms and budgets in order of their first appearance."""
    groups: dict[tuple[str, int], list[StudyRow]] = {}
    for row in rows:
        groups.setdefault((row.arm, row.budget), []).append(row)
    return [
        Cell(
            arm,
            budget,
            len(group),
            sum(row.validation_accuracy for row in group) / len(group),
            sum(row.validation_nll for row in group) / len(group),
        )
        for (arm, budget), group in groups.items()
    ]


def choose_arm(cells: Sequence[Cell]) -> tuple[str, str]:
    """The arm with the best mean validation accuracy at the largest budget, ties by likelihood; and why, in words."""
    largest = max(cell.budget for cell in cells)
    ranked = sorted(
        (cell for cell in cells if cell.budget == largest),
        key=lambda cell: (-cell.validation_accuracy, cell.validation_nll),
    )
    best = ranked[0]
    seeds = f"{best.num_seeds} seed{'s' if best.num_seeds > 1 else ''}"
    reason = (
        f"{best.arm} has the highest mean validation accuracy of the study's arms at {largest} labels: "
        f"{best.validation_accuracy:.4f} over {seeds}"
    )
    others = [f"{cell.arm} {cell.validation_accuracy:.4f}" for cell in ranked[1:]]
    return best.arm, reason + (f" (then {', '.join(others)})" if others else "")


def budget_rows(cells: Sequence[Cell]) -> list[dict[str, float]]:
    """The label-efficiency curves: a row per budget, mean validation accuracy in a column per arm."""
    budgets = sorted({cell.budget for cell in cells})
    return [
        {"budget": budget, **{cell.arm: cell.validation_accuracy for cell in cells if cell.budget == budget}}
        for budget in budgets
    ]


def parse_rows(table: Iterable[Mapping[str, str]]) -> list[StudyRow]:
    """out/study/trials.csv as it was written."""
    return [
        StudyRow(
            row["arm"],
            int(row["budget"]),
            int(row["seed"]),
            float(row["validation_accuracy"]),
            float(row["validation_nll"]),
        )
        for row in table
    ]
