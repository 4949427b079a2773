"""Privacy of the sampled Gaussian mechanism by Renyi divergences: Mironov, Talwar, Zhang 2019."""

import math

import numpy as np
from scipy.special import gammaln, logsumexp

ORDERS = (*range(2, 65), *range(72, 257, 8), 320, 384, 512, 768, 1024)


def sampled_gaussian_divergence(order: int, sample_rate: float, noise_multiplier: float) -> float:
    """Renyi divergence, in nats, of one step: a sum of vectors of norm <= 1, each there with probability sample_rate,
    plus normal noise of deviation noise_multiplier; adding or removing a vector (Mironov et al. 2019, sec. 3.3).

    order: an integer >= 2.
    """
    k = np.arange(order + 1)
    log_binomial = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1)
    log_there = k * math.log(sample_rate)
    log_absent = (order - k) * math.log1p(-sample_rate) if sample_rate < 1 else np.where(k == order, 0.0, -np.inf)
    return float(logsumexp(log_binomial + log_there + log_absent + k * (k - 1) / (2 * noise_multiplier**2))) / (
        order - 1
    )


def epsilon_of_divergences(divergences: dict[int, float], delta: float) -> float:
    """The least epsilon that the divergences, by order, promise at delta (Canonne, Kamath, Steinke 2020, prop. 12)."""
    return max(
        0.0,
        min(
            divergence + math.log1p(-1 / order) - (math.log(delta) + math.log(order)) / (order - 1)
            for order, divergence in divergences.items()
        ),
    )


def renyi_epsilon(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """An upper bound on the epsilon of `steps` steps at `delta`."""
    one = {order: sampled_gaussian_divergence(order, sample_rate, noise_multiplier) for order in ORDERS}
    return epsilon_of_divergences({order: steps * value for order, value in one.items()}, delta)
