"""The arms of the study: what each does differently from the scratch network, and nothing else."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from pipeline.config.classifier import ARMS, GENERATORS, PROBABILISTIC

Activation = Literal["relu", "probabilistic"]


@dataclass(frozen=True)
class Recipe:
    """How an arm trains its classifier."""

    pretrained: bool
    """Starts from the DBN's filters and biases; otherwise from random ones."""
    activation: Activation
    """Kind of network: arms of one kind differ in nothing but start and images."""
    augmented: bool
    """Training images go through random affine maps and elastic distortion."""
    generator: str | None
    """Whose synthetic images fill a share of each batch; None for real images alone."""


def recipe(arm: str) -> Recipe:
    assert arm in ARMS, arm
    return Recipe(
        pretrained=arm == "cdbn",
        activation="probabilistic" if arm in PROBABILISTIC else "relu",
        augmented=arm == "classical",
        generator=arm if arm in GENERATORS else None,
    )


def tuned_as(arm: str, tuned: Collection[str]) -> str:
    """The arm of `tuned` whose sweep serves `arm`: its own, or else the first for the same kind of network.

    Raises ValueError when there is none.
    """
    if arm in tuned:
        return arm
    kind = recipe(arm).activation
    for other in tuned:
        if recipe(other).activation == kind:
            return other
    relatives = [other for other in ARMS if recipe(other).activation == kind and other not in GENERATORS]
    raise ValueError(
        f"study.arms has {arm}, but no arm of tune.arms {list(tuned)} has its kind of network ({kind}): add one of "
        f"{', '.join(relatives)} to tune.arms in params.yaml"
    )
