"""One trial of each target of a sweep: what it trains, and the validation score that it reports.

None of them reads a test image, and none reports what it minimises itself: a score must compare across what is swept.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config.generators import Gan, Vae
from pipeline.config.pretrain import Layer
from pipeline.models.dbn import DBN, GreedyLayer
from pipeline.models.pseudo_likelihood import negative_pseudo_likelihood
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.generators import SAMPLING_BATCH, GeneratorData, GeneratorTask, Model, fit_generator
from pipeline.training.greedy import LayerData, LayerTask, fit_layer
from pipeline.training.stream import as_batch, as_tensor
from pipeline.tuning.points import Values
from pipeline.tuning.sweep import METRIC, Report
from pipeline.tuning.trial import TrialData, TrialSpec, run_trial

METRICS = {
    "classifier": METRIC,
    "vae": "validation_negative_elbo",
    "gan": "validation_frechet",
    "pretrain": "validation_negative_pseudo_likelihood",
}
"""What a sweep of each kind of target minimises. Nats per image, but for the Fréchet distance."""
MAX_SCORED = 500
"""Validation images that enter the score of a GAN or of a layer."""
MAX_COMPONENTS = 64
POOL = 5000


@dataclass(frozen=True, kw_only=True)
class GeneratorSpec:
    """A VAE or GAN trial: the stage's own fit of the first label draw, with the drawn values in place of its own."""

    config: Vae | Gan
    seed: int
    accelerator: str
    precision: str
    reports: int


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """A trial of a layer of the DBN, as its stage would train it."""

    layer: Layer
    seed: int
    accelerator: str
    precision: str
    reports: int


@dataclass(frozen=True)
class SweptLayerData:
    """below: config and weights of the frozen layers below the trained one, as arrays that Ray need not copy."""

    data: LayerData
    below: tuple[Mapping[str, Any], Mapping[str, npt.NDArray[Any]]]


def classifier_trial(
    values: Values, shared: TrialData, report: Report, checkpoint: Path | None, *, spec: TrialSpec
) -> None:
    """Reports validation_nll (nats) and validation_accuracy."""
    chosen = replace(spec, **values)
    run_trial(chosen, shared, report=lambda _, metrics: report(metrics), checkpoint=checkpoint)


def generator_trial(
    values: Values, shared: GeneratorData, report: Report, checkpoint: Path | None, *, spec: GeneratorSpec
) -> None:
    """A VAE reports minus its evidence lower bound, with the KL term at weight 1 whatever beta trains with, and the two
    terms; a GAN the Fréchet distance of its samples to validation images in a fixed feature space.
    """
    task = GeneratorTask(
        config=replace(spec.config, **values),
        draw=0,
        seed=spec.seed,
        precision=spec.precision,
        accelerator=spec.accelerator,
        checkpoint=checkpoint,
        epochs=spec.reports,
    )
    if task.kind == "gan":
        metric = METRICS["gan"]
        watch = frechet_watch(shared, seed=derive_seed(spec.seed, "sweep", "gan"))
        fit_generator(task, shared, watch=watch, on_epoch=lambda _, entry: report({metric: entry[metric]}))
        return

    def tell(_: int, entry: dict[str, float]) -> None:
        parts = {f"validation_{name}": entry[f"val/{name}"] for name in ("reconstruction", "kl")}
        report({METRICS["vae"]: -entry["val/elbo"], **parts})

    fit_generator(task, shared, on_epoch=tell)


def frechet_watch(data: GeneratorData, *, seed: int) -> Callable[[Model], dict[str, float]]:
    """Scores a generator's samples against validation images: one sample per image, with the image's label.

    Features are the first principal components of the training pool: they need no network and are the same for every
    trial. From a few hundred images the distance reads too high, equally for all trials: it ranks, and is no FID.
    """
    from pipeline.metrics.distances import frechet_between
    from pipeline.metrics.generative import pca_features

    held_out = data.validation_images[:MAX_SCORED]
    labels = torch.from_numpy(data.validation_labels[:MAX_SCORED].copy())
    components = max(1, min(MAX_COMPONENTS, len(held_out) // 4))
    pool = np.array(data.images[:POOL])

    def moments(images: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        (features,) = pca_features(pool, [images], num_components=components, seed=seed)
        return features.mean(axis=0), np.cov(features, rowvar=False).reshape(components, components)

    real = moments(np.array(held_out))

    def watch(model: Model) -> dict[str, float]:
        device = next(model.parameters()).device
        generator = make_generator(seed, "samples", device=device)
        parts = [model.sample(part.to(device), generator).cpu() for part in labels.split(SAMPLING_BATCH)]
        return {METRICS["gan"]: frechet_between(*real, *moments(torch.cat(parts).numpy()))}

    return watch


def layer_trial(
    values: Values, shared: SweptLayerData, report: Report, checkpoint: Path | None, *, spec: LayerSpec
) -> None:
    """Reports minus the pseudo-likelihood of validation images (nats per image), and the gap between the free energies
    of validation and training images, which grows with overfitting. Not the reconstruction error: a bad model whose
    chains mix badly reconstructs well.
    """
    config, state = shared.below
    below = DBN.from_config(config)
    below.load_state_dict({name: as_tensor(array) for name, array in state.items()})
    validation = as_tensor(shared.data.validation[:MAX_SCORED])
    scored = as_batch(validation, torch.zeros(len(validation))).images
    metric = METRICS["pretrain"]

    @torch.no_grad()
    def watch(model: GreedyLayer) -> dict[str, float]:
        device = next(model.parameters()).device
        inputs = model.dbn.mean_field(scored.to(device), model.depth)
        generator = make_generator(spec.seed, "sweep", "units", device=device)
        return {metric: float(negative_pseudo_likelihood(model.top, inputs, generator).mean())}

    task = LayerTask(
        name="swept layer",
        below=below.eval(),
        layer=replace(spec.layer, **values),
        seed=spec.seed,
        accelerator=spec.accelerator,
        precision=spec.precision,
        checkpoint=checkpoint,
        epochs=spec.reports,
    )

    def tell(_: int, entry: dict[str, float]) -> None:
        report({metric: entry[metric], "validation_gap": entry["gap"]})

    fit_layer(task, shared.data, tell, watch=watch)
