"""What a report says, free of how it looks: one tree of frozen dataclasses that any writer can render."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.applications.story import Table


@dataclass(frozen=True)
class Picture:
    """A png or svg made by an earlier stage.  alt: what it shows, for readers who cannot see it."""

    path: Path
    alt: str


@dataclass(frozen=True)
class Difference:
    """One arm against a baseline at one label budget, in accuracy.  low, high, p: None where one seed ran."""

    arm: str
    baseline: str
    name: str
    budget: int
    value: float
    low: float | None
    high: float | None
    adjusted_p: float | None
    verdict: str
    sentence: str


@dataclass(frozen=True)
class ArmVerdict:
    """An arm over all budgets.  differences: by budget, rising."""

    arm: str
    name: str
    summary: str
    differences: list[Difference]


@dataclass(frozen=True)
class Verdict:
    """arms: against scratch.  alone: pretraining against its own network unpretrained, None where not studied."""

    headline: str
    arms: list[ArmVerdict]
    alone: ArmVerdict | None
    confidence: float
    negligible: float
    comparisons: int
    seeds: int
    test_images: int


@dataclass(frozen=True)
class Accuracy:
    """Mean test accuracy at one budget with its interval."""

    budget: int
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class ArmScores:
    """One arm: what is special about it, its accuracy by budget, and its other scores (name -> value) by budget."""

    arm: str
    name: str
    network: str
    start: str
    images: str
    accuracies: list[Accuracy]
    scores: dict[int, dict[str, float]]


@dataclass(frozen=True)
class QualityScore:
    """One score.  better: higher or lower, empty where unknown.  values: text to show, by what was scored."""

    name: str
    better: str
    values: dict[str, str]


@dataclass(frozen=True)
class AuditRow:
    """A number of a privacy audit as text.  rates: per cent of members found at 1 and 10 % of false alarms, empty where
    the number is not an attack's."""

    name: str
    value: str
    interval: str
    limit: str
    outcome: str
    rates: list[str]


@dataclass(frozen=True)
class AuditFacts:
    """The privacy audit of a synthetic set.  weakest_control: the lowest AUC that an attack reached on copies.
    guarantee: of differentially private training, empty without it."""

    verdict: str
    sentence: str
    draw: int
    draws: int
    rows: list[AuditRow]
    weakest_control: float
    guarantee: str


@dataclass(frozen=True)
class GeneratorFacts:
    """A generator's synthetic set: samples, quality beside class-wise PCA and real images, privacy audit."""

    kind: str
    name: str
    sentence: str
    samples: Picture | None
    scores: list[QualityScore]
    audit: AuditFacts | None


@dataclass(frozen=True)
class Likelihood:
    """Mean log p(v) of validation inputs after `step` updates, in nats, with the 95 % interval of log Z."""

    step: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class LayerFacts:
    """One layer of the Deep Belief Network.

    curves: by column, step first: free energies and pseudo-likelihood in nats, reconstruction error.
    chain_rounds: of Gibbs sampling, after which the frames of the chains were taken.
    refused: why the layer ends without a log-likelihood, empty where it has one.
    """

    name: str
    description: str
    filters: Picture | None
    reconstructions: Picture | None
    chains: Picture | None
    chain_rounds: list[int]
    curves: dict[str, list[float]]
    likelihoods: list[Likelihood]
    refused: str


@dataclass(frozen=True)
class SweepTrial:
    arm: str
    lr: float
    validation_nll: float
    completed: bool


@dataclass(frozen=True)
class Sweep:
    """best: chosen values by arm.  counts: trials by status.  pictures: figures that the sweep's stage drew."""

    best: dict[str, dict[str, float]]
    trials: list[SweepTrial]
    counts: dict[str, int]
    pictures: list[Picture]


@dataclass(frozen=True)
class Bin:
    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True)
class FinalModel:
    """The recipe that won on validation data, trained on all labels.  confusion: rows true, columns predicted."""

    arm: str
    name: str
    reason: str
    sentence: str
    scores: dict[str, dict[str, float]]
    recipe: dict[str, float]
    classes: list[str]
    confusion: list[list[int]]
    recall: list[float | None]
    reliability: dict[str, list[Bin]]


@dataclass(frozen=True)
class ShownPicture:
    picture: Picture
    caption: str


@dataclass(frozen=True)
class Application:
    """One of the uses of the models, as it told it itself."""

    title: str
    sentence: str
    tables: Sequence[Table]
    pictures: list[ShownPicture]


@dataclass(frozen=True)
class DataFacts:
    """counts: images by class name, by split."""

    source: str
    sha256: str
    image_shape: tuple[int, int, int]
    classes: list[str]
    counts: dict[str, dict[str, int]]
    label_budgets: list[int]
    label_draws: int
    samples: Picture | None


@dataclass(frozen=True)
class Reproduction:
    """commit: None outside git.  hashes: sha256 by path of everything that the report was made from."""

    commit: str | None
    command: str
    params: str
    hashes: dict[str, str]
    environment: dict[str, str]


@dataclass(frozen=True)
class Content:
    """left_out: why something that a report may show is not in this one, a sentence each."""

    verdict: Verdict
    arms: list[ArmScores]
    generators: list[GeneratorFacts]
    layers: list[LayerFacts]
    sweep: Sweep | None
    final: FinalModel
    applications: list[Application]
    data: DataFacts
    reproduction: Reproduction
    left_out: list[str]
