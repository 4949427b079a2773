"""Variational autoencoder of dense layers with one stochastic layer: Kingma & Welling 2014, Burda et al. 2016.

784-200-200-50 on binary MNIST: a test bound of -86.76 nats as a VAE and -84.78 with 50 importance samples (Burda et al.
2016, table 1). `python -m benchmarks.published_generators --rows vae_bound`.
"""

# B batch, V inputs, H units of a hidden layer, Z latent, K importance samples

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.losses import Batch, Losses
from pipeline.models.precision import widen
from pipeline.models.vae import kl_to_standard_normal
from pipeline.row_noise import draw_normal

EDGE = 1e-3
"""Of the means that biases start from: a pixel that is never on has a logit of -6.9."""


class TanhStack(nn.Module):
    """x -> tanh(W x + b), layer by layer, then `num_outputs` linear ones.

    generator: draws normal weights of Glorot & Bengio's (2010) variance; all are zero without it.
    """

    def __init__(
        self, num_inputs: int, hidden: Sequence[int], num_outputs: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        sizes = [num_inputs, *hidden]
        with torch.device("meta"):  # no draw from the global generator
            self.layers = nn.ModuleList(nn.Linear(below, above) for below, above in pairwise(sizes))
            self.top = nn.Linear(sizes[-1], num_outputs)
        self.to_empty(device="cpu")
        with torch.no_grad():
            for parameter in self.parameters():
                std = math.sqrt(2 / sum(parameter.shape)) if parameter.ndim == 2 and generator is not None else 0.0
                parameter.normal_(0, std, generator=generator) if std else parameter.zero_()

    def hidden(self, x: Tensor) -> Tensor:
        """Activities of the last hidden layer: (..., num_inputs) -> (..., H)."""
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """(..., num_inputs) -> (..., num_outputs)."""
        return widen(self.top(self.hidden(x)))


class ImportanceVAE(nn.Module):
    """p(x | z) of independent Bernoulli pixels, q(z | x) a diagonal Gaussian, p(z) = N(0, I); tanh units, no labels.

    Values between 0 and 1 are probabilities of a binary pixel, as in `ConditionalVAE`.  hidden: units of the encoder's
    layers; the decoder has them in reverse.  iw_samples: k of the importance-weighted bound to train by; 1 takes the
    evidence lower bound, with the KL in closed form.
    """

    def __init__(
        self,
        num_inputs: int,
        hidden: Sequence[int],
        latent_dim: int,
        *,
        iw_samples: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if iw_samples < 1:
            raise ValueError(f"iw_samples must be >= 1, got {iw_samples}: 1 trains by the evidence lower bound")
        self.sizes, self.iw_samples = [num_inputs, *hidden, latent_dim], iw_samples
        self.encoder = TanhStack(num_inputs, hidden, 2 * latent_dim, generator)
        self.decoder = TanhStack(latent_dim, hidden[::-1], num_inputs, generator)

    @torch.no_grad()
    def start_at_means(self, images: Tensor) -> None:
        """Biases of the pixels become the logits of their means: (N, ...) in [0, 1]."""
        self.decoder.top.bias.copy_(torch.logit(images.flatten(1).mean(0).clamp(EDGE, 1 - EDGE)))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of q(z | x): (B, ...) -> (B, Z) each."""
        mean, log_variance = self.encoder(images.flatten(1)).chunk(2, dim=1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """Means of p(x | z): (..., Z) -> (..., V) in [0, 1]."""
        return torch.sigmoid(self.decoder(z))

    def log_likelihood(self, images: Tensor, z_BKZ: Tensor) -> Tensor:
        """log p(x | z), (B, K), in nats.

        sum_i x_i l_i - softplus(l_i) with logits l = W h + b: the first sum is (x W) . h + x . b, for all K at once.
        """
        x_BV, h_BKH = images.flatten(1), self.decoder.hidden(z_BKZ)
        top = self.decoder.top
        on_BK = torch.einsum("bkh,bh->bk", h_BKH, x_BV @ top.weight) + (x_BV @ top.bias)[:, None]
        return widen(on_BK) - F.softplus(widen(top(h_BKH))).sum(dim=2)

    def log_weights(self, images: Tensor, labels: Tensor, k: int, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """log p(x, z) / q(z | x) of k draws z ~ q: (B, k), in nats, with the gradient through the draws.

        labels: of no effect; it is there for models that have labels.
        """
        mean_BZ, log_variance_BZ = self.encode(images)
        noise_BKZ = draw_normal((len(mean_BZ), k, mean_BZ.shape[1]), generator, mean_BZ)
        z_BKZ = mean_BZ[:, None] + noise_BKZ * (0.5 * log_variance_BZ).exp()[:, None]
        densities_BK = 0.5 * (noise_BKZ.square() + log_variance_BZ[:, None] - z_BKZ.square()).sum(dim=2)
        return self.log_likelihood(images, z_BKZ) + densities_BK

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Minus the bound, in nats an image; parts: bound, and with iw_samples 1 reconstruction and kl."""
        if self.iw_samples > 1:
            log_weights_BK = self.log_weights(batch.images, batch.labels, self.iw_samples, generator)
            bound = (log_weights_BK.logsumexp(dim=1) - math.log(self.iw_samples)).mean()
            return Losses(-bound, {"bound": bound.detach()})
        mean, log_variance = self.encode(batch.images)
        z = mean + draw_normal(mean.shape, generator, mean) * (0.5 * log_variance).exp()
        reconstruction = -self.log_likelihood(batch.images, z[:, None]).mean()
        kl = kl_to_standard_normal(mean, log_variance).mean()
        total = reconstruction + kl
        return Losses(total, {"bound": -total.detach(), "reconstruction": reconstruction, "kl": kl})

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return self.training_losses(batch, step, generator)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """The decoder's means for z ~ N(0, I): (count, V) in [0, 1]."""
        return self.decode(draw_normal((count, self.sizes[-1]), generator, self.decoder.top.weight))

    def to_config(self) -> dict[str, Any]:
        """What `from_config` builds the same network from, as json."""
        return {"sizes": self.sizes, "iw_samples": self.iw_samples}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        num_inputs, *hidden, latent_dim = config["sizes"]
        return cls(num_inputs, hidden, latent_dim, iw_samples=config["iw_samples"])
