"""One trial: a classifier trained on some labels in one arm's way, and judged on validation images.

A pure function of its spec and data. Whoever launches it, in whatever order, gets the same bits.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from pipeline.config.classifier import TUNABLE
from pipeline.data.transforms import affine_elastic
from pipeline.models.cnn import ConvNet
from pipeline.models.dbn import DBN
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.plan import FitPlan, PrivateSteps
from pipeline.training.poisson import PoissonStream
from pipeline.training.stream import BatchStream, MixedStream, Stream, as_batch, as_tensor, in_batches
from pipeline.tuning.arms import recipe

Json = Any
Array = npt.NDArray[Any]

VALIDATION_BATCH = 500
MEASURED_IMAGES = 512
"""Unlabelled training images on which a pretrained network measures its features before training."""


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """What identifies a trial. Seeds come from (root_seed, purpose, seed): arms and budgets share them, so that a
    difference between two arms of one seed is due to the arms."""

    purpose: str
    """What the trial is for: tune, study or finetune."""
    arm: str
    """One of ARMS."""
    budget: int | None
    """Labels it may see, one of data.label_budgets; None for all that there are."""
    seed: int
    """Number of the repetition: which draw of labels and synthetic images, and which starting weights and batches."""
    root_seed: int
    """run.seed."""
    steps: int
    """Parameter updates."""
    reports: int = 1
    """Validations, evenly spread over the steps; the last one is at the end."""
    batch_size: int
    """Images per update, real and synthetic together."""
    synthetic_share: float = 0.0
    """Share of a batch that is synthetic, in arms that have a generator."""
    lr: float
    """Peak learning rate; it falls to zero along a cosine."""
    weight_decay: float
    """Decoupled."""
    dropout: float
    """Rate before the head; half of it before the dense layers."""
    accelerator: str = "cpu"
    """cpu or gpu."""
    precision: str = "32"
    """32 or bf16."""
    private: PrivateSteps | None = None
    """Of DP-SGD; None without."""

    def __str__(self) -> str:
        return f"{self.arm}-{'all' if self.budget is None else self.budget}-{self.seed}"

    @property
    def steps_per_report(self) -> int:
        return -(-self.steps // self.reports)

    @property
    def num_reports(self) -> int:
        """`reports`, or less where the steps don't divide that way: 9 steps in 6 reports are 5 of 2 or 1 steps."""
        return -(-self.steps // self.steps_per_report)

    def derive_seed(self, what: str) -> int:
        return derive_seed(self.root_seed, self.purpose, self.seed, what)


@dataclass(frozen=True, kw_only=True)
class TrialData:
    """Everything that trials read, as arrays: Ray maps them into its workers without a copy.

    images: uint8 (N, C, H, W).  labels: int64 (N,), -1 where unknown.
    """

    images: Array
    labels: Array
    validation_images: Array
    validation_labels: Array
    num_classes: int
    dbn_config: Json
    dbn_state: Mapping[str, Array]
    subsets: Mapping[tuple[int, int], Array] = field(default_factory=dict)
    """Positions of the labels that may be seen, by (seed, budget)."""
    synthetic: Mapping[tuple[str, int], tuple[Array, Array]] = field(default_factory=dict)
    """Images and labels by (generator, seed)."""


@dataclass(frozen=True)
class TrialResult:
    """metrics: validation_accuracy (a share) and validation_nll (nats).  history: the same for each report, with step
    and train_nll (nats, under dropout; not of a private fit).  state, config: the trained ConvNet."""

    metrics: dict[str, float]
    history: list[dict[str, float]]
    state: dict[str, Array]
    config: Json


def pick_values(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The tuned values of a TrialSpec, from an entry of best.json or of params.yaml."""
    return {name: float(entry[name]) for name in TUNABLE}


Report = Callable[[int, dict[str, float]], None]
"""Called with the updates done and the metrics at each validation; what it raises ends the trial."""


def run_trial(
    spec: TrialSpec, data: TrialData, *, report: Report | None = None, checkpoint: Path | None = None
) -> TrialResult:
    """Trains and judges one classifier. With a checkpoint file, a killed trial goes on where it was.

    Raises ValueError when the loss stops being finite, or when the data lack what the spec asks for.
    """
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    model = build_network(spec, data)
    plan = FitPlan(
        steps=spec.steps,
        steps_per_epoch=spec.steps_per_report,
        lr=spec.lr,
        weight_decay=spec.weight_decay,
        schedule="cosine",
        seed=spec.derive_seed("fit"),
        accelerator=spec.accelerator,
        precision=spec.precision,
        private=spec.private,
    )
    validation = in_batches(as_tensor(data.validation_images), as_tensor(data.validation_labels), VALIDATION_BATCH)

    def on_epoch(step: int, entry: dict[str, float]) -> None:
        if report is not None:
            report(step, _metrics(entry))

    stream = build_stream(spec, data)
    history = fit(model, stream, plan, validation=validation, checkpoint=checkpoint, on_epoch=on_epoch)
    state = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    curve = [{"step": e["step"], **_training(e), **_metrics(e)} for e in history]
    return TrialResult(_metrics(history[-1]), curve, state, model.to_config())


def build_network(spec: TrialSpec, data: TrialData) -> ConvNet:
    """The arm's network before its first update."""
    arm, dbn = recipe(spec.arm), DBN.from_config(data.dbn_config)
    image_shape = cast(tuple[int, int, int], dbn.shapes[0])
    model = ConvNet(dbn.configs, image_shape, data.num_classes, activation=arm.activation, dropout=spec.dropout)
    generator = make_generator(spec.derive_seed("weights"))
    if not arm.pretrained:
        model.init_random(generator)
        if arm.activation == "relu":
            # 1.5 times as fast on CPU with max-pooling; the blocks of probabilistic pooling would be copied around.
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model
    dbn.load_state_dict({name: as_tensor(array) for name, array in data.dbn_state.items()})
    order = torch.randperm(len(data.images), generator=make_generator(spec.root_seed, "measured images"))
    images = as_tensor(data.images[order[:MEASURED_IMAGES].numpy()])
    model.init_from_dbn(dbn.eval(), as_batch(images, torch.zeros(len(images))).images, generator)
    return model


def build_stream(spec: TrialSpec, data: TrialData) -> Stream:
    """The arm's batches: its labelled images, augmented or mixed with synthetic ones where the arm says so."""
    arm, seed = recipe(spec.arm), spec.derive_seed("batches")
    indices = labelled_indices(spec, data)
    images, labels = as_tensor(data.images[indices]), as_tensor(data.labels[indices])
    transform = affine_elastic if arm.augmented else None
    if spec.private is not None:
        if arm.pretrained or arm.generator:
            raise ValueError(
                f"{spec.arm} can't be trained privately: it starts from, or adds images of, another model; empty "
                "dp.models, or keep only scratch, classical and scratch_probabilistic in study.arms"
            )
        secret = spec.private.secret
        return PoissonStream(images, labels, batch_size=spec.batch_size, seed=secret, transform=transform)
    num_synthetic = round(spec.batch_size * spec.synthetic_share) if arm.generator else 0
    if num_synthetic == spec.batch_size:
        raise ValueError(
            f"study.synthetic_share {spec.synthetic_share} of batch_size {spec.batch_size} leaves no real image: "
            "lower it in params.yaml"
        )
    real = BatchStream(images, labels, batch_size=spec.batch_size - num_synthetic, seed=seed, transform=transform)
    if num_synthetic == 0:
        return real
    key = (str(arm.generator), spec.seed)
    if key not in data.synthetic:
        raise ValueError(
            f"no synthetic images of {key[0]} for label draw {spec.seed}: run `dvc repro augment@{key[0]}`"
        )
    fake_images, fake_labels = (as_tensor(array) for array in data.synthetic[key])
    fake = BatchStream(fake_images, fake_labels, batch_size=num_synthetic, seed=derive_seed(seed, "synthetic"))
    return MixedStream(real, fake)


def labelled_indices(spec: TrialSpec, data: TrialData) -> Array:
    """Positions in the training images of the labels that the trial may see."""
    if spec.budget is None:
        return np.flatnonzero(data.labels >= 0)
    return data.subsets[spec.seed, spec.budget]


def _training(entry: Mapping[str, float]) -> dict[str, float]:
    """Nothing of a private fit, which keeps its losses to itself."""
    return {"train_nll": entry["train/cross_entropy"]} if "train/cross_entropy" in entry else {}


def _metrics(entry: Mapping[str, float]) -> dict[str, float]:
    return {"validation_accuracy": entry["val/accuracy"], "validation_nll": entry["val/cross_entropy"]}
