"""The settings of a fit that goes on from a checkpoint: those of its plan, not those that the checkpoint brings."""

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer


def adopt_settings(running: Sequence[Optimizer], schedulers: Sequence[Any], planned: Sequence[Optimizer]) -> None:
    """Gives `running` the learning rate, decay, momentum and betas of `planned`; moments and weights stay.

    An optimiser's state holds its settings too, and a LambdaLR's its base rates, so a trial that goes on from another
    trial's checkpoint would train with the other's values. Where they are equal, nothing changes by a bit.
    schedulers: the LambdaLRs of `running`; planned: optimisers of the same groups before their first step.
    """
    for optimizer, fresh in zip(running, planned, strict=True):
        for group, wanted in zip(optimizer.param_groups, fresh.param_groups, strict=True):
            group.update({name: value for name, value in wanted.items() if name != "params"})
    for scheduler in schedulers:
        groups = scheduler.optimizer.param_groups
        scheduler.base_lrs = [group["initial_lr"] for group in groups]
        for group, base, factor in zip(groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True):
            group["lr"] = base * factor(scheduler.last_epoch)
        scheduler._last_lr = [group["lr"] for group in groups]
