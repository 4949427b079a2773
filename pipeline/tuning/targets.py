"""What a sweep of each target consists of: its plan, its trial as a function, and the data that its trials read."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pipeline import paths
from pipeline.config.generators import Gan, Vae
from pipeline.config.pretrain import Layer
from pipeline.config.run import Run
from pipeline.config.space import Distribution
from pipeline.config.targets import Section, target_space
from pipeline.config.tune import LAYER_PREFIX, Tune, grid_size
from pipeline.data.prepared import Prepared
from pipeline.device import run_accelerator, set_threads
from pipeline.models.dbn import DBN
from pipeline.seeding import derive_seed
from pipeline.training.draws import draw_labels
from pipeline.training.generators import GeneratorData
from pipeline.training.greedy import LayerData
from pipeline.training.stored import load_dbn
from pipeline.tuning.gather import gather_trial_data
from pipeline.tuning.sweep import SweepFunction, SweepPlan
from pipeline.tuning.target_trials import (
    METRICS,
    GeneratorSpec,
    LayerSpec,
    SweptLayerData,
    classifier_trial,
    generator_trial,
    layer_trial,
)
from pipeline.tuning.trial import TrialSpec, pick_values

SEED = 0
"""Every sweep of classifiers uses the same draw of labels; that of a generator uses the first one, too."""


@dataclass(frozen=True)
class Sweep:
    """plan, function, data: what a Sweeper takes.  column: what the plan's name is, in tables."""

    plan: SweepPlan
    function: SweepFunction
    data: Any
    column: str


def classifier_sweeps(tune: Tune, run: Run, prepared: Prepared, top_layer: str) -> list[Sweep]:
    """One sweep for each of tune.arms, over the same data."""
    data = gather_trial_data(prepared, top_layer, tune.arms, seeds=[SEED], budgets=[tune.budget])
    sweeps = []
    for arm in tune.arms:
        spec = TrialSpec(
            purpose="tune",
            arm=arm,
            budget=tune.budget,
            seed=SEED,
            root_seed=run.seed,
            steps=tune.steps,
            reports=tune.reports,
            batch_size=tune.batch_size,
            accelerator=run_accelerator(run),
            precision=run.precision,
            **pick_values(tune.start),
        )
        start = {name: float(value) for name, value in tune.start.items()}
        plan = make_plan(tune, run, arm, METRICS["classifier"], tune.distributions, start, tune.steps)
        sweeps.append(Sweep(plan, partial(classifier_trial, spec=spec), data, "arm"))
    return sweeps


def target_sweep(tune: Tune, run: Run, prepared: Prepared, section: Section, layers: Mapping[str, Layer]) -> Sweep:
    """The sweep of a target that has a section of its own: vae, gan, or a layer of the DBN."""
    target = tune.target
    space = target_space(tune, target, section)
    start = {name: getattr(section, name) for name in space}
    common: dict[str, Any] = {
        "seed": run.seed,
        "accelerator": run_accelerator(run),
        "precision": run.precision,
        "reports": tune.reports,
    }
    if isinstance(section, Vae | Gan):
        plan = make_plan(tune, run, target, METRICS[target], space, start, section.steps)
        function = partial(generator_trial, spec=GeneratorSpec(config=section, **common))
        return Sweep(plan, function, _generator_data(run, prepared), "target")
    plan = make_plan(tune, run, target, METRICS["pretrain"], space, start, section.steps)
    data = _layer_data(prepared, target.removeprefix(LAYER_PREFIX), layers)
    return Sweep(plan, partial(layer_trial, spec=LayerSpec(layer=section, **common)), data, "target")


def make_plan(
    tune: Tune,
    run: Run,
    name: str,
    metric: str,
    space: Mapping[str, Distribution],
    start: dict[str, Any],
    steps: int,
) -> SweepPlan:
    """steps: updates of a trial."""
    return SweepPlan(
        name=name,
        metric=metric,
        searcher=tune.searcher,
        scheduler=tune.scheduler,
        space=space,
        start=start,
        starts=all(start[name] in space[name] for name in space),
        num_trials=grid_size(dict(space)) if tune.searcher == "grid" else tune.num_trials,
        num_reports=-(-steps // -(-steps // tune.reports)),  # 9 steps in 6 reports are 5 of 2 or 1 steps
        reduction_factor=tune.reduction_factor,
        max_concurrent=tune.max_concurrent,
        threads=run.threads if run.workers == 1 else run.cpus_per_worker,
        seed=derive_seed(run.seed, "tune", "searcher"),
    )


def _generator_data(run: Run, prepared: Prepared) -> GeneratorData:
    set_threads(1)  # for the spreading of labels: its bits depend on the count
    labels = draw_labels(prepared, SEED, seed=run.seed)[None]
    set_threads(run.threads)
    return GeneratorData(
        np.array(prepared.train.images),
        labels,
        np.array(prepared.validation.images),
        np.array(prepared.validation.labels),
        prepared.num_classes,
    )


def _layer_data(prepared: Prepared, name: str, layers: Mapping[str, Layer]) -> SweptLayerData:
    below = layers[name].below
    dbn = DBN([], prepared.image_shape) if below == "prepare" else load_dbn(paths.OUT / below)
    state = {key: tensor.numpy() for key, tensor in dbn.state_dict().items()}
    images, validation = (np.array(split.images) for split in (prepared.train, prepared.validation))
    return SweptLayerData(LayerData(images, validation), (dbn.to_config(), state))
