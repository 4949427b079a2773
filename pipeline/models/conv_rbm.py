"""Convolutional RBM with probabilistic max-pooling: Lee, Grosse, Ranganath, Ng 2009.

E(v, h) = -sum_k sum_ij h^k_ij (W^k * v)_ij - sum_k c_k sum_ij h^k_ij - sum_m b_m sum_ij v^m_ij, where at most one unit
of a C x C block of h^k is on; Gaussian visible units have |v - b|^2 / 2 in place of -b.v. W * v is a valid correlation.
Where the map's side is no multiple of C, the detection units outside whole blocks (right and bottom) don't exist.
tests/test_conv_rbm.py holds it against a dense RBM and against enumeration.
"""

# B batch, M input channels, K side of a filter, F filters, C side of a block, S = C * C, R x Q blocks

import math

import torch
from torch import Tensor, nn

from pipeline.models.contrastive import sparsity_penalty, with_gradients
from pipeline.models.conv_estimators import estimate
from pipeline.models.filters import Filters, make_filters
from pipeline.models.losses import Batch, Losses
from pipeline.models.pooling import block_softmax, normalise_blocks
from pipeline.models.precision import widen
from pipeline.models.sampling import choose_units, sample_bernoulli, sample_blocks, sample_gaussian
from pipeline.models.standardise import floor_std
from pipeline.row_noise import draw_thresholds, own_rows

CACHED_UNITS = 300_000
"""Detection units that are worked on at a time on CPU: what a core's cache holds."""
RESPONSE_STD = 0.33
"""Spread of a filter's responses at the start. From smaller ones, sparse groups all grow into the same blob."""


class ConvRBM(nn.Module):
    """F groups of detection units over an image, with pooling units above them.

    All weights are zero until `initialise` (or load_state_dict). Methods that take `v` want model units: what
    `standardise` returns, which for Bernoulli units is the input itself. Detection units come in blocks,
    (B, S, F, R, Q).
    """

    row_buffers = ("chains",)
    """Buffers of which each worker of a fit moves on its own rows."""

    mean: Tensor
    std: Tensor
    chains: Tensor
    """(num_chains, M, height, width), in model units."""

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_filters: int,
        kernel_size: int,
        *,
        pool_size: int = 2,
        visible: str = "bernoulli",
        gibbs_steps: int = 1,
        num_chains: int = 0,
        sparsity_target: float = 0.02,
        sparsity_cost: float = 0.0,
    ) -> None:
        """input_shape: (M, height, width), large enough for one block (`build_layer` checks it).

        num_chains: size of the persistent chain state; 0 trains by CD from the data instead of PCD.
        """
        super().__init__()
        channels, height, width = input_shape
        self.input_shape = input_shape
        self.pool_size, self.kernel_size, self.visible = pool_size, kernel_size, visible
        self.gibbs_steps = gibbs_steps
        self.sparsity_target, self.sparsity_cost = sparsity_target, sparsity_cost
        rows, columns = ((side - kernel_size + 1) // pool_size for side in (height, width))
        self.output_shape = (num_filters, rows, columns)
        self.weight = nn.Parameter(torch.zeros(num_filters, channels, kernel_size, kernel_size))
        self.visible_bias = nn.Parameter(torch.zeros(channels))
        self.hidden_bias = nn.Parameter(torch.zeros(num_filters))
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))
        # Saved where there are any: models from before there were chains have none.
        self.register_buffer("chains", torch.zeros(num_chains, *input_shape), persistent=num_chains > 0)

    @property
    def num_detection_units(self) -> int:
        """Per filter."""
        return self.output_shape[1] * self.output_shape[2] * self.pool_size**2

    # --- set-up

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """The inputs' mean and standard deviation, scalar or (M,); Gaussian units are standardised with them."""
        if not bool((std > 0).all()):
            raise ValueError("std must be > 0 for every channel: give constant inputs a floor")
        self.mean.copy_(mean)
        self.std.copy_(std)

    @torch.no_grad()
    def initialise(self, batch: Batch, generator: torch.Generator) -> None:
        """Small random filters, visible biases (Gaussian: statistics) from the data, hidden biases from the target.

        batch: some hundred images (B, M, height, width). A detection unit without input starts at the sparsity target,
        chains at random.
        """
        x = batch.images
        if self.visible == "gaussian":
            self.set_statistics(x.mean((0, 2, 3)), floor_std(x.std((0, 2, 3))))
            self.visible_bias.zero_()
        else:
            self.visible_bias.copy_(x.mean((0, 2, 3)).clamp(0.01, 0.99).logit())
        power = float(self.standardise(x).square().mean())
        self.weight.normal_(0, RESPONSE_STD / math.sqrt(self.weight[0].numel() * power), generator=generator)
        target, units = self.sparsity_target, self.pool_size**2
        if self.sparsity_cost > 0:
            self.hidden_bias.fill_(math.log(target / (1 - units * target)))
        else:
            self.hidden_bias.zero_()
        if len(self.chains):
            mean = _per_channel(self.visible_bias).expand_as(self.chains)
            self.chains.copy_(self.draw_visible(mean if self.visible == "gaussian" else mean.sigmoid(), generator))

    # --- the model

    def standardise(self, x: Tensor) -> Tensor:
        """Inputs in model units, (B, M, height, width)."""
        return (x - _per_channel(self.mean)) / _per_channel(self.std) if self.visible == "gaussian" else x

    def detection_inputs(self, v: Tensor) -> Tensor:
        """I = W * v + c, the inputs of the detection units in blocks: (B, M, height, width) -> (B, S, F, R, Q)."""
        filters = self.filters()
        return filters.correlate(filters.see(v), self.hidden_bias)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) -> (B,). h: (B, S, F, R, Q), at most one unit on in a block."""
        return self.visible_energy(v) - (h * self.detection_inputs(v)).sum((1, 2, 3, 4))

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -b.v - sum over filters and blocks of log(1 + sum exp I); Gaussian: |v - b|^2 / 2 for -b.v.

        v: (B, M, height, width) in model units.  Returns (B,), in nats.
        """
        return self.visible_energy(v) - block_softmax(self.detection_inputs(v))[2].sum((1, 2, 3))

    def detection_probabilities(self, v: Tensor) -> Tensor:
        """P(h = 1 | v) = exp(I) / (1 + sum over the block of exp I): -> (B, S, F, R, Q)."""
        return block_softmax(self.detection_inputs(v))[0]

    def hidden_probabilities(self, v: Tensor) -> Tensor:
        """P(pooling unit on | v) = sigmoid(logsumexp I): -> (B, F, R, Q)."""
        return block_softmax(self.detection_inputs(v))[1]

    def visible_mean(self, h: Tensor) -> Tensor:
        """E[v | h] in model units: (B, S, F, R, Q) -> (B, M, height, width)."""
        filters = self.filters()
        return self.mean_from(filters.assemble(filters.project(h)))

    def visible_std(self) -> Tensor:
        """Standard deviation of v given h in model units, (1,): the same for all units."""
        return torch.ones_like(self.visible_bias[:1])

    def sample_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Detection units (B, S, F, R, Q); a pooling unit is the sum of its block."""
        return sample_blocks(self.detection_probabilities(v), generator)

    def sample_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        return self.draw_visible(self.visible_mean(h), generator)

    @torch.no_grad()
    def gibbs(self, v: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Visible states after `steps` rounds of v -> h -> v."""
        filters = self.filters()
        for _ in range(steps):
            projected = []
            uniform = self.draw_blocks(v, generator)
            for part in self.parts(v):
                inputs = widen(filters.correlate(filters.see(v[part]), self.hidden_bias))
                units = normalise_blocks(inputs, out=inputs)[0]
                projected.append(filters.project(choose_units(units, uniform[part])))
            v = self.draw_visible(self.mean_from(filters.assemble(torch.cat(projected))), generator)
        return v

    def encode(self, x: Tensor) -> Tensor:
        """P(pooling unit on | x) of inputs in their own units: -> (B, F, R, Q)."""
        return self.hidden_probabilities(self.standardise(x))

    def decode(self, h: Tensor) -> Tensor:
        """E[x | h] in the inputs' own units: (B, S, F, R, Q) -> (B, M, height, width)."""
        mean = self.visible_mean(h)
        return mean * _per_channel(self.std) + _per_channel(self.mean) if self.visible == "gaussian" else mean

    # --- losses

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """CD-k, or PCD-k which moves `chains` on. The total's gradient is minus the update.

        The total is nats per detection place, so that a learning rate holds for images of every size.
        """
        found = estimate(self, batch.images, generator)
        if len(self.chains):
            self.chains[own_rows(len(self.chains), generator)] = found.end
        parameters = (self.weight, self.hidden_bias, self.visible_bias)
        total = with_gradients(found.losses.total, lambda: found.gradients, parameters)
        penalty = sparsity_penalty(self.hidden_bias, found.activity, self.sparsity_target, self.sparsity_cost)
        return Losses(total + penalty, found.losses.parts)

    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """The same parts on held-out images; the chains stay where they are."""
        return estimate(self, batch.images, generator).losses

    # --- what the losses are made of

    def filters(self) -> Filters:
        """The weights of now, ready for the products with many images."""
        _, height, width = self.input_shape
        return make_filters(self.weight, (height, width), self.output_shape[1:], self.pool_size)

    def parts(self, v: Tensor) -> list[slice]:
        """The rows of v, a few at a time: see CACHED_UNITS."""
        few = CACHED_UNITS // (self.num_detection_units * self.output_shape[0])
        rows = max(1, few if v.device.type == "cpu" else len(v))
        return [slice(first, first + rows) for first in range(0, len(v), rows)]

    def draw_blocks(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """A uniform for each pooling block over the states v: (B, F, R, Q)."""
        return draw_thresholds(v.new_empty(len(v), *self.output_shape), generator)

    def draw_visible(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        """v given its mean."""
        sample = sample_gaussian if self.visible == "gaussian" else sample_bernoulli
        return sample(mean, generator)

    def mean_from(self, top_down: Tensor) -> Tensor:
        """E[v | h] in model units, given what h adds to the inputs of v: (B, M, height, width)."""
        mean = widen(top_down) + _per_channel(self.visible_bias)
        return mean if self.visible == "gaussian" else torch.sigmoid(mean)

    def visible_energy(self, v: Tensor) -> Tensor:
        """What E(v, h) is without h: (B, M, height, width) in model units -> (B,)."""
        if self.visible == "gaussian":
            return 0.5 * (v - _per_channel(self.visible_bias)).square().sum((1, 2, 3))
        return -(v.sum((2, 3)) @ self.visible_bias)


def _per_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)
