"""Pseudo-likelihood against enumeration and closed forms; it tells the true model from a disturbed one."""

import math

import torch
from torch import Tensor

from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.pseudo_likelihood import negative_pseudo_likelihood, unit_losses
from pipeline.models.rbm import RBM


def make_rbm(visible: str = "bernoulli") -> RBM:
    rbm = RBM(5, 3, visible=visible)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in rbm.parameters():
            parameter.normal_(0, 0.8, generator=generator)
    return rbm


def all_states(count: int) -> Tensor:
    return (torch.arange(2**count)[:, None] >> torch.arange(count) & 1).float()


@torch.no_grad()
def test_bernoulli_conditionals_match_the_enumerated_joint() -> None:
    rbm, v, h = make_rbm(), all_states(5), all_states(3)
    joint = torch.stack([torch.exp(-rbm.energy(v, state.expand(len(v), 3))) for state in h]).sum(0)
    marginal = joint / joint.sum()
    for unit in range(5):
        partner = torch.arange(len(v)) ^ (1 << unit)
        expected = -torch.log(marginal / (marginal + marginal[partner]))
        found = unit_losses(rbm, v, torch.full((len(v),), unit))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_gaussian_conditionals_match_the_mixture_over_hidden_states() -> None:
    rbm, h = make_rbm("gaussian"), all_states(3)
    v = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    for unit in range(5):
        without = v.clone()
        without[:, unit] = 0
        means = rbm.visible_bias[unit] + h @ rbm.weight[unit]
        # p(h, v_without_i), the unit integrated out: its Gaussian factor leaves exp((mean^2 - b^2) / 2)
        log_weights = torch.stack([-rbm.energy(without, state.expand(20, 3)) for state in h], 1)
        log_weights = log_weights + 0.5 * means.square()
        log_density = -0.5 * (v[:, unit, None] - means).square() - 0.5 * math.log(2 * math.pi)
        expected = -(torch.logsumexp(log_weights + log_density, 1) - torch.logsumexp(log_weights, 1))
        found = unit_losses(rbm, v, torch.full((20,), unit))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_untrained_model_scores_a_coin_a_pixel_also_with_convolutions() -> None:
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    for model in (RBM(64, 4), ConvRBM((1, 8, 8), 2, 3, pool_size=2)):
        found = negative_pseudo_likelihood(model, x, torch.Generator().manual_seed(3))
        torch.testing.assert_close(found, torch.full((6,), 64 * math.log(2)), atol=1e-3, rtol=1e-3)


def test_the_true_model_scores_better_than_a_disturbed_one() -> None:
    rbm, generator = make_rbm(), torch.Generator().manual_seed(4)
    data = rbm.gibbs(torch.zeros(3000, 5), 100, generator)
    own = negative_pseudo_likelihood(rbm, data, torch.Generator().manual_seed(5)).mean()
    with torch.no_grad():
        rbm.weight.add_(0.7)
    assert own < negative_pseudo_likelihood(rbm, data, torch.Generator().manual_seed(5)).mean()
