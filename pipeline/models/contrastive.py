"""Contrastive divergence as a differentiable loss: Hinton 2002, Tieleman 2008 (persistent chains).

With the model's samples held fixed, the CD update is minus the gradient of F(v_data) - F(v_model). That gradient has a
closed form, so no graph is kept over the Gibbs chain: `.backward()`, optimisers and DDP see an ordinary scalar loss.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Phase:
    """Visible states (B, ...), their E[h | v] (B, ...) and free energies (B,) in nats."""

    visible: Tensor
    hidden: Tensor
    free_energy: Tensor


class _ClosedForm(torch.autograd.Function):
    """The identity on `value`, whose gradient with respect to `parameters` is what `gradients` returns."""

    @staticmethod
    def forward(  # autograd links the output to `parameters`, whatever their values
        ctx: Any, value: Tensor, gradients: Callable[[], Sequence[Tensor]], *_parameters: Tensor
    ) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        # The gradient is a small difference of two large sums: half precision would leave little of it.
        with torch.autocast(outputs[0].device.type, enabled=False):
            gradients = ctx.gradients()
        if outputs[0].device.type == "cpu" and outputs[0] == 1:  # asking would make a GPU wait
            return (None, None, *gradients)
        return (None, None, *(gradient.mul_(outputs[0]) for gradient in gradients))


def contrastive_divergence(
    data: Phase, model: Phase, gradients: Callable[[Phase, Phase], Sequence[Tensor]], parameters: Sequence[Tensor]
) -> Tensor:
    """mean F(v_data) - mean F(v_model), a scalar in nats whose gradient is minus the CD (or PCD) update.

    gradients(data, model): its closed form, one tensor for each of `parameters`. It is called by `.backward()`, and the
    phases may differ in batch size.
    """
    value = data.free_energy.mean() - model.free_energy.mean()
    return with_gradients(value, lambda: gradients(data, model), parameters)


def with_gradients(value: Tensor, gradients: Callable[[], Sequence[Tensor]], parameters: Sequence[Tensor]) -> Tensor:
    """`value`, whose gradient with respect to `parameters` is what `gradients` returns when `.backward()` calls it."""
    loss: Tensor = _ClosedForm.apply(value.detach(), gradients, *parameters)
    return loss


def sparsity_penalty(hidden_bias: Tensor, activity: Tensor, target: float, cost: float) -> Tensor:
    """A term whose gradient on the hidden biases is cost * (activity - target): Lee, Ekanadham, Ng 2008.

    hidden_bias, activity: (H,), the mean activation of each hidden unit on the data. Only the gradient has a meaning:
    the rule moves the biases alone, so it is not the derivative of a penalty on the activity.
    """
    slope = cost * (activity - target).detach()
    return torch.sum(slope * (hidden_bias - hidden_bias.detach()))
