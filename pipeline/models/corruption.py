"""Three ways to spoil an image, each with what the spoilt pixels say about the clean ones.

A model of black and white pixels, such as an RBM or a VAE with the Bernoulli likelihood, needs one number of each noisy
pixel: its evidence, log p(y | x = 1) - log p(y | x = 0).  Grey values are read as probabilities.
"""

# B batch, C channels, H height = width

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.row_noise import draw_integers, draw_normal, draw_uniform

HOLE = 0.5
"""What a lost pixel is set to: no digit has a square of this grey."""
CERTAIN = 20.0
"""Evidence of a pixel that is known, in nats, where it is white; black pixels have minus this."""


@dataclass(frozen=True)
class Spoilt:
    """y: (B, C, H, H), not clipped.  lost: the same shape, True where y says nothing about the clean image."""

    y: Tensor
    lost: Tensor


class Corruption(Protocol):
    """How images (B, C, H, H) in [0, 1] are spoilt; a Gaussian generator's rows are those of the batch."""

    def spoil(self, x: Tensor, generator: torch.Generator) -> Spoilt: ...

    def evidence(self, spoilt: Spoilt) -> Tensor:
        """log p(y | x = 1) - log p(y | x = 0) of each pixel, shape of y, in nats."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """y = x + sigma e, e ~ N(0, I), which is not clipped."""

    sigma: float

    def spoil(self, x: Tensor, generator: torch.Generator) -> Spoilt:
        y = x + self.sigma * draw_normal(x.shape, generator, x)
        return Spoilt(y, torch.zeros_like(y, dtype=torch.bool))

    def evidence(self, spoilt: Spoilt) -> Tensor:
        return (2 * spoilt.y - 1) / (2 * self.sigma**2)


@dataclass(frozen=True)
class SaltAndPepper:
    """Each pixel of each channel is replaced with probability `share`, by 0 or 1 with equal chances."""

    share: float

    def spoil(self, x: Tensor, generator: torch.Generator) -> Spoilt:
        u = draw_uniform(x.shape, generator, x)
        y = torch.where(u < self.share, (u < self.share / 2).to(x.dtype), x)
        return Spoilt(y, torch.zeros_like(y, dtype=torch.bool))

    def evidence(self, spoilt: Spoilt) -> Tensor:
        kept, noise = 1 - self.share, self.share / 2
        return torch.log(kept * spoilt.y + noise) - torch.log(kept * (1 - spoilt.y) + noise)


@dataclass(frozen=True)
class Masking:
    """A square hole of `side` pixels, anywhere inside the image, whose place is known."""

    side: int

    def spoil(self, x: Tensor, generator: torch.Generator) -> Spoilt:
        rows, height = len(x), x.shape[-1]
        if not 1 <= self.side < height:
            raise ValueError(
                f"the hole must have a side of 1 to {height - 1} in images of {height} pixels, got {self.side}: "
                "set denoise.hole in params.yaml"
            )
        top, left = (draw_integers(0, height - self.side + 1, rows, generator)[:, None].to(x.device) for _ in range(2))
        place = torch.arange(height, device=x.device)
        down, across = ((place >= start) & (place < start + self.side) for start in (top, left))
        lost = (down[:, None, :, None] & across[:, None, None, :]).expand_as(x)
        return Spoilt(x.masked_fill(lost, HOLE), lost)

    def evidence(self, spoilt: Spoilt) -> Tensor:
        known = torch.logit(spoilt.y.clamp(0, 1)).clamp(-CERTAIN, CERTAIN)
        return known.masked_fill(spoilt.lost, 0.0)


def spoil_mixed(corruptions: Mapping[str, Corruption], x: Tensor, generator: torch.Generator) -> Tensor:
    """y of a batch whose rows are spoilt each in one of these ways, drawn with equal chances: shape of x."""
    which = draw_integers(0, len(corruptions), len(x), generator).to(x.device)
    y = x
    for number, corruption in enumerate(corruptions.values()):
        chosen = (which == number)[:, None, None, None]
        y = torch.where(chosen, corruption.spoil(x, generator).y, y)
    return y


def evidence_log_likelihood(logits: Tensor, evidence: Tensor) -> Tensor:
    """log p(y | z) - log p(y | x = 0) for pixels x of independent log odds `logits` given z: (B, ...) -> (B,), in nats.

    log (P(x = 0) p(y | 0) + P(x = 1) p(y | 1)), summed over pixels; the second term does not depend on z.
    """
    return (F.softplus(logits + evidence) - F.softplus(logits)).flatten(1).sum(1)
