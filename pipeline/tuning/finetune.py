"""Fine-tuning: the recipe that the study chose, and the scratch recipe as its pair, on every label there is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config.classifier import Finetune
from pipeline.config.dp import Dp
from pipeline.launch.choose import Fitter, fit_here
from pipeline.launch.launcher import OnEpoch
from pipeline.training.guarantee import Guarantee, plan_guarantee
from pipeline.tuning.results import load_result, save_result
from pipeline.tuning.trial import TrialData, TrialResult, TrialSpec, run_trial

SEED = 0
"""Draw of the synthetic images, and number of the starting weights and batches, which both recipes share."""

OnStep = Callable[[str, int, dict[str, float]], None]
"""Called with "winner" or "scratch", the updates done and the metrics."""


def finetune_specs(
    finetune: Finetune,
    winner: str,
    recipes: Mapping[str, Mapping[str, Any]],
    *,
    num_images: int,
    root_seed: int,
    accelerator: str,
    precision: str,
) -> dict[str, TrialSpec]:
    """The two trials by name, "winner" and "scratch": values that section finetune leaves null come from `recipes`."""
    given = {name: getattr(finetune, name) for name in ("lr", "weight_decay", "dropout")}
    scratch = TrialSpec(
        purpose="finetune",
        arm="scratch",
        budget=None,
        seed=SEED,
        root_seed=root_seed,
        steps=finetune.epochs * -(-num_images // finetune.batch_size),
        reports=finetune.epochs,
        batch_size=finetune.batch_size,
        accelerator=accelerator,
        precision=precision,
        **recipes["scratch"],
    )
    specs = {"winner": replace(scratch, arm=winner, **recipes[winner]), "scratch": scratch}
    chosen = {name: value for name, value in given.items() if value is not None}
    return {name: replace(spec, **chosen) for name, spec in specs.items()}


def make_private(
    specs: Mapping[str, TrialSpec], dp: Dp, *, num_images: int, secret: int
) -> tuple[dict[str, TrialSpec], Guarantee]:
    """The trials with differential privacy, and what is promised for both together. Equal ones stay equal: they are one
    fit; others have secrets of their own.
    """
    spec = specs["winner"]
    guarantee = plan_guarantee(
        dp,
        num_images=num_images,
        batch_size=spec.batch_size,
        steps=spec.steps,
        fits=len(set(map(repr, specs.values()))),
    )
    steps = guarantee.private_steps(secret)
    return {name: replace(s, private=steps.with_secret_of(repr(s))) for name, s in specs.items()}, guarantee


@dataclass(frozen=True)
class FinetuneTask:
    """One of the two fits. checkpoint: where it goes on from after a kill."""

    name: str
    spec: TrialSpec
    checkpoint: Path

    def __str__(self) -> str:
        return self.name


def fit_task(task: FinetuneTask, data: TrialData, on_epoch: OnEpoch) -> TrialResult:
    return run_trial(task.spec, data, report=on_epoch, checkpoint=task.checkpoint)


def run_finetune(
    specs: Mapping[str, TrialSpec], data: TrialData, work: Path, on_step: OnStep, fitter: Fitter = fit_here
) -> dict[str, TrialResult]:
    """Trains each spec, equal ones once, and goes on where a killed run stopped."""
    results: dict[str, TrialResult] = {}
    for name, spec in specs.items():
        twin = next((other for other in results if specs[other] == spec), None)
        results[name] = (
            results[twin]
            if twin
            else _run(FinetuneTask(name, spec, work / f"{name}.ckpt"), data, work, on_step, fitter)
        )
    return results


def _run(task: FinetuneTask, data: TrialData, work: Path, on_step: OnStep, fitter: Fitter) -> TrialResult:
    result = load_result(work, task.name)
    if result is None:
        result = fitter(fit_task, task, data, lambda step, metrics: on_step(task.name, step, metrics))
        save_result(work, task.name, result)
    return result


def curve_rows(results: Mapping[str, TrialResult]) -> list[dict[str, float]]:
    """Validation accuracy and losses of every result along the steps, a column each."""
    histories = {name: result.history for name, result in results.items()}
    return [
        {"step": entries[0]["step"]}
        | {
            f"{name}_{key}": entry[key]
            for name, entry in zip(histories, entries, strict=True)
            for key in ("validation_accuracy", "validation_nll", "train_nll")
            if key in entry
        }
        for entries in zip(*histories.values(), strict=True)
    ]
