"""Pseudo-likelihood of restricted Boltzmann machines (Besag 1975): a score that needs no partition function.

The log probability of one visible unit given all others, times the number of units. Unlike the reconstruction error it
grades the model and not the chain that trained it, and unlike the free energy it compares across models. It is local:
a model with the right neighbourhoods and the wrong proportions of modes still scores well.
"""

# B batch, V visible units, T places of the quadrature

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.models.sampling import sample_bernoulli

NUM_UNITS = {"bernoulli": 10, "gaussian": 2, "gaussian_variance": 2}
"""Units that are looked at per image; a Gaussian one costs NUM_PLACES free energies."""
MAX_EXACT = {"bernoulli": 64, "gaussian": 8, "gaussian_variance": 8}
"""Up to so many visible units all of them are looked at."""
NUM_PLACES = 33
REACH = 8.0
"""Standard deviations of p(v | h) to either side of a Gaussian unit's value: there its density is normalised."""


class FreeEnergyModel(Protocol):
    visible: str

    def standardise(self, x: Tensor) -> Tensor: ...

    def free_energy(self, v: Tensor) -> Tensor: ...

    def visible_std(self) -> Tensor: ...


@torch.no_grad()
def negative_pseudo_likelihood(model: FreeEnergyModel, x: Tensor, generator: torch.Generator) -> Tensor:
    """-V log p(v_i | v_without_i), averaged over a few random i: (B,), in nats (densities for Gaussian units).

    x: (B, ...) inputs in their own units; for Bernoulli units they are probabilities, of which a sample is scored.
    Models of at most MAX_EXACT visible units are looked at in all of them: the value is then exact.
    """
    v = model.standardise(x)
    if model.visible == "bernoulli":
        v = sample_bernoulli(v.clamp(0, 1), generator)
    num_visible = v[0].numel()
    if num_visible <= MAX_EXACT[model.visible]:
        units = torch.arange(num_visible, device=v.device)[:, None].expand(-1, len(v))
    else:
        units = torch.randint(num_visible, (NUM_UNITS[model.visible], len(v)), generator=generator, device=v.device)
    losses = [unit_losses(model, v, index) for index in units]
    return num_visible * torch.stack(losses).mean(0)


def unit_losses(model: FreeEnergyModel, v: Tensor, index: Tensor) -> Tensor:
    """-log p(v_i | v_without_i) with i = index[b] for image b: (B,), in nats.  v: (B, ...) in model units."""
    if model.visible == "bernoulli":
        value = v.flatten(1).gather(1, index[:, None])
        flipped = _with_unit(v, index, 1 - value[:, 0])
        return F.softplus(model.free_energy(v) - model.free_energy(flipped))
    value = v.flatten(1).gather(1, index[:, None])[:, 0]
    offsets = torch.linspace(-REACH, REACH, NUM_PLACES, device=v.device)
    std = model.visible_std().detach().expand(v[0].numel())[index]
    energies_TB = torch.stack([model.free_energy(_with_unit(v, index, value + offset * std)) for offset in offsets])
    step = torch.log(std * (2 * REACH / (NUM_PLACES - 1)))
    return energies_TB[NUM_PLACES // 2] + torch.logsumexp(-energies_TB, 0) + step


def _with_unit(v: Tensor, index: Tensor, value: Tensor) -> Tensor:
    """A copy in which unit index[b] of image b is value[b]."""
    changed = v.flatten(1).clone()
    changed.scatter_(1, index[:, None], value[:, None])
    return changed.view_as(v)
