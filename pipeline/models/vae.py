"""Conditional variational autoencoder (Kingma & Welling 2014; Sohn et al. 2015) with an importance-weighted bound
(Burda et al. 2016).

Sanity score: `python -m benchmarks.published_generators` (1-NN accuracy score beside class-wise probabilistic PCA).
"""

# B batch, C channels, H height = width, Z latent, P pixels = C * H * H

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.generators import Vae
from pipeline.models.continuous_bernoulli import continuous_bernoulli_log_density, continuous_bernoulli_mean
from pipeline.models.conv_blocks import ConvDecoder, ConvEncoder, draw_weights, label_rows
from pipeline.models.dense_stack import DenseStack
from pipeline.models.losses import Batch, Losses
from pipeline.row_noise import draw_normal

LABEL_DIM = 16
NUM_HIDDEN = 256
MIN_SIGMA = 1 / 256
"""One grey level: a smaller deviation would claim more than 8-bit pixels can tell."""


def kl_to_standard_normal(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, I)), (B,), in nats (Kingma & Welling 2014, appendix B)."""
    return _kl_by_dimension(mean_BZ, log_variance_BZ).sum(dim=1)


def kl_above_free_bits(mean_BZ: Tensor, log_variance_BZ: Tensor, free_bits: float) -> Tensor:
    """sum_j max(free_bits, mean over the batch of KL_j), a scalar in nats (Kingma et al. 2016)."""
    return _kl_by_dimension(mean_BZ, log_variance_BZ).mean(dim=0).clamp(min=free_bits).sum()


def _kl_by_dimension(mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    return 0.5 * (mean_BZ.square() + log_variance_BZ.exp() - 1 - log_variance_BZ)


def normal_log_density(z_BZ: Tensor, mean_BZ: Tensor, log_variance_BZ: Tensor) -> Tensor:
    """log N(z; mean, exp(log_variance)), (B,), in nats."""
    square = (z_BZ - mean_BZ).square() * (-log_variance_BZ).exp()
    return -0.5 * (square + log_variance_BZ + math.log(2 * math.pi)).sum(dim=1)


def importance_bound(
    log_joint: Callable[[Tensor], Tensor],
    mean_BZ: Tensor,
    log_variance_BZ: Tensor,
    k: int,
    generator: torch.Generator,
    *,
    beta: float = 1.0,
) -> Tensor:
    """log (1/k) sum_i p(x, z_i) / q(z_i | x) with z_i ~ q = N(mean, exp(log_variance))   (Burda et al. 2016, eq. 8).

    log_joint: z (B, Z) to log p(x, z) (B,).  Returns (B,), in nats: on average the ELBO for k = 1, rising with k
    towards log p(x), exact for any k where q is the true posterior.  One sample is held at a time (k for the gradient).
    beta: power of q(z|x), for a log_joint whose prior has that power, too; other than 1 there is no bound.
    """
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}: the bound needs at least one sample")
    total = torch.full_like(mean_BZ[:, 0], -math.inf)
    for _ in range(k):
        z_BZ = sample_normal(mean_BZ, log_variance_BZ, generator)
        log_q = beta * normal_log_density(z_BZ, mean_BZ, log_variance_BZ)
        total = torch.logaddexp(total, log_joint(z_BZ) - log_q)
    return total - math.log(k)


def sample_normal(mean_BZ: Tensor, log_variance_BZ: Tensor, generator: torch.Generator) -> Tensor:
    return mean_BZ + draw_normal(mean_BZ.shape, generator, mean_BZ) * (0.5 * log_variance_BZ).exp()


def _log_prior(z_BZ: Tensor) -> Tensor:
    return normal_log_density(z_BZ, torch.zeros_like(z_BZ), torch.zeros_like(z_BZ))


class ConditionalVAE(nn.Module):
    """p(x | z, y) and q(z | x, y) by convolutions, p(z) = N(0, I); the label enters both through an embedding.

    With the Bernoulli likelihood, values between 0 and 1 are probabilities of a binarised pixel: the bound is that of
    the binarised image, averaged over binarisations.  The continuous Bernoulli is a density of the grey values
    themselves.  With the Gaussian one, all pixels share a learned deviation.
    `generator` draws the weights; without it they start from a fixed seed, to be overwritten by load_state_dict.
    hidden_sizes: of a dense encoder in place of the convolutions, which unrolling.py lets start from a DBN.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        config: Vae,
        hidden_sizes: Sequence[int] = (),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.image_shape, self.num_classes, self.config = image_shape, num_classes, config
        self.hidden_sizes = list(hidden_sizes)
        with torch.device("meta"):  # no draw from the global generator
            self.encoder_label = nn.Embedding(num_classes + 1, LABEL_DIM)
            self.encoder: ConvEncoder | DenseStack = (
                DenseStack([math.prod(image_shape), *hidden_sizes])
                if hidden_sizes
                else ConvEncoder(image_shape, config.width)
            )
            self.encoder_hidden = nn.Linear(self.encoder.num_features + LABEL_DIM, NUM_HIDDEN)
            self.posterior = nn.Linear(NUM_HIDDEN, 2 * config.latent_dim)
            self.decoder_label = nn.Embedding(num_classes + 1, LABEL_DIM)
            self.decoder_hidden = nn.Linear(config.latent_dim + LABEL_DIM, NUM_HIDDEN)
            self.decoder = ConvDecoder(image_shape, config.width, NUM_HIDDEN)
        self.to_empty(device="cpu")
        draw_weights(self, generator or torch.Generator().manual_seed(0))
        with torch.no_grad():
            self.posterior.weight.mul_(0.1)  # q(z|x) starts close to the prior
        self.raw_sigma = nn.Parameter(torch.tensor(-1.5)) if config.likelihood == "gaussian" else None

    def encode(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x, y), each (B, Z)."""
        y = self.encoder_label(label_rows(labels, self.num_classes))
        h = F.relu(self.encoder_hidden(torch.cat([self.encoder(images), y], dim=1)))
        mean, log_variance = self.posterior(h).float().chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor, labels: Tensor) -> Tensor:
        """Means of p(x | z, y), (B, C, H, H) in [0, 1]."""
        logits = self._decode_logits(z, labels)
        if self.config.likelihood == "continuous_bernoulli":
            return continuous_bernoulli_mean(logits)
        return torch.sigmoid(logits)

    def sigma(self) -> Tensor:
        """The pixels' shared standard deviation (Gaussian likelihood only)."""
        if self.raw_sigma is None:
            raise ValueError(f"the {self.config.likelihood} likelihood has no sigma: set vae.likelihood to gaussian")
        return MIN_SIGMA + F.softplus(self.raw_sigma)

    def log_likelihood(self, images: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        """log p(x | z, y), (B,), in nats."""
        logits = self._decode_logits(z, labels)
        if self.config.likelihood == "continuous_bernoulli":
            return continuous_bernoulli_log_density(images, logits).flatten(1).sum(dim=1)
        if self.raw_sigma is None:
            return -F.binary_cross_entropy_with_logits(logits, images, reduction="none").flatten(1).sum(dim=1)
        sigma = self.sigma()
        square = ((images - torch.sigmoid(logits)) / sigma).square().flatten(1).sum(dim=1)
        return -0.5 * square - images[0].numel() * (sigma.log() + 0.5 * math.log(2 * math.pi))

    def beta(self, step: int) -> float:
        """Weight of the KL term: rises linearly from 0 to config.beta over config.warmup_steps."""
        return self.config.beta * min(1.0, step / self.config.warmup_steps if self.config.warmup_steps else 1.0)

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        """total = reconstruction + beta(step) * kl, with free bits their kl_above_free_bits in place of kl.

        With iw_samples > 1 total = -importance_bound (at beta 1), whose gradient goes through the samples.
        Parts, in nats: reconstruction = -E log p(x|z), kl, elbo.
        """
        return self._losses(batch, self.beta(step), generator)

    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """As training_losses with the final beta, so that totals compare across steps."""
        return self._losses(batch, self.config.beta, generator)

    @torch.no_grad()
    def iwae_bound(self, images: Tensor, labels: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """Importance-weighted lower bound on log p(x | y) with k samples, (B,), in nats."""
        return importance_bound(self._log_joint(images, labels), *self.encode(images, labels), k, generator)

    @torch.no_grad()
    def log_weights(self, images: Tensor, labels: Tensor, k: int, generator: torch.Generator) -> Tensor:
        """log p(x, z | y) / q(z | x, y) of k draws z ~ q: (B, k), in nats, for `bound_by_importance`."""
        log_joint, posterior = self._log_joint(images, labels), self.encode(images, labels)
        return torch.stack([importance_bound(log_joint, *posterior, 1, generator) for _ in range(k)], dim=1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, labels: Tensor) -> Tensor:
        """Decoded posterior means, (B, C, H, H) in [0, 1]."""
        return self.decode(self.encode(images, labels)[0], labels)

    @torch.no_grad()
    def sample(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """One image per label, the decoder's mean for z ~ N(0, I): (B, C, H, H) in [0, 1]."""
        z = draw_normal((len(labels), self.config.latent_dim), generator)
        return self.decode(z, labels)

    def to_config(self) -> dict[str, Any]:
        """What from_config needs, as json."""
        config = {"image_shape": list(self.image_shape), "num_classes": self.num_classes, "config": asdict(self.config)}
        return config | ({"hidden_sizes": self.hidden_sizes} if self.hidden_sizes else {})

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """A model of the same shape, to be filled by load_state_dict."""
        channels, height, width = config["image_shape"]
        sizes = config.get("hidden_sizes", ())
        return cls((channels, height, width), config["num_classes"], config=Vae(**config["config"]), hidden_sizes=sizes)

    def _log_joint(self, images: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda z: self.log_likelihood(images, z, labels) + _log_prior(z)

    def _decode_logits(self, z: Tensor, labels: Tensor) -> Tensor:
        y = self.decoder_label(label_rows(labels, self.num_classes))
        h = F.relu(self.decoder_hidden(torch.cat([z, y], dim=1)))
        logits: Tensor = self.decoder(h)
        return logits.float()  # under autocast the loss stays in 32 bits

    def _losses(self, batch: Batch, beta: float, generator: torch.Generator) -> Losses:
        mean, log_variance = self.encode(batch.images, batch.labels)
        if self.config.iw_samples > 1:
            return self._importance_losses(batch, mean, log_variance, beta, generator)
        z = sample_normal(mean, log_variance, generator)
        reconstruction = -self.log_likelihood(batch.images, z, batch.labels).mean()
        kl = kl_to_standard_normal(mean, log_variance).mean()
        parts = {"reconstruction": reconstruction, "kl": kl, "elbo": -(reconstruction + kl)}
        charged = kl_above_free_bits(mean, log_variance, self.config.free_bits) if self.config.free_bits else kl
        return Losses(reconstruction + beta * charged, parts)

    def _importance_losses(
        self, batch: Batch, mean: Tensor, log_variance: Tensor, beta: float, generator: torch.Generator
    ) -> Losses:
        log_likelihoods: list[Tensor] = []

        def log_joint(z: Tensor) -> Tensor:
            log_likelihoods.append(self.log_likelihood(batch.images, z, batch.labels))
            return log_likelihoods[-1] + beta * _log_prior(z)

        bound = importance_bound(log_joint, mean, log_variance, self.config.iw_samples, generator, beta=beta).mean()
        reconstruction = -torch.stack(log_likelihoods).mean()
        kl = kl_to_standard_normal(mean, log_variance).mean()
        return Losses(-bound, {"reconstruction": reconstruction, "kl": kl, "elbo": -(reconstruction + kl)})
