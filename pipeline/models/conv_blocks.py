"""What the VAE and the GAN share: convolutional stages, label rows, and a seeded draw of the weights."""

# B batch, C image channels, H height = width of an image, K feature channels, D features of a vector

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._C._functorch import is_functorch_wrapped_tensor

from pipeline.models.losses import UNLABELLED

LEAK = 0.2
"""Slope of a leaky ReLU below zero (Radford et al. 2016)."""


def stage_sizes(image_shape: tuple[int, int, int]) -> list[int]:
    """Sides of the feature maps, largest first: halved twice, then on while even and above 8.

    (1, 28, 28) gives [14, 7], (3, 64, 64) gives [32, 16, 8].  Raises ValueError for shapes the data may not have.
    """
    channels, height, width = image_shape
    if channels not in (1, 3) or height != width or height % 4 or not 28 <= height <= 64:
        raise ValueError(
            f"images must have 1 or 3 channels and be square with a side that is a multiple of 4 in 28..64, "
            f"got {image_shape}: set data.image_size and data.channels in params.yaml"
        )
    sizes = [height // 2, height // 4]
    while sizes[-1] > 8 and sizes[-1] % 2 == 0:
        sizes.append(sizes[-1] // 2)
    return sizes


def label_rows(labels: Tensor, num_classes: int) -> Tensor:
    """Rows of an embedding with num_classes + 1 rows: UNLABELLED takes the last, the null class.

    labels: (B,) int64.  Raises ValueError for labels outside -1..num_classes - 1.
    """
    per_example = is_functorch_wrapped_tensor(labels)  # inside torch.vmap values can't be looked at
    if labels.numel() > 0 and not per_example and not (labels.min() >= UNLABELLED and labels.max() < num_classes):
        found = f"{int(labels.min())}..{int(labels.max())}"
        raise ValueError(f"labels must be in {UNLABELLED}..{num_classes - 1}, got {found}: use the model's own classes")
    return torch.where(labels == UNLABELLED, num_classes, labels)


class ConvEncoder(nn.Module):
    """Images to flat features; each stage halves the side, channels double from `width`.

    The first stage works on 2x2 pixel blocks stacked as channels: the same function as a stride-2 convolution with a
    6x6 kernel, at a better speed for one input channel.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int, *, leak: float = 0.0) -> None:
        super().__init__()
        sizes = stage_sizes(image_shape)
        self.leak = leak
        self.first = nn.Conv2d(4 * image_shape[0], width, 3, padding=1)
        self.stages = nn.ModuleList(
            nn.Conv2d(width * 2**i, width * 2 ** (i + 1), 4, stride=2, padding=1) for i in range(len(sizes) - 1)
        )
        self.num_features = width * 2 ** (len(sizes) - 1) * sizes[-1] ** 2

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, H).  Returns (B, num_features)."""
        h = F.leaky_relu(self.first(F.pixel_unshuffle(x, 2)), self.leak)
        for conv in self.stages:
            h = F.leaky_relu(conv(h), self.leak)
        return h.flatten(1)


class ConvDecoder(nn.Module):
    """Flat inputs to images, the mirror of ConvEncoder; linear output.

    With `num_rows` > 0 each stage is normalised over the image's own channels and places (never over the batch), then
    scaled and shifted by a row learned per label.
    """

    def __init__(self, image_shape: tuple[int, int, int], width: int, num_inputs: int, *, num_rows: int = 0) -> None:
        super().__init__()
        sizes = stage_sizes(image_shape)
        self.side = sizes[-1]
        channels = [width * 2**i for i in reversed(range(len(sizes)))]
        self.first = nn.Linear(num_inputs, channels[0] * self.side**2)
        self.stages = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1) for wide, narrow in pairwise(channels)
        )
        self.norms = nn.ModuleList(LabelNorm(c, num_rows) for c in channels) if num_rows else None
        self.last = nn.Conv2d(width, 4 * image_shape[0], 3, padding=1)

    def forward(self, d: Tensor, rows: Tensor | None = None) -> Tensor:
        """d: (B, num_inputs); rows: (B,) rows of the norms.  Returns (B, C, H, H)."""
        h = self.first(d).view(len(d), -1, self.side, self.side)
        h = F.relu(self.norms[0](h, rows) if self.norms is not None else h)
        for i, conv in enumerate(self.stages, start=1):
            h = conv(h)
            h = F.relu(self.norms[i](h, rows) if self.norms is not None else h)
        return F.pixel_shuffle(self.last(h), 2)


class LabelNorm(nn.Module):
    """Normalises each image as a whole, then scales and shifts by label: conditional batch norm without the batch."""

    def __init__(self, num_channels: int, num_rows: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.zeros(num_rows, num_channels))
        self.shift = nn.Parameter(torch.zeros(num_rows, num_channels))

    def forward(self, h: Tensor, rows: Tensor) -> Tensor:
        """h: (B, K, H, H); rows: (B,)."""
        scale, shift = F.embedding(rows, self.scale), F.embedding(rows, self.shift)
        return torch.addcmul(shift[:, :, None, None], F.group_norm(h, 1), 1 + scale[:, :, None, None])


def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draws weights from `generator`: He normal for layers, N(0, 1) for embeddings, zero for biases and label norms.

    Parameters of other kinds of modules are left as they are.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):  # each output sees kernel / stride places of each input channel
                fan_in = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1] // layer.stride[0] ** 2
            nn.init.normal_(layer.weight, std=(2 / fan_in) ** 0.5, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, LabelNorm):
            nn.init.zeros_(layer.scale)
            nn.init.zeros_(layer.shift)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, generator=generator)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Inside, the module's parameters get no gradient (inputs still do), which saves their backward pass."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
