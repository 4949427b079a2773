"""A VAE whose prior is a mixture of Gaussians, a cluster each: VaDE (Jiang, Zheng, Tan, Tang, Zhou 2017).

94.5 % of MNIST's digits are in the cluster of their class there. `python -m benchmarks.applications --rows represent`.
"""

# B batch, Z latent, K components

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.dense_vae import DenseVAE
from pipeline.models.vae import normal_log_density


class MixtureVAE(DenseVAE):
    """A DenseVAE with p(z) = sum_c pi_c N(mu_c, diag(sigma_c^2)), which learns along with the networks.

    All components are equal until `start_from` (or load_state_dict).
    """

    def __init__(self, *arguments: Any, num_components: int, **others: Any) -> None:
        self._num_components = num_components
        super().__init__(*arguments, **others)

    @torch.no_grad()
    def start_from(self, vae: DenseVAE, weights_K: Tensor, means_KZ: Tensor, variances_KZ: Tensor) -> None:
        """The networks of a trained VAE of the same sizes, and a mixture that was fitted to its codes."""
        self.load_state_dict(vae.state_dict(), strict=False)
        self.prior_logits.copy_(weights_K.log())
        self.prior_means.copy_(means_KZ)
        self.prior_log_variances.copy_(variances_KZ.log())

    def log_responsibilities(self, z: Tensor) -> Tensor:
        """log p(c | z): (B, Z) -> (B, K)."""
        components = zip(self.prior_means, self.prior_log_variances, strict=True)
        log_densities = [normal_log_density(z, mean, log_variance.expand_as(z)) for mean, log_variance in components]
        return F.log_softmax(F.log_softmax(self.prior_logits, 0) + torch.stack(log_densities, dim=1), dim=1)

    def kl(self, mean: Tensor, log_variance: Tensor, z: Tensor) -> Tensor:
        """KL(q(z | x) q(c | x) || p(z | c) p(c)) with q(c | x) = p(c | z) at the z that was drawn (eqs. 12, 16)."""
        return mixture_kl(
            mean,
            log_variance,
            self.log_responsibilities(z),
            F.log_softmax(self.prior_logits, 0),
            self.prior_means,
            self.prior_log_variances,
        )

    @torch.no_grad()
    def assign(self, z: Tensor) -> Tensor:
        """The likeliest component of each code: (B, Z) -> (B,)."""
        return self.log_responsibilities(z).argmax(1)

    def to_config(self) -> dict[str, Any]:
        return super().to_config() | {"num_components": self._num_components}

    def _add_parts(self) -> None:
        count = self._num_components
        self.prior_logits = nn.Parameter(torch.empty(count))
        self.prior_means = nn.Parameter(torch.empty(count, self.latent_dim))
        self.prior_log_variances = nn.Parameter(torch.empty(count, self.latent_dim))

    def _set_parts(self) -> None:
        for parameter in (self.prior_logits, self.prior_means, self.prior_log_variances):
            parameter.zero_()


def mixture_kl(
    mean_BZ: Tensor,
    log_variance_BZ: Tensor,
    log_shares_BK: Tensor,
    log_weights_K: Tensor,
    means_KZ: Tensor,
    log_variances_KZ: Tensor,
) -> Tensor:
    """KL(N(mean, exp(log_variance)) x shares || N(mu_c, sigma_c^2) x weights), over z and c: (B,), in nats."""
    square_BKZ = (mean_BZ[:, None] - means_KZ).square() + log_variance_BZ.exp()[:, None]
    terms_BKZ = log_variances_KZ - log_variance_BZ[:, None] + square_BKZ * (-log_variances_KZ).exp() - 1
    gaussian_BK = 0.5 * terms_BKZ.sum(2)
    return (log_shares_BK.exp() * (gaussian_BK + log_shares_BK - log_weights_K)).sum(1)
