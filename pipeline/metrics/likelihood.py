"""Log-likelihoods in nats: of an RBM given an estimate of log Z, and Salakhutdinov & Murray's (2008) bound for a DBN.

Both are as good as the estimate of log Z, which must rest on enough effective chains. That estimate is low in
expectation, so the likelihoods are high: `estimate_log_partition_downwards` gives the other side.
"""

# B images, V visible units, H hidden units

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.metrics.annealing import LogPartition
from pipeline.metrics.score import Z_95, Bound, Score
from pipeline.models.dbn import DBN
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli
from pipeline.models.updown import UntiedDBN
from pipeline.row_noise import part_generator

MIN_ESS = 50.0
IMAGES_AT_ONCE = 1000


@torch.no_grad()
def compute_log_likelihood(rbm: RBM, images: Tensor, partition: LogPartition, *, min_ess: float = MIN_ESS) -> Score:
    """Mean log p(v) = -F(v) - log Z of binary images, in nats; the interval is that of log Z.

    images: (B, ...) zeros and ones.  min_ess: lower it only for a curve that decides nothing.
    Raises ValueError when the weights behind log Z have an effective sample size below `min_ess`.
    """
    _check(partition, images, min_ess)
    parts = [rbm.free_energy(part.flatten(1)).double() for part in images.to(rbm.weight).split(IMAGES_AT_ONCE)]
    data = -float(torch.cat(parts).mean())
    return Score(value=data - partition.log_z, low=data - partition.high, high=data - partition.low)


@torch.no_grad()
def bound_log_likelihood(
    dbn: DBN | UntiedDBN,
    images: Tensor,
    partition: LogPartition,
    *,
    num_samples: int,
    seed: int,
    min_ess: float = MIN_ESS,
) -> Bound:
    """E_Q[log p*(v, h)] + H(Q) - log Z_top <= mean log p(v), in nats   (Salakhutdinov & Murray 2008, sec. 4).

    Q goes up by the recognition weights, factorial in each layer given the one below; the top RBM's hidden units are
    summed out. partition: log Z of the top layer.  num_samples: draws from Q for each image, >= 2.
    Raises ValueError as `compute_log_likelihood` does, and when a layer is not a dense one of Bernoulli units.
    """
    _check(partition, images, min_ess)
    if num_samples < 2:
        raise ValueError(f"num_samples must be >= 2, for a standard error, got {num_samples}")
    draws_SB = draw_bounds(dbn, images, num_samples=num_samples, seed=seed)
    value = float(draws_SB.mean()) - partition.log_z
    error = float(draws_SB.var(0).sum().sqrt()) / (len(images) * math.sqrt(num_samples))
    return Bound(
        value=value,
        low=value - math.hypot(Z_95 * error, partition.high - partition.log_z),
        high=value + math.hypot(Z_95 * error, partition.log_z - partition.low),
        standard_error=error,
        num_samples=num_samples,
    )


@torch.no_grad()
def draw_bounds(dbn: DBN | UntiedDBN, images: Tensor, *, num_samples: int, seed: int) -> Tensor:
    """`num_samples` draws of every image's bound plus log Z of the top: (num_samples, B) float64, in nats."""
    model = dbn if isinstance(dbn, UntiedDBN) else UntiedDBN.from_dbn(dbn)
    draws = []
    for first in range(0, len(images), IMAGES_AT_ONCE):
        v = images[first : first + IMAGES_AT_ONCE].flatten(1).to(model.top.weight)
        generator = part_generator(seed, "bound", first=first, total=len(images), device=v.device)
        draws.append(torch.stack([_draw_bound(model, v, generator) for _ in range(num_samples)]))
    return torch.cat(draws, 1)


def say_refusal(ess: float, num_chains: int, num_temperatures: int, *, min_ess: float = MIN_ESS) -> str:
    """Why an estimate of log Z that rests on too few effective chains is no result."""
    return (
        f"log Z rests on {ess:.1f} effective chains of {num_chains}, fewer than {min_ess:g}: "
        f"raise num_temperatures (now {num_temperatures}) or num_chains"
    )


def _draw_bound(model: UntiedDBN, v_BV: Tensor, generator: torch.Generator) -> Tensor:
    """log p(v | h) - log Q(h | v) summed over the layers below the top, minus the top's free energy: (B,) float64."""
    total = torch.zeros(len(v_BV), dtype=torch.float64, device=v_BV.device)
    for layer in model.layers():
        up_BH = layer.up(v_BV)
        h_BH = sample_bernoulli(torch.sigmoid(up_BH), generator)
        down_BV = layer.down(h_BH)
        # -log Q of this draw, not the entropy itself: where Q is the true posterior, the draws then do not scatter.
        total += (F.softplus(up_BH) - up_BH * h_BH).sum(1, dtype=torch.float64)
        total += (v_BV * down_BV - F.softplus(down_BV)).sum(1, dtype=torch.float64)
        v_BV = h_BH
    return total - model.top.free_energy(v_BV)


def _check(partition: LogPartition, images: Tensor, min_ess: float) -> None:
    if partition.ess < min_ess:
        raise ValueError(say_refusal(partition.ess, partition.num_chains, partition.num_temperatures, min_ess=min_ess))
    if not bool(((images == 0) | (images == 1)).all()):
        raise ValueError("log p(v) is that of binary images, got values between 0 and 1: draw them, or round them")
