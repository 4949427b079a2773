"""Membership inference by somebody who has the generator itself, not only its images: what it says of an image.

Of a VAE the evidence lower bound and the reconstruction (Hilprecht et al. 2019, "reconstruction attack"), of a GAN its
discriminator (Hayes et al. 2019, LOGAN, "white-box").
"""

# B batch of images

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.data.arrays import Images
from pipeline.metrics.membership import Scored
from pipeline.metrics.score import Floats
from pipeline.models.losses import UNLABELLED
from pipeline.models.vae import ConditionalVAE, kl_to_standard_normal
from pipeline.training.generators import Model
from pipeline.training.stream import in_batches

BATCH = 500


def model_attacks(model: Model, members: Images, others: Images) -> dict[str, Scored]:
    """Scores by attack. The attacker knows no labels: an image counts as the class under which it scores highest."""
    scores: dict[str, Callable[[Tensor, Tensor], Tensor]]
    if isinstance(model, ConditionalVAE):
        scores = {"bound": _bound(model), "reconstruction": _reconstruction(model)}
    else:
        scores = {"discriminator": model.discriminator}
    return {
        f"{name} of the model": Scored(*(_best(score, images, model.num_classes) for images in (members, others)))
        for name, score in scores.items()
    }


def _bound(model: ConditionalVAE) -> Callable[[Tensor, Tensor], Tensor]:
    """log p(x | z, y) - KL(q(z | x, y) || p(z)) at the posterior's mean, (B,), in nats: no draw blurs it."""

    def score(images: Tensor, labels: Tensor) -> Tensor:
        mean, log_variance = model.encode(images, labels)
        return model.log_likelihood(images, mean, labels) - kl_to_standard_normal(mean, log_variance)

    return score


def _reconstruction(model: ConditionalVAE) -> Callable[[Tensor, Tensor], Tensor]:
    """-squared error of the decoded posterior mean, (B,)."""
    return lambda images, labels: -(images - model.reconstruct(images, labels)).square().flatten(1).sum(dim=1)


@torch.no_grad()
def _best(score: Callable[[Tensor, Tensor], Tensor], images: Images, num_classes: int) -> Floats:
    """(N,): the highest score of each image over all classes and none."""
    best = []
    for batch in in_batches(torch.from_numpy(images), torch.zeros(len(images), dtype=torch.int64), BATCH):
        by_label = [score(batch.images, batch.labels + label) for label in range(UNLABELLED, num_classes)]
        best.append(torch.stack(by_label).amax(dim=0))
    return np.asarray(torch.cat(best).double().numpy())
