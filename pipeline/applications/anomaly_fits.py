"""Fits a detector, or the baselines, to normal images of one class; scores what is to be judged."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.applications.anomaly_baselines import fit_baselines
from pipeline.config.anomaly import Anomaly
from pipeline.config.generators import Gan, Vae
from pipeline.config.pretrain import ConvLayer, DenseLayer, Layer
from pipeline.data.arrays import Images, Labels
from pipeline.models.anogan import LatentEncoder
from pipeline.models.dbn import DBN
from pipeline.models.detectors import (
    AnoganDetector,
    Detector,
    NeighbourDetector,
    RbmDetector,
    VaeDetector,
    pooled_features,
)
from pipeline.models.gan import ConditionalGAN
from pipeline.models.losses import UNLABELLED
from pipeline.models.vae import ConditionalVAE
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.generators import GeneratorData, GeneratorTask, Model, fit_generator, load_generator
from pipeline.training.greedy import LayerData, LayerTask, fit_layer
from pipeline.training.plan import FitPlan
from pipeline.training.stream import BatchStream, as_tensor, in_batches

BASELINES = "baselines"
"""The kind of task that fits all of them: they take no training."""
EPOCHS = 4
"""Checkpoints of a detector's fit."""
SCORED_AT_ONCE = 500
MIN_HELD_OUT = 2
"""Normal images that scores are scaled by."""

Scores = dict[str, npt.NDArray[np.float64]]

RBM: dict[str, Any] = {
    "kind": "dense",
    "below": "prepare",
    "visible": "bernoulli",
    "hidden": "bernoulli",
    "batch_size": 100,
    "lr": 0.05,
    "schedule": "linear_tail",
    "momentum": 0.5,
    "weight_decay": 0.0002,
    "gibbs_steps": 1,
    "persistent": True,  # free energies of PCD are comparable, those of CD are not (docs/LOG.md)
    "num_temperatures": 1,
    "centred": False,
    "sparsity_target": 0.1,
    "sparsity_cost": 0.0,
}
CONV_RBM: dict[str, Any] = {
    "kind": "conv",
    "below": "prepare",
    "num_filters": 32,
    "kernel_size": 9,
    "pool_size": 2,
    "visible": "bernoulli",
    "batch_size": 32,
    "lr": 1.0,
    "schedule": "linear_tail",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "gibbs_steps": 1,
    "persistent": False,
    "sparsity_target": 0.02,
    "sparsity_cost": 1.0,
}


@dataclass(frozen=True, kw_only=True)
class DetectorTask:
    """One kind of detector (or the `BASELINES`) of one normal class under one seed.

    work: a folder for what is finished, and for the checkpoints that a killed fit goes on from.
    """

    kind: str
    normal_class: int
    class_name: str
    number: int
    settings: Anomaly
    vae: Vae
    gan: Gan
    seed: int
    accelerator: str
    precision: str
    work: Path

    def __str__(self) -> str:
        return f"{self.kind}, normal class {self.class_name}, seed {self.number}"

    def checkpoint(self, name: str) -> Path:
        return self.work / f"{name}.ckpt"


@dataclass(frozen=True)
class DetectorData:
    """What the tasks share: images (N, C, H, W) uint8 to learn from, others held out, and those to judge, without
    labels.  Labels only choose the normal images of the first two."""

    images: Images
    labels: Labels
    held_out: Images
    held_out_labels: Labels
    judged: Images


@dataclass(frozen=True)
class FittedDetector:
    """normal, judged: scores of the held-out normal images and of the judged ones, by name.

    model: weights and config; None for the baselines.
    """

    normal: Scores
    judged: Scores
    model: tuple[dict[str, npt.NDArray[Any]], dict[str, Any]] | None


def fit_detector(task: DetectorTask, data: DetectorData) -> FittedDetector:
    """Raises ValueError when a class has too few images, or a loss is not finite."""
    normal = np.array(data.images[data.labels == task.normal_class])
    held_out = np.array(data.held_out[data.held_out_labels == task.normal_class])
    for what, images in (("training", normal), ("validation", held_out)):
        if len(images) < MIN_HELD_OUT:
            raise ValueError(
                f"class {task.class_name} of anomaly.normal_classes has {len(images)} {what} images, needs at least "
                f"{MIN_HELD_OUT}: choose another class, or raise data.validation_fraction"
            )
    sets = (held_out, data.judged)
    if task.kind == BASELINES:
        baselines = fit_baselines(_flat(normal), seed=task.seed)
        found = [{name: score(_flat(images)) for name, score in baselines.items()} for images in sets]
        return FittedDetector(found[0], found[1], None)
    detector = FITS[task.kind](task, normal, held_out)
    state = {name: tensor.detach().numpy().copy() for name, tensor in detector.state_dict().items()}
    normal_scores, judged_scores = (score_images(detector, images) for images in sets)
    return FittedDetector(normal_scores, judged_scores, (state, detector.to_config()))


def score_images(detector: Detector, images: Images) -> Scores:
    """uint8 (N, C, H, W) -> (N,) by name."""
    batches = in_batches(as_tensor(images), torch.full((len(images),), UNLABELLED), SCORED_AT_ONCE)
    parts = zip(*(detector.scores(batch.images) for batch in batches), strict=True)
    return {name: torch.cat(part).double().numpy() for name, part in zip(detector.score_names, parts, strict=True)}


def fit_vae(task: DetectorTask, normal: Images, held_out: Images) -> Detector:
    steps = task.settings.vae_steps
    config = replace(task.vae, steps=steps, warmup_steps=min(task.vae.warmup_steps, steps // 2))
    model = _fit_generator(task, config, normal, held_out)
    assert isinstance(model, ConditionalVAE)
    return VaeDetector(model, task.settings.num_samples)


def fit_anogan(task: DetectorTask, normal: Images, held_out: Images) -> Detector:
    """The GAN, then the encoder on top of it."""
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    gan = _fit_generator(task, replace(task.gan, steps=task.settings.gan_steps), normal, held_out)
    assert isinstance(gan, ConditionalGAN)
    weights = make_generator(task.seed, "f_anogan", "weights")
    encoder = LatentEncoder(gan, kappa=task.settings.kappa, generator=weights)
    steps = task.settings.encoder_steps
    plan = FitPlan(
        steps=steps,
        steps_per_epoch=-(-steps // EPOCHS),
        lr=ENCODER_LR,
        schedule="linear_tail",
        seed=derive_seed(task.seed, "f_anogan", "fit"),
        accelerator=task.accelerator,
        precision=task.precision,
    )
    stream = BatchStream(
        as_tensor(normal),
        torch.full((len(normal),), UNLABELLED),
        batch_size=task.gan.batch_size,
        seed=derive_seed(task.seed, "f_anogan", "batches"),
    )
    fit(encoder, stream, plan, checkpoint=task.checkpoint("f_anogan"))
    return AnoganDetector(encoder)


ENCODER_LR = 1e-3


def fit_rbm(task: DetectorTask, normal: Images, held_out: Images) -> Detector:
    layer = DenseLayer(num_hidden=task.settings.rbm_hidden, steps=task.settings.rbm_steps, **RBM)
    return RbmDetector(_fit_layer(task, "rbm", layer, normal, held_out))


def fit_neighbours(task: DetectorTask, normal: Images, held_out: Images) -> Detector:
    layer = ConvLayer(steps=task.settings.conv_steps, **CONV_RBM)
    dbn = _fit_layer(task, "conv_rbm", layer, normal, held_out)
    detector = NeighbourDetector(dbn, task.settings.neighbours)
    batches = in_batches(as_tensor(normal), torch.full((len(normal),), UNLABELLED), SCORED_AT_ONCE)
    with torch.no_grad():
        detector.remember(torch.cat([pooled_features(dbn, batch.images) for batch in batches]))
    return detector


FITS: dict[str, Callable[[DetectorTask, Images, Images], Detector]] = {
    "vae": fit_vae,
    "f_anogan": fit_anogan,
    "rbm": fit_rbm,
    "conv_rbm": fit_neighbours,
}


def _fit_generator(task: DetectorTask, config: Vae | Gan, normal: Images, held_out: Images) -> Model:
    """A VAE or GAN of the normal images, which takes no label."""
    kind = "vae" if isinstance(config, Vae) else "gan"
    unlabelled = [np.full(len(images), UNLABELLED, np.int64) for images in (normal, held_out)]
    fitted = fit_generator(
        GeneratorTask(
            config=config,
            draw=0,
            seed=task.seed,
            precision=task.precision,
            accelerator=task.accelerator,
            checkpoint=task.checkpoint(kind),
            epochs=EPOCHS,
        ),
        GeneratorData(normal, unlabelled[0][None], held_out, unlabelled[1], num_classes=1),
    )
    return load_generator(kind, {name: torch.from_numpy(array) for name, array in fitted.state.items()}, fitted.config)


def _fit_layer(task: DetectorTask, name: str, layer: Layer, normal: Images, held_out: Images) -> DBN:
    channels, height, width = normal.shape[1:]
    layer_task = LayerTask(
        name=name,
        below=DBN([], (channels, height, width)),
        layer=layer,
        seed=derive_seed(task.seed, name),
        accelerator=task.accelerator,
        precision=task.precision,
        checkpoint=task.checkpoint(name),
        epochs=EPOCHS,
    )
    return fit_layer(layer_task, LayerData(normal, held_out), lambda *_: None)[0]


def _flat(images: Images) -> npt.NDArray[np.float32]:
    return np.asarray(images.reshape(len(images), -1).astype(np.float32) / 255)
