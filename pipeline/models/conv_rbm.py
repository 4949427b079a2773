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
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from pipeline.models.contrastive import Phase, contrastive_divergence, sparsity_penalty
from pipeline.models.losses import Batch, Losses
from pipeline.models.pooling import block_softmax, join_blocks, split_blocks, spread_filters
from pipeline.models.precision import widen
from pipeline.models.sampling import sample_bernoulli, sample_blocks, sample_gaussian
from pipeline.models.standardise import floor_std

FEW_CHANNELS = 4
RESPONSE_STD = 0.33
"""Spread of a filter's responses at the start. From smaller ones, sparse groups all grow into the same blob."""


class ConvRBM(nn.Module):
    """F groups of detection units over an image, with pooling units above them.

    All weights are zero until `initialise` (or load_state_dict). Methods that take `v` want model units: what
    `standardise` returns, which for Bernoulli units is the input itself. Detection units come in blocks,
    (B, S, F, R, Q).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        num_filters: int,
        kernel_size: int,
        *,
        pool_size: int = 2,
        visible: str = "bernoulli",
        gibbs_steps: int = 1,
        sparsity_target: float = 0.02,
        sparsity_cost: float = 0.0,
    ) -> None:
        """input_shape: (M, height, width), large enough for one block (`build_layer` checks it)."""
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

        batch: some hundred images (B, M, height, width). A detection unit without input starts at the sparsity target.
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

    # --- the model

    def standardise(self, x: Tensor) -> Tensor:
        """Inputs in model units, (B, M, height, width)."""
        return (x - _per_channel(self.mean)) / _per_channel(self.std) if self.visible == "gaussian" else x

    def detection_inputs(self, v: Tensor) -> Tensor:
        """I = W * v + c, the inputs of the detection units in blocks: (B, M, height, width) -> (B, S, F, R, Q)."""
        height, width = self._covered()
        return split_blocks(F.conv2d(v[..., :height, :width], self.weight, self.hidden_bias), self.pool_size)

    def energy(self, v: Tensor, h: Tensor) -> Tensor:
        """E(v, h) -> (B,). h: (B, S, F, R, Q), at most one unit on in a block."""
        return self._visible_energy(v) - (h * self.detection_inputs(v)).sum((1, 2, 3, 4))

    def free_energy(self, v: Tensor) -> Tensor:
        """F(v) = -b.v - sum over filters and blocks of log(1 + sum exp I); Gaussian: |v - b|^2 / 2 for -b.v.

        v: (B, M, height, width) in model units.  Returns (B,), in nats.
        """
        return self._visible_energy(v) - block_softmax(self.detection_inputs(v))[2].sum((1, 2, 3))

    def detection_probabilities(self, v: Tensor) -> Tensor:
        """P(h = 1 | v) = exp(I) / (1 + sum over the block of exp I): -> (B, S, F, R, Q)."""
        return block_softmax(self.detection_inputs(v))[0]

    def hidden_probabilities(self, v: Tensor) -> Tensor:
        """P(pooling unit on | v) = sigmoid(logsumexp I): -> (B, F, R, Q)."""
        return block_softmax(self.detection_inputs(v))[1]

    def visible_mean(self, h: Tensor) -> Tensor:
        """E[v | h] in model units: (B, S, F, R, Q) -> (B, M, height, width)."""
        mean = widen(self._top_down(h)) + _per_channel(self.visible_bias)
        return mean if self.visible == "gaussian" else torch.sigmoid(mean)

    def visible_std(self) -> Tensor:
        """Standard deviation of v given h in model units, (1,): the same for all units."""
        return torch.ones_like(self.visible_bias[:1])

    def sample_hidden(self, v: Tensor, generator: torch.Generator) -> Tensor:
        """Detection units (B, S, F, R, Q); a pooling unit is the sum of its block."""
        return sample_blocks(self.detection_probabilities(v), generator)

    def sample_visible(self, h: Tensor, generator: torch.Generator) -> Tensor:
        return self._sample_visible(self.visible_mean(h), generator)

    @torch.no_grad()
    def gibbs(self, v: Tensor, steps: int, generator: torch.Generator) -> Tensor:
        """Visible states after `steps` rounds of v -> h -> v."""
        for _ in range(steps):
            v = self.sample_visible(self.sample_hidden(v, generator), generator)
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
        """CD-k; the total is nats per detection place, so that a learning rate holds for images of every size."""
        losses, activity = self._contrast(batch, generator)
        penalty = sparsity_penalty(self.hidden_bias, activity, self.sparsity_target, self.sparsity_cost)
        return Losses(losses.total + penalty, losses.parts)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """The same parts on held-out images."""
        return self._contrast(batch, generator)[0]

    def _contrast(self, batch: Batch, generator: torch.Generator) -> tuple[Losses, Tensor]:
        with torch.no_grad():
            v = self.standardise(batch.images)
            data = self._phase(v)
            reconstruction = self.visible_mean(sample_blocks(data.hidden, generator))
            end = self.gibbs(self._sample_visible(reconstruction, generator), self.gibbs_steps - 1, generator)
            model = self._phase(end)
        parameters = (self.weight, self.hidden_bias, self.visible_bias)
        total = contrastive_divergence(data, model, self._gradients, parameters)
        activity = data.hidden.mean((0, 1, 3, 4))
        parts = {
            "free_energy_data": data.free_energy.mean(),
            "free_energy_model": model.free_energy.mean(),
            "reconstruction_error": (v - reconstruction).square().mean(),
            "activity": activity.mean(),
        }
        return Losses(total / self.num_detection_units, parts), activity

    def _phase(self, v: Tensor) -> Phase:
        units, _, log_normaliser = block_softmax(self.detection_inputs(v))
        return Phase(v, units, self._visible_energy(v) - log_normaliser.sum((1, 2, 3)))

    def _gradients(self, data: Phase, model: Phase) -> list[Tensor]:
        """d/d(weight, hidden_bias, visible_bias) of mean F(v_data) - mean F(v_model); a Gaussian b cancels."""
        from_data, from_model = self._statistics(data), self._statistics(model)
        return [negative - positive for positive, negative in zip(from_data, from_model, strict=True)]

    def _statistics(self, phase: Phase) -> tuple[Tensor, Tensor, Tensor]:
        """-dF/d(weight, hidden_bias, visible_bias), the mean over the phase's states."""
        height, width = self._covered()
        v, maps, count = phase.visible, join_blocks(phase.hidden, self.pool_size), len(phase.visible)
        weight = conv2d_weight(v[..., :height, :width], list(self.weight.shape), maps)
        return weight.div_(count), phase.hidden.sum((0, 1, 3, 4)).div_(count), v.sum((0, 2, 3)).div_(count)

    def _covered(self) -> tuple[int, int]:
        """Height and width of the part of the input under whole blocks."""
        _, rows, columns = self.output_shape
        return rows * self.pool_size + self.kernel_size - 1, columns * self.pool_size + self.kernel_size - 1

    def _top_down(self, h: Tensor) -> Tensor:
        """sum_k of the transposed correlation of h^k with W^k, on the whole input: -> (B, M, height, width)."""
        _, height, width = self.input_shape
        if self.input_shape[0] <= FEW_CHANNELS:
            # Transposed convolution to few channels is slow on CPU; pixels gathered in C x C cells are S times as many.
            maps = F.conv_transpose2d(h.flatten(1, 2), spread_filters(self.weight, self.pool_size))
            image = F.pixel_shuffle(maps, self.pool_size)
        else:
            image = F.conv_transpose2d(join_blocks(h, self.pool_size), self.weight)
        image = image[..., :height, :width]
        return F.pad(image, (0, width - image.shape[-1], 0, height - image.shape[-2]))

    def _visible_energy(self, v: Tensor) -> Tensor:
        if self.visible == "gaussian":
            return 0.5 * (v - _per_channel(self.visible_bias)).square().sum((1, 2, 3))
        return -(v.sum((2, 3)) @ self.visible_bias)

    def _sample_visible(self, mean: Tensor, generator: torch.Generator) -> Tensor:
        sample = sample_gaussian if self.visible == "gaussian" else sample_bernoulli
        return sample(mean, generator)


def _per_channel(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1)
