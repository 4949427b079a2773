"""What a discriminator and a generator minimise, and the penalties on a discriminator's slope."""

# B batch, C channels, H height = width

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.row_noise import draw_uniform

Discriminate = Callable[[Tensor], Tensor]
"""Images (B, ...) to logits (B,), each a function of its own image."""


def discriminator_loss(kind: str, real_logit: Tensor, fake_logit: Tensor) -> Tensor:
    """Logits (B,) of real and generated images.  Returns a scalar.

    nonsaturating: softplus(-real) + softplus(fake), the cross-entropy (Goodfellow et al. 2014).
    hinge: max(0, 1 - real) + max(0, 1 + fake) (Lim & Ye 2017; Miyato et al. 2018, eq. 16).
    wasserstein: fake - real, minus the estimate of the distance (Arjovsky et al. 2017).
    """
    if kind == "hinge":
        return F.relu(1 - real_logit).mean() + F.relu(1 + fake_logit).mean()
    if kind == "wasserstein":
        return fake_logit.mean() - real_logit.mean()
    return F.softplus(-real_logit).mean() + F.softplus(fake_logit).mean()


def generator_loss(kind: str, fake_logit: Tensor) -> Tensor:
    """softplus(-fake) for nonsaturating, -fake for hinge and wasserstein.  fake_logit: (B,).  Returns a scalar."""
    return F.softplus(-fake_logit).mean() if kind == "nonsaturating" else -fake_logit.mean()


def r1_penalty(discriminate: Discriminate, images: Tensor) -> Tensor:
    """Mean over images of |d logit / d image|^2   (Mescheder et al. 2018, eq. 9, without its gamma / 2).

    Returns a differentiable scalar.
    """
    return _slopes(discriminate, images).square().flatten(1).sum(dim=1).mean()


def gradient_penalty(discriminate: Discriminate, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """Mean over pairs of (|d logit / d x| - 1)^2 at x = fake + eps (real - fake), eps uniform (Gulrajani et al. 2017).

    real, fake: (B, C, H, H).  Returns a differentiable scalar.
    """
    share = draw_uniform((len(real), *[1] * (real.ndim - 1)), generator, real)
    slope = _slopes(discriminate, torch.lerp(fake, real, share)).flatten(1)
    excess: Tensor = torch.linalg.vector_norm(slope, dim=1) - 1
    return excess.square().mean()


def _slopes(discriminate: Discriminate, images: Tensor) -> Tensor:
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminate(images).sum(), images, create_graph=True)
    return gradient
