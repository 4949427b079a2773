"""Restricted Boltzmann machine: Smolensky 1986; Hinton 2002, 2010 (A practical guide); Tieleman 2008 (PCD).

E(v, h) = -b.v - c.h - v W h for Bernoulli visible units, and with |v - b|^2 / 2 in place of -b.v for Gaussian ones,
which have unit variance after the inputs are standardised. tests/test_rbm.py holds it against enumeration.
"""

# B batch, V visible units, H hidden units

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.contrastive import Phase, contrastive_divergence, sparsity_penalty
from pipeline.models.losses import Batch, Losses
from pipeline.models.precision import widen
from pipeline.models.sampling import sample_bernoulli, sample_gaussian
from pipeline.models.standardise import floor_std
from pipeline.row_noise import own_rows

MAX_ENUMERATED = 20


class RBM(nn.Module):
    """Bernoulli hidden units over Bernoulli or Gaussian visible units.

    All weights are zero until `initialise` (or load_state_dict). Methods that take `v` want model units: what
    `standardise` returns, which for Bernoulli units is the input itself.
    """

    row_buffers = ("chains",)
    """Buffers of which each worker of a fit moves on its own rows."""

    mean: Tensor
    std: Tensor
    chains: Tensor

    def __init__(
        self,
        num_visible: int,
        num_hidden: int,
        *,
        visible: str = "bernoulli",
        gibbs_steps: int = 1,
        num_chains: int = 0,
        sparsity_target: float = 0.1,
        sparsity_cost: float = 0.0,
    ) -> None:
        """num_chains: size of the persistent chain state; 0 trains by CD from the data instead of PCD."""
        super().__init__()
        self.num_visible, self.num_hidden, self.visible = num_visible, num_hidden, visible
        self.gibbs_steps = gibbs_steps
        self.sparsity_target, self.sparsity_cost = sparsity_target, sparsity_cost
        self.weight = nn.Parameter(torch.zeros(num_visible, num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(num_visible))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        self.register_buffer("mean", torch.zeros(num_visible))
        self.register_buffer("std", torch.ones(num_visible))
        self.register_buffer("chains", torch.zeros(num_chains, num_visible))

    @property
    def input_shape(self) -> tuple[int, ...]:
        return (self.num_visible,)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (self.num_hidden,)

    # --- set-up

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """The inputs' mean and standard deviation, scalar or (V,); Gaussian units are standardised with them."""
        if not bool((std > 0).all()):
            raise ValueError("std must be > 0 for every visible unit: give constant inputs a floor")
        self.mean.copy_(mean)
        self.std.copy_(std)

    @torch.no_grad()
    def initialise(self, batch: Batch, generator: torch.Generator) -> None:
        """Small random weights, visible biases (Gaussian: statistics) from the data, chains started at random.

        batch: some hundred images, (B, V) or anything that flattens to it (Hinton 2010, sec. 8).
        """
        x = batch.images.flatten(1)
        self.weight.normal_(0, 0.01, generator=generator)
        self.hidden_bias.zero_()
        if self.visible == "gaussian":
            self.set_statistics(x.mean(0), floor_std(x.std(0)))
            self.visible_bias.zero_()
            self.chains.normal_(generator=generator)
        else:
            self.visible_bias.copy_(x.mean(0).clamp(0.01, 0.99).logit())
            if len(self.chains):
                self.chains.copy_(sample_bernoulli(x.mean(0).expand_as(self.chains), generator))

    # --- the model

    def standardise(self, x: Tensor) -> Tensor:
        """Inputs (B, ...) flattened, in model units (B, V)."""
        x = x.flatten(1)
        return (x - self.mean) / self.std if self.visible == "gaussian" else x

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h): (B, V), (B, H) -> (B,)."""
        return self._visible_energy(v) - h @ self.hidden_bias - ((v @ self.weight) * h).sum(1)

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -b.v - sum_j softplus(c_j + v.W_j)   (Hinton 2010, sec. 16.1), Gaussian: |v - b|^2 / 2 for -b.v.

        v: (B, V) in model units.  Returns (B,), in nats.
        """
        return self._visible_energy(v) - F.softplus(self._hidden_inputs(v)).sum(1)

    def log_partition(self) -> Tensor:
        """log Z by enumeration of the 2^H hidden states, a float64 scalar.  Raises ValueError when H > 20."""
        if self.num_hidden > MAX_ENUMERATED:
            raise ValueError(f"log Z is enumerated up to {MAX_ENUMERATED} hidden units, not {self.num_hidden}: use AIS")
        states = torch.arange(2**self.num_hidden, device=self.weight.device)[:, None]
        h = (states >> torch.arange(self.num_hidden, device=states.device) & 1).double()
        weight, b, c = (p.detach().double() for p in (self.weight, self.visible_bias, self.hidden_bias))
        field = h @ weight.t()
        if self.visible == "gaussian":
            visible_sum = field @ b + 0.5 * field.square().sum(1) + 0.5 * self.num_visible * math.log(2 * math.pi)
        else:
            visible_sum = F.softplus(field + b).sum(1)
        return torch.logsumexp(h @ c + visible_sum, 0)

    def hidden_probabilities(self, v: Tensor) -> Tensor:
        """P(h = 1 | v): (B, V) in model units -> (B, H)."""
        return torch.sigmoid(self._hidden_inputs(v))

    def visible_mean(self, h: Tensor) -> Tensor:
        """E[v | h] in model units: (B, H) -> (B, V)."""
        mean = widen(torch.addmm(self.visible_bias, h, self.weight.t()))
        return mean if self.visible == "gaussian" else torch.sigmoid(mean)

    def sample_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        return sample_bernoulli(self.hidden_probabilities(v), generator)

    def sample_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        return self._sample_visible(self.visible_mean(h), generator)

    @torch.no_grad()
    def gibbs(self, v: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Visible states after `steps` rounds of v -> h -> v."""
        for _ in range(steps):
            v = self.sample_visible(self.sample_hidden(v, generator), generator)
        return v

    def encode(self, x: Tensor) -> Tensor:
        """P(h = 1 | x) of inputs in their own units: (B, ...) -> (B, H)."""
        return self.hidden_probabilities(self.standardise(x))

    def decode(self, h: Tensor) -> Tensor:
        """E[x | h] in the inputs' own units: (B, H) -> (B, V)."""
        mean = self.visible_mean(h)
        return mean * self.std + self.mean if self.visible == "gaussian" else mean

    # --- losses

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """CD-k, or PCD-k which moves `chains` on. The total's gradient is minus the update; its value is in nats."""
        losses, data, end = self._contrast(batch, generator)
        if len(self.chains):
            self.chains[own_rows(len(self.chains), generator)] = end
        penalty = sparsity_penalty(self.hidden_bias, data.hidden.mean(0), self.sparsity_target, self.sparsity_cost)
        return Losses(losses.total + penalty, losses.parts)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """The same parts on held-out images; the chains stay where they are."""
        return self._contrast(batch, generator)[0]

    def _contrast(self, batch: Batch, generator: torch.Generator) -> tuple[Losses, Phase, Tensor]:
        with torch.no_grad():
            v = self.standardise(batch.images)
            data = self._phase(v)
            reconstruction = self.visible_mean(sample_bernoulli(data.hidden, generator))
            if len(self.chains):
                chains = self.chains[own_rows(len(self.chains), generator)]
                end = self.gibbs(chains, self.gibbs_steps, generator)
            else:
                end = self.gibbs(self._sample_visible(reconstruction, generator), self.gibbs_steps - 1, generator)
            model = self._phase(end)
        parameters = (self.weight, self.hidden_bias, self.visible_bias)
        total = contrastive_divergence(data, model, _gradients, parameters)
        parts = {
            "free_energy_data": data.free_energy.mean(),
            "free_energy_model": model.free_energy.mean(),
            "reconstruction_error": (v - reconstruction).square().mean(),
            "activity": data.hidden.mean(),
        }
        return Losses(total, parts), data, end

    def _phase(self, v: Tensor) -> Phase:
        inputs = self._hidden_inputs(v)
        return Phase(v, torch.sigmoid(inputs), self._visible_energy(v) - F.softplus(inputs).sum(1))

    def _hidden_inputs(self, v: Tensor) -> Tensor:
        return widen(torch.addmm(self.hidden_bias, v, self.weight))

    def _visible_energy(self, v: Tensor) -> Tensor:
        if self.visible == "gaussian":
            return 0.5 * (v - self.visible_bias).square().sum(1)
        return -(v @ self.visible_bias)

    def _sample_visible(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        sample = sample_gaussian if self.visible == "gaussian" else sample_bernoulli
        return sample(mean, generator)


def _gradients(data: Phase, model: Phase) -> tuple[Tensor, Tensor, Tensor]:
    """d/d(weight, hidden_bias, visible_bias) of mean F(v_data) - mean F(v_model); a Gaussian b cancels."""
    from_data, from_model = -1 / len(data.visible), 1 / len(model.visible)
    weight = torch.mm(data.visible.t(), data.hidden).mul_(from_data)
    weight.addmm_(model.visible.t(), model.hidden, alpha=from_model)
    return weight, model.hidden.mean(0) - data.hidden.mean(0), model.visible.mean(0) - data.visible.mean(0)
