"""A VAE whose label is a latent variable where it is unknown: model M2 of Kingma, Rezende, Mohamed & Welling 2014.

M1 is a VAE such as `ImportanceVAE`, on whose codes any classifier learns; M1+M2 is M2 with Gaussian inputs, drawn from
M1's posterior: 3.33 +- 0.14 % of MNIST's test images with 100 labels there (table 1).
`python -m benchmarks.published_generators --rows semi_supervised`.
"""

# B batch, V inputs, K classes, Z latent

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.importance_vae import TanhStack
from pipeline.models.losses import UNLABELLED, Batch, Losses, classification_losses
from pipeline.row_noise import draw_normal

VISIBLE = ("bernoulli", "gaussian")


class SemiSupervisedVAE(nn.Module):
    """p(y) uniform, p(z) = N(0, I), p(x | y, z); q(y | x) is a classifier, q(z | x, y) a diagonal Gaussian.

    visible: bernoulli (inputs in [0, 1], as probabilities) or gaussian (real ones, each with a mean and a variance).
    classification_weight: of the labelled images' cross-entropy, alpha / N of eq. 9; 0.1 there.
    """

    def __init__(
        self,
        num_inputs: int,
        num_classes: int,
        hidden: Sequence[int],
        latent_dim: int,
        *,
        visible: str = "bernoulli",
        classification_weight: float = 0.1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if visible not in VISIBLE:
            raise ValueError(f"visible must be one of {', '.join(VISIBLE)}, got {visible!r}: gaussian for real inputs")
        if classification_weight < 0:
            raise ValueError(f"classification_weight must be >= 0, got {classification_weight}: 0.1 is the paper's")
        self.sizes, self.num_classes, self.visible = [num_inputs, *hidden, latent_dim], num_classes, visible
        self.classification_weight = classification_weight
        num_outputs = num_inputs if visible == "bernoulli" else 2 * num_inputs
        self.classifier = TanhStack(num_inputs, hidden, num_classes, generator)
        self.encoder = TanhStack(num_inputs + num_classes, hidden, 2 * latent_dim, generator)
        self.decoder = TanhStack(latent_dim + num_classes, hidden[::-1], num_outputs, generator)

    def labelled_bound(self, x: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """-L(x, y) <= log p(x, y): (B, ...), (B,) -> (B,), in nats   (eq. 6), with one draw of z."""
        x_BV = x.flatten(1)
        noise_BZ = draw_normal((len(x_BV), self.sizes[-1]), generator, x_BV)
        return self._bound(x_BV, F.one_hot(labels, self.num_classes).to(x_BV), noise_BZ)

    def unlabelled_bound(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """-U(x) = sum_y q(y | x) (-L(x, y)) + H(q(y | x)) <= log p(x): (B, ...) -> (B,), in nats   (eq. 7).

        The sum goes over all classes, each with a draw of z of its own.
        """
        x_BV = x.flatten(1)
        log_q_BK = F.log_softmax(self.classifier(x_BV), dim=1)
        noise_BKZ = draw_normal((len(x_BV), self.num_classes, self.sizes[-1]), generator, x_BV)
        y_BKK = torch.eye(self.num_classes).to(x_BV).expand(len(x_BV), -1, -1)
        bound_BK = self._bound(x_BV[:, None].expand(-1, self.num_classes, -1), y_BKK, noise_BKZ)
        return (log_q_BK.exp() * (bound_BK - log_q_BK)).sum(dim=1)

    @torch.no_grad()
    def predict_log_probabilities(self, images: Tensor) -> Tensor:
        """log q(y | x): (B, ...) -> (B, K)."""
        return F.log_softmax(self.classifier(images.flatten(1)), dim=1)

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Minus the mean bound of the batch's images, labelled or not, plus the weighted cross-entropy   (eq. 8, 9).

        Parts: cross_entropy and accuracy (of labelled images); labelled_bound, unlabelled_bound where there are such.
        """
        labelled = batch.labels != UNLABELLED
        known, unknown = batch.images[labelled], batch.images[~labelled]
        bounds = {
            "labelled_bound": self.labelled_bound(known, batch.labels[labelled], generator),
            "unlabelled_bound": self.unlabelled_bound(unknown, generator),
        }
        classified = classification_losses(self.classifier(known.flatten(1)), batch.labels[labelled])
        total = -torch.cat(list(bounds.values())).mean() + self.classification_weight * classified.total
        parts = {name: bound.detach().mean() for name, bound in bounds.items() if len(bound)}
        return Losses(total, classified.parts | parts)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return self.training_losses(batch, step, generator)

    def to_config(self) -> dict[str, Any]:
        """What `from_config` builds the same network from, as json."""
        return {
            "sizes": self.sizes,
            "num_classes": self.num_classes,
            "visible": self.visible,
            "classification_weight": self.classification_weight,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        num_inputs, *hidden, latent_dim = config["sizes"]
        return cls(
            num_inputs,
            config["num_classes"],
            hidden,
            latent_dim,
            visible=config["visible"],
            classification_weight=config["classification_weight"],
        )

    def _bound(self, x: Tensor, y: Tensor, noise: Tensor) -> Tensor:
        """log p(x | y, z) + log p(y) - KL(q(z | x, y) || p(z)): (..., V), (..., K), (..., Z) -> (...)."""
        mean, log_variance = self.encoder(torch.cat([x, y], dim=-1)).chunk(2, dim=-1)
        outputs = self.decoder(torch.cat([mean + noise * (0.5 * log_variance).exp(), y], dim=-1))
        kl: Tensor = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=-1)
        log_prior = -math.log(self.num_classes)
        return self._log_likelihood(x, outputs) + log_prior - kl

    def _log_likelihood(self, x: Tensor, outputs: Tensor) -> Tensor:
        if self.visible == "bernoulli":
            nats: Tensor = x * outputs - F.softplus(outputs)
            return nats.sum(dim=-1)
        mean, log_variance = outputs.chunk(2, dim=-1)
        square = (x - mean).square() * (-log_variance).exp()
        return -0.5 * (square + log_variance + math.log(2 * math.pi)).sum(dim=-1)
