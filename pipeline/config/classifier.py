"""Sections `study`, `finetune`, `evaluate`, which train and judge classifiers, and what those share with `tune`."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction, require_positive

ARMS = ("scratch", "classical", "cdbn", "vae", "gan", "scratch_probabilistic")
GENERATORS = ("vae", "gan")
"""Arms named after the generator whose images they add; their network and values are those of scratch."""
PROBABILISTIC = ("cdbn", "scratch_probabilistic")
"""Arms whose network has the DBN's activations; all others have ReLU and max-pooling."""
TUNABLE = ("lr", "weight_decay", "dropout")


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
