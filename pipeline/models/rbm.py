"""Restricted Boltzmann machine: Smolensky 1986; Hinton 2002, 2010 (A practical guide); Tieleman 2008 (PCD).

E(v, h) = e(v) - c.h - t(v) W h, where e(v) = -b.v and t(v) = v for Bernoulli visible units; units.py has the others.
tests/test_rbm.py and tests/test_units.py hold it against enumeration.
"""

# B batch, V visible units, H hidden units

import torch
from torch import Tensor, nn

from pipeline.models.contrastive import Phase, sparsity_penalty
from pipeline.models.enumeration import enumerate_log_partition
from pipeline.models.estimators import check_estimator, estimate
from pipeline.models.hidden_units import HIDDEN
from pipeline.models.losses import Batch, Losses
from pipeline.models.precision import widen
from pipeline.models.rbm_gradients import Parameters
from pipeline.models.standardise import floor_std
from pipeline.models.tempering import Ladder
from pipeline.models.unit_kinds import make_units
from pipeline.row_noise import own_rows

OFFSET_RATE = 0.01
"""Of the running means that centred gradients subtract (Melchior, Fischer, Wiskott 2016, sec. 4.4)."""


class RBM(nn.Module):
    """Bernoulli (Gaussian, or rectified linear) hidden units over visible units of one of the `KINDS` or softmax ones.

    All weights are zero until `initialise` (or load_state_dict). Methods that take `v` want model units: what
    `standardise` returns, which for Bernoulli units is the input itself.
    """

    row_buffers = ("chains",)
    """Buffers of which each worker of a fit moves on its own rows."""
    mean_buffers = ("visible_offset", "hidden_offset")
    """Buffers that each worker of a fit moves on by its own means, and all then replace by the workers' mean."""

    watch_every = 1
    """Free energies and errors are computed at every n-th update (`fit` sets it): they cost a tenth of a CD-1 step."""

    mean: Tensor
    std: Tensor
    chains: Tensor
    """(C, V), with parallel tempering (C, T, V), the model's own temperature first."""
    base_bias: Tensor
    visible_offset: Tensor
    hidden_offset: Tensor
    log_variance: Tensor

    def __init__(
        self,
        num_visible: int,
        num_hidden: int,
        *,
        visible: str = "bernoulli",
        hidden: str = "bernoulli",
        gibbs_steps: int = 1,
        num_values: int = 0,
        num_chains: int = 0,
        num_temperatures: int = 1,
        centred: bool = False,
        exact: bool = False,
        sparsity_target: float = 0.1,
        sparsity_cost: float = 0.0,
    ) -> None:
        """num_values: K of softmax visible units, which are V / K groups of K (see categorical_units.py).

        num_chains: size of the persistent chain state; 0 trains by CD from the data instead of PCD.
        num_temperatures: of parallel tempering, a chain each for every persistent one; 1 switches it off.
        centred: the gradients that don't depend on which value of a unit is called 1; offsets are running means.
        exact: the gradient of the likelihood itself by enumeration, for at most 20 hidden units.
        """
        super().__init__()
        self.num_visible, self.num_hidden, self.visible, self.hidden = num_visible, num_hidden, visible, hidden
        self.hidden_units = HIDDEN[hidden]
        self.units = make_units(visible, num_visible, num_values)
        check_estimator(self.units, self.hidden_units, num_chains, num_temperatures, exact=exact)
        self.gibbs_steps, self.num_temperatures = gibbs_steps, num_temperatures
        self.centred, self.exact = centred, exact
        self.sparsity_target, self.sparsity_cost = sparsity_target, sparsity_cost
        self.weight = nn.Parameter(torch.zeros(num_visible, num_hidden))
        self.visible_bias = nn.Parameter(torch.zeros(num_visible))
        self.hidden_bias = nn.Parameter(torch.zeros(num_hidden))
        if self.units.learns_variance:
            self.log_variance = nn.Parameter(torch.zeros(num_visible))
        else:
            self.register_buffer("log_variance", torch.zeros(0), persistent=False)
        self.register_buffer("mean", torch.zeros(num_visible))
        self.register_buffer("std", torch.ones(num_visible))
        if num_temperatures > 1:
            self.register_buffer("chains", torch.zeros(num_chains, num_temperatures, num_visible))
            self.register_buffer("base_bias", torch.zeros(num_visible))
        else:
            self.register_buffer("chains", torch.zeros(num_chains, num_visible))
        self.register_buffer("visible_offset", torch.zeros(num_visible if centred else 0), persistent=centred)
        self.register_buffer("hidden_offset", torch.zeros(num_hidden if centred else 0), persistent=centred)

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
        self.log_variance.zero_()
        if self.units.standardised:
            self.set_statistics(x.mean(0), floor_std(x.std(0)))
        self.visible_bias.copy_(self.units.initial_bias(x))
        if self.num_temperatures > 1:
            self.base_bias.copy_(self.visible_bias)
        if self.centred:
            v = self.standardise(x)
            self.visible_offset.copy_(self.units.offset(v, self.log_variance))
            self.hidden_offset.copy_(self.hidden_probabilities(v).mean(0))
        if len(self.chains):
            mean = self.units.initial_mean(x).expand_as(self.chains)
            self.chains.copy_(self.units.sample(mean, self.log_variance, generator))

    # --- the model

    def standardise(self, x: Tensor) -> Tensor:
        """Inputs (B, ...) flattened, in model units (B, V)."""
        x = x.flatten(1)
        return (x - self.mean) / self.std if self.units.standardised else x

    def statistic(self, v: Tensor) -> Tensor:
        """t(v), what the weights multiply: v, or v / sigma^2 where variances are learned."""
        return self.units.statistic(v, self.log_variance)

    def hidden_inputs(self, v: Tensor) -> Tensor:
        """c + t(v) W: (B, V) in model units -> (B, H)."""
        return widen(self.statistic(v) @ self.weight).add_(self.units.scale(v, self.hidden_bias))

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) of Bernoulli hidden units: (B, V), (B, H) -> (B,)."""
        return (
            self._visible_energy(v)
            - self.units.scale(v, h) @ self.hidden_bias
            - ((self.statistic(v) @ self.weight) * h).sum(1)
        )

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = e(v) - sum_j softplus(c_j + t(v).W_j)   (Hinton 2010, sec. 16.1), for Bernoulli hidden units.

        v: (B, V) in model units.  Returns (B,), in nats. hidden_units.py says what takes the place of softplus.
        """
        return self._visible_energy(v) - self.hidden_units.log_sum(self.hidden_inputs(v)).sum(1)

    def log_partition(self, like: Tensor | None = None) -> Tensor:
        """log Z by enumeration of the 2^H hidden states, a float64 scalar.  Raises ValueError when H > 20.

        like: (B, V) states whose examples have models of their own (softmax units); then (B,).
        """
        if not self.hidden_units.binary:
            raise ValueError(f"log Z is enumerated for bernoulli hidden units alone: {self.hidden} ones have no end")
        return enumerate_log_partition(self.units, self.parameters_now(), like).detach()

    def hidden_probabilities(self, v: Tensor) -> Tensor:
        """P(h = 1 | v), for Gaussian and rectified linear units E[h | v]: (B, V) in model units -> (B, H)."""
        return self.hidden_units.mean(self.hidden_inputs(v))

    def visible_mean(self, h: Tensor, like: Tensor | None = None) -> Tensor:
        """E[v | h] in model units: (B, H) -> (B, V). like: (B, V) states with what is fixed for an example."""
        return self.units.mean(widen(h @ self.weight.t()).add_(self.visible_bias), like)

    def visible_std(self) -> Tensor:
        """Standard deviation of v given h in model units, (V,): 1 where no variances are learned."""
        return torch.exp(0.5 * self.log_variance) if self.units.learns_variance else torch.ones_like(self.visible_bias)

    def sample_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        return self.hidden_units.sample(self.hidden_inputs(v), generator)

    def sample_visible(self, h: Tensor, generator: torch.Generator, like: Tensor | None = None) -> Tensor:
        return self.units.sample(self.visible_mean(h, like), self.log_variance, generator)

    @torch.no_grad()
    def gibbs(self, v: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Visible states after `steps` rounds of v -> h -> v."""
        for _ in range(steps):
            v = self.sample_visible(self.sample_hidden(v, generator), generator, v)
        return v

    def encode(self, x: Tensor) -> Tensor:
        """`hidden_probabilities` of inputs in their own units: (B, ...) -> (B, H)."""
        return self.hidden_probabilities(self.standardise(x))

    def decode(self, h: Tensor) -> Tensor:
        """E[x | h] in the inputs' own units: (B, H) -> (B, V)."""
        mean = self.visible_mean(h)
        return mean * self.std + self.mean if self.units.standardised else mean

    # --- losses

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        """CD-k, or PCD-k which moves `chains` on. The total's gradient is minus the update; its value is in nats."""
        watched = self.exact or self.num_temperatures > 1 or step % self.watch_every == 0
        found = estimate(self, batch.images, step, generator, watched=watched)
        losses, data = found.losses, found.data
        if len(self.chains) and not self.exact:
            self.chains[own_rows(len(self.chains), generator)] = found.end
        if self.centred:
            self.visible_offset.lerp_(self.units.offset(data.visible, self.log_variance).detach(), OFFSET_RATE)
            self.hidden_offset.lerp_(data.hidden.mean(0), OFFSET_RATE)
        if self.sparsity_cost == 0:
            return losses
        penalty = sparsity_penalty(self.hidden_bias, data.hidden.mean(0), self.sparsity_target, self.sparsity_cost)
        return Losses(losses.total + penalty, losses.parts, losses.watched)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        """The same parts on held-out images; the chains stay where they are."""
        return estimate(self, batch.images, step, generator).losses

    def phase(self, v: Tensor, inputs: Tensor, *, watched: bool = True) -> Phase:
        """What a gradient needs of visible states (B, V) in model units with their `hidden_inputs`.

        Without `watched` there are no free energies, an empty tensor.
        """
        mean = self.hidden_units.mean(inputs)
        if not watched:
            return Phase(v, mean, mean.new_empty(0))
        return Phase(v, mean, self._visible_energy(v) - self.hidden_units.log_sum(inputs, mean).sum(1))

    def parameters_now(self) -> Parameters:
        return Parameters(self.weight, self.hidden_bias, self.visible_bias, self.log_variance)

    def offsets(self) -> tuple[Tensor, Tensor]:
        """mu and lambda of centred gradients, copied; both are empty without `centred`."""
        return self.visible_offset.clone(), self.hidden_offset.clone()

    def ladder(self) -> Ladder:
        """The model at the temperatures of its chains."""
        return Ladder(self.units, self.parameters_now(), self.base_bias, self.num_temperatures)

    def _visible_energy(self, v: Tensor) -> Tensor:
        return self.units.energy(v, self.visible_bias, self.log_variance)
