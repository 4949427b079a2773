"""Parallel tempering of persistent chains: Desjardins et al. 2010; Cho, Raiko, Ilin 2010.

Chains run at inverse temperatures beta from 1, the model itself, to 0, where the units are independent and have the
means of the data: E_beta(v, h) = (1 - beta) e_0(v) + beta E(v, h), e_0 being the visible energy that training began
with (the base rates of Cho et al.). Swaps of neighbours carry what the hot chains find down to beta = 1. Even and odd
pairs take turns from update to update, which mixes faster than a choice by lot (Syed et al. 2022).
"""

# C chains, T temperatures, V visible units, H hidden units, P pairs

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.precision import widen
from pipeline.models.rbm_gradients import Parameters
from pipeline.models.sampling import sample_bernoulli, sample_uniform
from pipeline.models.units import VisibleUnits


@dataclass(frozen=True)
class Ladder:
    """A model at every inverse temperature. base_bias: (V,), the visible biases at beta = 0, with unit variances."""

    units: VisibleUnits
    at: Parameters
    base_bias: Tensor
    num_temperatures: int

    @property
    def betas(self) -> Tensor:
        """(T, 1), from 1 to 0."""
        return torch.linspace(1, 0, self.num_temperatures, device=self.base_bias.device).to(self.base_bias)[:, None]

    def move(self, v: Tensor, steps: int, turn: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`steps` rounds of v -> h -> v at every temperature, then the swaps that have their turn.

        v: (C, T, V), beta = 1 first.  Returns the states and the share of swaps that were accepted, a scalar.
        """
        betas = self.betas
        biases, gains, log_variances = self.units.tempered(
            betas, self.at.visible_bias, self.at.log_variance, self.base_bias
        )
        for _ in range(steps):
            h = sample_bernoulli(torch.sigmoid(betas * self._hidden_inputs(v)), generator)
            field = widen(h.flatten(0, 1) @ self.at.weight.t()).view_as(v)
            v = self.units.sample(self.units.mean(biases + gains * field, None), log_variances, generator)
        return self.swap(v, turn, generator)

    def swap(self, v: Tensor, turn: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Neighbours (t, t + 1) change places with the Metropolis probability; t has the parity of `turn`."""
        first = turn % min(2, self.num_temperatures - 1)
        num_pairs = (self.num_temperatures - first) // 2
        colder, hotter = (slice(start, first + 2 * num_pairs, 2) for start in (first, first + 1))
        betas, inputs = self.betas, self._hidden_inputs(v)

        def cost(at: slice, states: slice) -> Tensor:
            """F at the temperatures `at` of the states that are now at `states`: (C, P)."""
            return self._free_energy(v[:, states], inputs[:, states], betas[at])

        gain = cost(colder, colder) + cost(hotter, hotter) - cost(colder, hotter) - cost(hotter, colder)
        accepted = sample_uniform(gain, generator) < torch.exp(gain)
        moved, chosen = v.clone(), accepted[..., None]
        moved[:, colder] = torch.where(chosen, v[:, hotter], v[:, colder])
        moved[:, hotter] = torch.where(chosen, v[:, colder], v[:, hotter])
        return moved, accepted.to(v.dtype).mean()

    def free_energy(self, v: Tensor) -> Tensor:
        """F_beta(v), the hidden units summed out: (C, T, V) -> (C, T), in nats."""
        return self._free_energy(v, self._hidden_inputs(v), self.betas)

    def _hidden_inputs(self, v: Tensor) -> Tensor:
        """c + t(v) W, at beta = 1: (C, T, V) -> (C, T, H)."""
        t = self.units.statistic(v, self.at.log_variance).flatten(0, 1)
        return widen(torch.addmm(self.at.hidden_bias, t, self.at.weight)).view(*v.shape[:2], -1)

    def _free_energy(self, v: Tensor, inputs: Tensor, betas: Tensor) -> Tensor:
        z, beta = self.at.log_variance, betas[:, 0]
        base = self.units.energy(v, self.base_bias, torch.zeros_like(z))
        own = self.units.energy(v, self.at.visible_bias, z)
        return (1 - beta) * base + beta * own - F.softplus(betas * inputs).sum(-1)
