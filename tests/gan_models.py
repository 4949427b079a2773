"""Small GANs of every kind, and images of two classes for them."""

from dataclasses import replace
from typing import Any

import torch

from pipeline.config.generators import Gan
from pipeline.models.gan import ConditionalGAN
from pipeline.models.losses import Batch

SMALL = Gan(
    latent_dim=4,
    width=4,
    backbone="dcgan",
    conditioning="projection",
    loss="nonsaturating",
    spectral_norm=False,
    r1_weight=0.3,
    r1_every=4,
    gradient_penalty=0.0,
    discriminator_steps=1,
    ema_decay=0.9,
    augmentation="none",
    ada_target=0.6,
    ada_images=500,
    on_collapse="stop",
    steps=1,
    batch_size=8,
    lr=1e-3,
    betas=[0.0, 0.99],
)
KINDS: dict[str, dict[str, Any]] = {
    "adaptive": {"augmentation": "adaptive", "ada_images": 300, "ada_target": 0.1},
    "spectral": {"spectral_norm": True, "loss": "hinge", "conditioning": "auxiliary"},
    "wasserstein": {"loss": "wasserstein", "r1_weight": 0.0, "gradient_penalty": 10.0, "discriminator_steps": 3},
    "residual": {"backbone": "residual"},
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_gan(shape: tuple[int, int, int] = (1, 28, 28), *, seed: int = 0, **changes: Any) -> ConditionalGAN:
    return ConditionalGAN(shape, 2, config=replace(SMALL, **changes), generator=seeded(seed))


def halves(count: int = 8, shape: tuple[int, int, int] = (1, 28, 28)) -> Batch:
    """Class 0 is white on the left, class 1 on the right."""
    labels = torch.arange(count) % 2
    images = torch.zeros(count, *shape)
    middle = shape[2] // 2
    images[labels == 0, :, :, :middle] = 1.0
    images[labels == 1, :, :, middle:] = 1.0
    return Batch(images, labels)
