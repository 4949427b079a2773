"""The residual backbone of a GAN: what ConvEncoder and ConvDecoder are, from blocks of two convolutions and a shortcut
(He et al. 2016; Gulrajani et al. 2017, appendix C).

A block halves its sum's variance by dividing by sqrt(2) (Karras et al. 2020), so that it needs no norm of its own.
"""

# B batch, C image channels, H height = width of an image, K feature channels, D features of a vector

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.conv_blocks import LabelNorm, stage_sizes

HALVE_VARIANCE = 0.5**0.5


class ResidualEncoder(nn.Module):
    """Images to flat features, the interface of ConvEncoder; a block for each halving and one at the smallest side."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, *, leak: float = 0.0) -> None:
        super().__init__()
        sizes = stage_sizes(image_shape)
        channels = [width * 2**i for i in range(len(sizes))]
        self.leak = leak
        self.first = nn.Conv2d(4 * image_shape[0], width, 3, padding=1)
        self.blocks = nn.ModuleList(EncoderBlock(k, wide, leak, shrink=True) for k, wide in pairwise(channels))
        self.blocks.append(EncoderBlock(channels[-1], channels[-1], leak, shrink=False))
        self.num_features = channels[-1] * sizes[-1] ** 2

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, H).  Returns (B, num_features)."""
        h = self.first(F.pixel_unshuffle(x, 2))
        for block in self.blocks:
            h = block(h)
        return F.leaky_relu(h, self.leak).flatten(1)


class EncoderBlock(nn.Module):
    """(B, K, S, S) to (B, num_outputs, S, S), or half the side by means over 2x2 places."""

    def __init__(self, num_inputs: int, num_outputs: int, leak: float, *, shrink: bool) -> None:
        super().__init__()
        self.leak, self.shrink = leak, shrink
        self.inner = nn.Conv2d(num_inputs, num_inputs, 3, padding=1)
        self.outer = nn.Conv2d(num_inputs, num_outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(num_inputs, num_outputs, 1, bias=False) if num_inputs != num_outputs else None

    def forward(self, h: Tensor) -> Tensor:
        residual = self.outer(F.leaky_relu(self.inner(F.leaky_relu(h, self.leak)), self.leak))
        both = HALVE_VARIANCE * (residual + (h if self.shortcut is None else self.shortcut(h)))
        return F.avg_pool2d(both, 2) if self.shrink else both


class ResidualDecoder(nn.Module):
    """Flat inputs to images, the interface of ConvDecoder: ResidualEncoder's mirror, with norms shifted by label."""

    def __init__(self, image_shape: tuple[int, int, int], width: int, num_inputs: int, *, num_rows: int) -> None:
        super().__init__()
        sizes = stage_sizes(image_shape)
        self.side = sizes[-1]
        channels = [width * 2**i for i in reversed(range(len(sizes)))]
        self.first = nn.Linear(num_inputs, channels[0] * self.side**2)
        self.blocks = nn.ModuleList([DecoderBlock(channels[0], channels[0], num_rows, grow=False)])
        self.blocks.extend(DecoderBlock(wide, k, num_rows, grow=True) for wide, k in pairwise(channels))
        self.norm = LabelNorm(width, num_rows)
        self.last = nn.Conv2d(width, 4 * image_shape[0], 3, padding=1)

    def forward(self, d: Tensor, rows: Tensor) -> Tensor:
        """d: (B, num_inputs); rows: (B,) rows of the norms.  Returns (B, C, H, H)."""
        h = self.first(d).view(len(d), -1, self.side, self.side)
        for block in self.blocks:
            h = block(h, rows)
        return F.pixel_shuffle(self.last(F.relu(self.norm(h, rows))), 2)


class DecoderBlock(nn.Module):
    """(B, K, S, S) to (B, num_outputs, S, S), or twice the side by repeating places."""

    def __init__(self, num_inputs: int, num_outputs: int, num_rows: int, *, grow: bool) -> None:
        super().__init__()
        self.grow = grow
        self.norms = nn.ModuleList([LabelNorm(num_inputs, num_rows), LabelNorm(num_outputs, num_rows)])
        self.inner = nn.Conv2d(num_inputs, num_outputs, 3, padding=1)
        self.outer = nn.Conv2d(num_outputs, num_outputs, 3, padding=1)
        self.shortcut = nn.Conv2d(num_inputs, num_outputs, 1, bias=False) if num_inputs != num_outputs else None

    def forward(self, h: Tensor, rows: Tensor) -> Tensor:
        shortcut = h if self.shortcut is None else self.shortcut(h)
        residual = F.relu(self.norms[0](h, rows))
        if self.grow:
            shortcut, residual = _double_side(shortcut), _double_side(residual)
        residual = self.outer(F.relu(self.norms[1](self.inner(residual), rows)))
        both: Tensor = HALVE_VARIANCE * (residual + shortcut)
        return both


def _double_side(h: Tensor) -> Tensor:
    """Each place as 2x2 equal ones. By expanding: the gradient is a sum, deterministic on a GPU too."""
    batch, channels, side, _ = h.shape
    return h[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2).reshape(batch, channels, 2 * side, 2 * side)
