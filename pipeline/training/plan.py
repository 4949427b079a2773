"""How long and with which optimiser a model is trained."""

import math
from dataclasses import dataclass, replace
from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from pipeline.seeding import derive_seed

Epoch = dict[str, float]
"""One entry of a fit's history: step, and the epoch's means by name."""
Schedule = Literal["constant", "cosine", "linear_tail"]


@dataclass(frozen=True, kw_only=True)
class PrivateSteps:
    """Differential privacy of a fit (DP-SGD, Abadi et al. 2016)."""

    noise_multiplier: float
    """Deviation of the noise over max_grad_norm, >= 0."""
    max_grad_norm: float
    """Norm to which each example's gradient is scaled down, > 0."""
    secret: int
    """Root of the draws of examples and noise. Who knows it can take the noise off again, and no two fits may share
    it: the same noise twice cancels out."""

    def with_secret_of(self, *identity: str | int) -> "PrivateSteps":
        """The same with a secret of its own."""
        return replace(self, secret=derive_seed(self.secret, *identity))


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """One fit. Equal plans, models and streams give equal bits on one machine."""

    steps: int
    """Parameter updates, >= 1."""
    steps_per_epoch: int
    """Updates between validations and checkpoints, >= 1; the last epoch may be shorter."""
    lr: float
    """Peak learning rate, > 0."""
    seed: int
    """Root of every draw of the fit; each step's draws depend on (seed, step) alone."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """adam is AdamW: decoupled weight decay."""
    weight_decay: float = 0.0
    """On parameters with two or more dimensions; biases and gains have none."""
    momentum: float = 0.0
    """Of sgd."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of adam."""
    schedule: Schedule = "constant"
    """cosine falls to zero; linear_tail is constant for the first half and falls linearly to zero in the second."""
    accelerator: str = "cpu"
    """cpu or gpu."""
    precision: str = "32"
    """32 or bf16."""
    private: PrivateSteps | None = None
    """None trains without differential privacy."""

    def __post_init__(self) -> None:
        for key in ("steps", "steps_per_epoch"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} of a fit must be >= 1, got {getattr(self, key)}")

    @property
    def epochs(self) -> int:
        return math.ceil(self.steps / self.steps_per_epoch)


def schedule_factor(schedule: Schedule, step: int, steps: int) -> float:
    """Share of the peak learning rate at update `step` of `steps`, in [0, 1]."""
    done = min(step / steps, 1.0)
    if schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if schedule == "linear_tail":
        return min(1.0, 2.0 * (1.0 - done))
    return 1.0


def make_optimizer(model: nn.Module, plan: FitPlan) -> Optimizer:
    """Weight decay reaches weights only: decaying a bias or an RBM's visible bias moves what the data fix."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": plan.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if plan.optimizer == "sgd":
        return SGD(groups, lr=plan.lr, momentum=plan.momentum, fused=True)
    return AdamW(groups, lr=plan.lr, betas=plan.betas, fused=True)
