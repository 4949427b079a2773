"""Sections `tune`, `study`, `finetune`, `evaluate`: everything that trains or judges a classifier."""

from dataclasses import dataclass
from typing import Any

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction, require_positive
from pipeline.config.space import Distribution, check_start, parse_space

ARMS = ("scratch", "classical", "cdbn", "vae", "gan", "scratch_probabilistic")
GENERATORS = ("vae", "gan")
"""Arms named after the generator whose images they add; their network and values are those of scratch."""
PROBABILISTIC = ("cdbn", "scratch_probabilistic")
"""Arms whose network has the DBN's activations; all others have ReLU and max-pooling."""
TUNABLE = ("lr", "weight_decay", "dropout")


@dataclass(frozen=True, kw_only=True)
class Tune:
    arms: list[str]
    """Arms that get a sweep of their own, with equal budgets; every other arm uses that of its kind of network."""
    budget: int
    """Labels a trial trains on, one of data.label_budgets."""
    num_trials: int
    """Trials per arm, >= 1."""
    steps: int
    """Updates of a trial that is not stopped early, >= 1."""
    reports: int
    """How often a trial reports to ASHA, >= 1."""
    reduction_factor: int
    """ASHA keeps the best 1/reduction_factor at each rung, >= 2."""
    max_concurrent: int
    """Trials side by side, >= 1. With 1 the sweep is the same bit for bit; with more it depends on timing."""
    batch_size: int
    """>= 1."""
    start: dict[str, float]
    """The first trial of every sweep: lr, weight_decay and dropout."""
    space: dict[str, dict[str, Any]]
    """Per tuned value: {type: loguniform | uniform | choice, low, high | values}."""

    def __post_init__(self) -> None:
        require_at_least("number of tune.arms", len(self.arms), 1)
        for arm in self.arms:
            require_choice("tune.arms", arm, ARMS)
            require(arm not in GENERATORS, "tune.arms", arm, "an arm without generator (vae and gan use scratch's)")
        for key in ("budget", "num_trials", "steps", "reports", "max_concurrent", "batch_size"):
            require_at_least(f"tune.{key}", getattr(self, key), 1)
        require_at_least("tune.reduction_factor", self.reduction_factor, 2)
        require(self.reports <= self.steps, "tune.reports", self.reports, "<= tune.steps")
        require(sorted(self.start) == sorted(TUNABLE), "keys of tune.start", sorted(self.start), f"exactly {TUNABLE}")
        require_at_least("number of keys of tune.space", len(self.space), 1)
        for name in self.space:
            require_choice("a key of tune.space", name, TUNABLE)
        check_start(self.start, self.distributions)

    @property
    def distributions(self) -> dict[str, Distribution]:
        """`space`, typed."""
        return parse_space(self.space)


@dataclass(frozen=True, kw_only=True)
class Study:
    arms: list[str]
    """Arms to compare, `scratch` among them: it is what the others are paired with."""
    steps: int
    """Updates of every arm, at every budget, >= 1."""
    batch_size: int
    """>= 1."""
    synthetic_share: float
    """Share of a batch that is synthetic in the vae and gan arms, in [0, 1)."""

    def __post_init__(self) -> None:
        for arm in self.arms:
            require_choice("study.arms", arm, ARMS)
        paired = "scratch" in self.arms and len(set(self.arms)) > 1
        require(paired, "study.arms", self.arms, "a list of scratch and at least one arm to compare it with")
        require_at_least("study.steps", self.steps, 1)
        require_at_least("study.batch_size", self.batch_size, 1)
        require_fraction("study.synthetic_share", self.synthetic_share)

    def require_sweeps(self, tuned: list[str]) -> None:
        """Raises ValueError when no arm of `tuned` has the kind of network that an arm of the study has."""
        for kind in (PROBABILISTIC, tuple(arm for arm in ARMS if arm not in PROBABILISTIC)):
            used = [arm for arm in self.arms if arm in kind]
            swept = not used or any(arm in kind for arm in tuned)
            names = ", ".join(arm for arm in kind if arm not in GENERATORS)
            require(swept, "tune.arms", tuned, f"a list with one of {names}, because study.arms has {', '.join(used)}")


@dataclass(frozen=True, kw_only=True)
class Finetune:
    epochs: int
    """Passes over all labelled training images, >= 1."""
    batch_size: int
    """>= 1."""
    lr: float | None
    """Learning rate, > 0; null takes the sweep's."""
    weight_decay: float | None
    """>= 0; null takes the sweep's."""
    dropout: float | None
    """In [0, 1); null takes the sweep's."""

    def __post_init__(self) -> None:
        require_at_least("finetune.epochs", self.epochs, 1)
        require_at_least("finetune.batch_size", self.batch_size, 1)
        if self.lr is not None:
            require_positive("finetune.lr", self.lr)
        if self.weight_decay is not None:
            require_at_least("finetune.weight_decay", self.weight_decay, 0)
        if self.dropout is not None:
            require_fraction("finetune.dropout", self.dropout)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    confidence: float
    """Level of every interval, in (0, 1); 0.95."""
    resamples: int
    """Bootstrap resamples, >= 1000."""
    negligible: float
    """A difference in accuracy within +- this is called no measurable effect even when its interval misses zero."""

    def __post_init__(self) -> None:
        require(0 < self.confidence < 1, "evaluate.confidence", self.confidence, "in (0, 1)")
        require_at_least("evaluate.resamples", self.resamples, 1000)
        require_fraction("evaluate.negligible", self.negligible)
