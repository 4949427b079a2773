"""Trains the VAEs whose codes `represent` looks at, one a seed."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from pipeline.applications.image_fit import Effort, FitSettings, fit_images, image_shape
from pipeline.config.represent import Represent
from pipeline.data.arrays import Images
from pipeline.metrics.probes import fit_mixture
from pipeline.metrics.score import Floats
from pipeline.models.dense_vae import DenseVAE
from pipeline.models.mixture_vae import MixtureVAE
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.stream import as_tensor

BLOCK = 1000
"""Images at a time."""


@dataclass(frozen=True)
class Representation:
    """elbo: of the validation images, in nats, by which a seed is chosen."""

    model: DenseVAE
    elbo: float


def fit_representation(
    settings: Represent, images: Images, validation: Images, num_clusters: int, how: FitSettings, number: int
) -> Representation:
    """VAE `number` of uint8 images (N, C, H, W), without labels. Raises ValueError when a loss is not finite."""
    how = replace(how, seed=derive_seed(how.seed, "represent", number))
    sizes: dict[str, Any] = {
        "hidden_sizes": settings.hidden_sizes,
        "latent_dim": settings.latent_dim,
        "beta": settings.beta,
        "warmup_steps": settings.steps // 3,
    }
    effort = Effort(steps=settings.steps, batch_size=settings.batch_size, lr=settings.lr)
    vae = DenseVAE(image_shape(images), **sizes, generator=make_generator(how.seed, "weights"))
    history = fit_images(vae, images, effort, how, f"vae-{number}", validation)
    if settings.prior == "standard":
        return Representation(vae, history[-1]["val/elbo"])
    mixture = fit_mixture(
        encode_images(vae, images), num_clusters, derive_seed(how.seed, "mixture") % 2**32, covariance="diag"
    )
    model = MixtureVAE(image_shape(images), **sizes | {"beta": 1.0, "warmup_steps": 0}, num_components=num_clusters)
    parts = (mixture.weights_, mixture.means_, mixture.covariances_)
    model.start_from(vae, *(torch.from_numpy(part).float() for part in parts))
    history = fit_images(
        model, images, replace(effort, steps=settings.mixture_steps), how, f"mixture-{number}", validation
    )
    return Representation(model, history[-1]["val/elbo"])


@torch.no_grad()
def encode_images(model: DenseVAE, images: Images) -> Floats:
    """Means of q(z | x) of uint8 images, (N, Z)."""
    blocks = [as_tensor(images[first : first + BLOCK]).float() / 255 for first in range(0, len(images), BLOCK)]
    return np.concatenate([model.encode(block)[0].numpy() for block in blocks])
