"""Estimates of the gradient of a convolutional RBM's log-likelihood: CD-k (Hinton 2002), PCD-k (Tieleman 2008).

With the model's samples held fixed, the update is minus the gradient of F(v_data) - F(v_model). Its closed form is
summed up on the way, while what it needs of some images still lies in the cache. tests/test_conv_rbm.py.
"""

# B batch, F filters, R x Q blocks

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.models.losses import Losses
from pipeline.models.pooling import normalise_blocks
from pipeline.models.precision import widen
from pipeline.models.sampling import choose_units
from pipeline.row_noise import own_rows

if TYPE_CHECKING:
    from pipeline.models.conv_rbm import ConvRBM


@dataclass(frozen=True)
class Phase:
    """Means over visible states (B, M, height, width): free energy, in nats, and the statistics of an update.

    statistics: -dF/d(weight, hidden_bias, visible_bias).  reconstruction: E[v | h] for a draw of h given each state.
    """

    free_energy: Tensor
    statistics: tuple[Tensor, Tensor, Tensor]
    reconstruction: Tensor | None


@dataclass(frozen=True)
class Estimate:
    """losses: per detection place, without a graph.  gradients: of their total by (weight, hidden_bias, visible_bias).

    activity: (F,), the mean activation of a filter's units on the data.  end: where the chains have moved to.
    """

    losses: Losses
    gradients: list[Tensor]
    activity: Tensor
    end: Tensor


@torch.no_grad()
def estimate(crbm: ConvRBM, x: Tensor, generator: torch.Generator) -> Estimate:
    """The contrast of the inputs x (B, M, height, width), in their own units, with the model; it changes nothing.

    A Gaussian visible bias is in the statistics of data and model alike up to a sign that cancels.
    """
    v, units = crbm.standardise(x), crbm.num_detection_units
    data = compute_phase(crbm, v, crbm.draw_blocks(v, generator))
    assert data.reconstruction is not None
    if len(crbm.chains):
        end = crbm.gibbs(crbm.chains[own_rows(len(crbm.chains), generator)], crbm.gibbs_steps, generator)
    else:
        start = crbm.draw_visible(data.reconstruction, generator)
        end = crbm.gibbs(start, crbm.gibbs_steps - 1, generator)
    model = compute_phase(crbm, end)
    activity = data.statistics[1] / units
    parts = {
        "free_energy_data": data.free_energy,
        "free_energy_model": model.free_energy,
        "reconstruction_error": (v - data.reconstruction).square().mean(),
        "activity": activity.mean(),
    }
    total = (data.free_energy - model.free_energy) / units
    pairs = zip(data.statistics, model.statistics, strict=True)
    gradients = [(negative - positive).div_(units) for positive, negative in pairs]
    return Estimate(Losses(total, parts), gradients, activity, end)


@torch.no_grad()
def compute_phase(crbm: ConvRBM, v: Tensor, uniform: Tensor | None = None) -> Phase:
    """v: (B, M, height, width) in model units.  uniform: (B, F, R, Q), to draw the h of a reconstruction with."""
    filters = crbm.filters()
    free_energy, projected = [], []
    weight, hidden = torch.zeros((), device=v.device), torch.zeros((), device=v.device)
    for part in crbm.parts(v):
        seen = filters.see(v[part])
        inputs = widen(filters.correlate(seen, crbm.hidden_bias))
        units, _, log_normaliser = normalise_blocks(inputs, out=inputs)
        free_energy.append(crbm.visible_energy(v[part]) - log_normaliser.sum((1, 2, 3, 4)))
        # The gradient is a small difference of two large sums: half precision would leave little of it.
        with torch.autocast(v.device.type, enabled=False):
            weight = weight + filters.moments(seen, units)
        hidden = hidden + units.sum((0, 1, 3, 4))
        if uniform is not None:
            projected.append(filters.project(choose_units(units, uniform[part])))
    sums = filters.gather(weight), hidden, v.sum((0, 2, 3))
    statistics = (sums[0] / len(v), sums[1] / len(v), sums[2] / len(v))
    reconstruction = crbm.mean_from(filters.assemble(torch.cat(projected))) if projected else None
    return Phase(torch.cat(free_energy).mean(), statistics, reconstruction)
