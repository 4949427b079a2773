"""Closed forms of the gradients of an RBM's free energy: Hinton 2002; Cho, Ilin, Raiko 2011 (log variances).

tests/test_units.py holds them against autograd, tests/test_estimators.py the centred ones against their definition.
"""

# B batch, V visible units, H hidden units

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.models.contrastive import Phase
from pipeline.models.units import VisibleUnits


class Parameters(NamedTuple):
    """An RBM's parameters, or one value for each of them."""

    weight: Tensor
    hidden_bias: Tensor
    visible_bias: Tensor
    log_variance: Tensor
    """(V,), empty where no variances are learned."""


def contrast_gradients(
    data: Phase, model: Phase, units: VisibleUnits, at: Parameters, *, product: torch.dtype | None = None
) -> Parameters:
    """d/d(parameters) of mean F(v_data) - mean F(v_model), at the parameters `at`; the phases may differ in size.

    product: the type in which the weights' statistics are multiplied, for states in [0, 1]. Both phases are one sum, in
    32 bits on the way: bfloat16 rounds what goes in and the small difference that comes out, not two large sums.
    """
    t_data, t_model = (units.statistic(phase.visible, at.log_variance) for phase in (data, model))
    # One product over both phases: half the writing of a (V, H) matrix, which costs what a tenth of the product does.
    t_BV = torch.cat([t_data, t_model])
    share_B = torch.cat([t_BV.new_full((len(t),), sign / len(t)) for t, sign in ((t_data, -1), (t_model, 1))])
    h_BH = t_BV.new_empty(len(t_BV), data.hidden.shape[1])
    torch.mul(data.hidden, -1 / len(t_data), out=h_BH[: len(t_data)])
    torch.mul(model.hidden, 1 / len(t_model), out=h_BH[len(t_data) :])
    weight = torch.mm(t_BV.to(product or t_BV.dtype).t(), h_BH.to(product or h_BH.dtype)).to(h_BH.dtype)
    hidden_bias = units.scale(t_BV, h_BH).sum(0)  # where it counts, t(v) is v
    visible_bias = share_B @ t_BV  # a Gaussian b itself cancels
    log_variance = at.log_variance
    if units.learns_variance:
        # dF/dz = t (W E[h | v]) - (v - b)^2 / (2 sigma^2), of which the first term is in the weights' gradient.
        spread = (data.visible - at.visible_bias).square().mean(0) - (model.visible - at.visible_bias).square().mean(0)
        log_variance = -(at.weight * weight).sum(1) - 0.5 * spread * torch.exp(-at.log_variance)
    return Parameters(weight, hidden_bias, visible_bias, log_variance)


def autograd_gradients(loss: Callable[[], Tensor], at: Parameters) -> Parameters:
    """d loss() / d(parameters) by autograd, also inside a backward pass."""
    learned = [parameter for parameter in at if parameter.requires_grad]
    with torch.enable_grad():
        found = iter(torch.autograd.grad(loss(), learned))
    return Parameters(*(next(found) if parameter.requires_grad else parameter for parameter in at))


def centre(gradients: Parameters, visible_offset: Tensor, hidden_offset: Tensor) -> Parameters:
    """The centred gradient: Melchior, Fischer, Wiskott 2016, eqs. 14-16; Montavon & Mueller 2012.

    It is the gradient in the parameters of an E with t(v) - mu and h - lambda in place of t(v) and h, carried back to
    the biases of the plain E. Empty offsets change nothing.
    """
    if not len(visible_offset):
        return gradients
    mu, lam = visible_offset, hidden_offset
    weight = gradients.weight - torch.outer(mu, gradients.hidden_bias) - torch.outer(gradients.visible_bias, lam)
    hidden_bias = gradients.hidden_bias - mu @ weight
    return Parameters(weight, hidden_bias, gradients.visible_bias - weight @ lam, gradients.log_variance)
