"""Posterior means of an RBM's pixels given spoilt ones, by Gibbs sampling and by mean field."""

# B batch, V pixels

import torch
from torch import Tensor

from pipeline.models.rbm import RBM


@torch.no_grad()
def gibbs_posterior_mean(
    rbm: RBM, evidence_BV: Tensor, rounds: int, generator: torch.Generator, *, burn_in: int = 0
) -> Tensor:
    """E[v | y] = mean over `rounds` of P(v = 1 | h, y), h from a Gibbs chain of p(v, h | y): (B, V) in [0, 1].

    evidence: log p(y | v = 1) - log p(y | v = 0) of each pixel, which adds to its bias; a large one clamps it.
    The chain starts from the pixels' own evidence, and its first `burn_in` rounds are not counted.
    Raises ValueError unless units are Bernoulli.
    """
    require_binary(rbm)
    probability = torch.sigmoid(evidence_BV)
    total = torch.zeros_like(probability)
    for number in range(burn_in + rounds):
        v = rbm.units.sample(probability, rbm.log_variance, generator)
        probability = pixel_posterior(rbm, rbm.sample_hidden(v, generator), evidence_BV)
        if number >= burn_in:
            total += probability
    return total / rounds


@torch.no_grad()
def mean_field_posterior(rbm: RBM, evidence_BV: Tensor, rounds: int) -> Tensor:
    """A fixed point of m = sigmoid(evidence + b + W sigmoid(c + m W)), (B, V) in [0, 1], after `rounds`.

    The factorised q(v) q(h) that is nearest to p(v, h | y) in KL(q || p), locally (Peterson & Anderson 1987).
    """
    require_binary(rbm)
    mean = torch.sigmoid(evidence_BV)
    for _ in range(rounds):
        mean = pixel_posterior(rbm, rbm.hidden_probabilities(mean), evidence_BV)
    return mean


def pixel_posterior(rbm: RBM, h: Tensor, evidence_BV: Tensor) -> Tensor:
    """P(v = 1 | h, y): (B, H) -> (B, V)."""
    return torch.sigmoid(h @ rbm.weight.t() + rbm.visible_bias + evidence_BV)


def require_binary(rbm: RBM) -> None:
    if (rbm.visible, rbm.hidden) != ("bernoulli", "bernoulli"):
        raise ValueError(
            f"pixels are denoised by an RBM of bernoulli units, got {rbm.visible} visible, {rbm.hidden} hidden ones: "
            "train one with visible and hidden bernoulli"
        )
