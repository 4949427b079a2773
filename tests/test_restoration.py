"""Oracles: closed forms, the conditional mean of a joint Gaussian, SSIM written as loops."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.metrics.linear_mmse import (
    Moments,
    estimate_from_noise,
    estimate_lost,
    fit_moments,
    salt_and_pepper_variance,
)
from pipeline.metrics.restoration import psnr, ssim


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_moments(size: int = 6) -> Moments:
    factor = torch.randn(size, size, generator=seeded(), dtype=torch.float64)
    return Moments(torch.rand(size, generator=seeded(1), dtype=torch.float64), factor @ factor.t())


def test_psnr_is_that_of_the_pooled_error() -> None:
    clean = torch.zeros(2, 1, 4, 4)
    restored = torch.stack([torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), 0.3)])
    score = psnr(clean, restored, np.random.default_rng(0))
    assert score.value == pytest.approx(10 * math.log10(1 / 0.05))
    assert score.low < score.value < score.high


def ssim_by_loops(x: Tensor, y: Tensor) -> float:
    """Of one channel, the formula of the paper at every place of the window."""
    weights = np.array([[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / 4.5) for i in range(11)] for j in range(11)])
    weights /= weights.sum()
    values = []
    for i in range(len(x) - 10):
        for j in range(len(x) - 10):
            a, b = (image[i : i + 11, j : j + 11].double().numpy() for image in (x, y))
            mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
            var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
            both = (weights * (a - mean_a) * (b - mean_b)).sum()
            top = (2 * mean_a * mean_b + 0.01**2) * (2 * both + 0.03**2)
            values.append(top / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2)))
    return float(np.mean(values))


def test_ssim_matches_its_formula() -> None:
    x, y = torch.rand(2, 3, 14, 14, generator=seeded()), torch.rand(2, 3, 14, 14, generator=seeded(1))
    expected = [np.mean([ssim_by_loops(x[n, c], y[n, c]) for c in range(3)]) for n in range(2)]
    assert ssim(x, y).tolist() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))


def test_moments_are_those_of_numpy() -> None:
    images = torch.rand(20, 1, 2, 3, generator=seeded())
    moments = fit_moments(images).with_ridge(0.1)
    rows = images.flatten(1).double().numpy()
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, bias=True) + 0.1 * np.eye(6))
    np.testing.assert_allclose(moments.mean, rows.mean(0))


def test_the_linear_estimate_is_the_conditional_mean_of_a_joint_gaussian() -> None:
    moments, sigma = some_moments(), 0.7
    y = torch.randn(5, 6, generator=seeded(2), dtype=torch.float64)
    # x | y has the precision K + I / sigma^2 and the mean that weighs prior and observation by theirs
    precision = torch.linalg.inv(moments.covariance)
    posterior = torch.linalg.inv(precision + torch.eye(6, dtype=torch.float64) / sigma**2)
    expected = (y / sigma**2 + precision @ moments.mean) @ posterior
    variance = torch.full((6,), sigma**2)
    estimate = estimate_from_noise(moments, y, gain=1.0, offset=0.0, variance=variance)
    torch.testing.assert_close(estimate, expected, rtol=1e-5, atol=1e-6)


def test_lost_pixels_are_the_conditional_mean_of_a_joint_gaussian() -> None:
    moments = some_moments()
    y = torch.randn(2, 6, generator=seeded(2), dtype=torch.float64)
    lost = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 1]]).bool()
    restored = estimate_lost(moments, y, lost)
    for row, gone, found in zip(y, lost, restored, strict=True):
        kept = ~gone
        across, within = moments.covariance[gone][:, kept], moments.covariance[kept][:, kept]
        expected = moments.mean[gone] + across @ torch.linalg.solve(within, row[kept] - moments.mean[kept])
        torch.testing.assert_close(found[gone], expected)
        assert torch.equal(found[kept], row[kept])


def test_salt_and_pepper_variance_and_estimate_are_those_of_a_regression_on_many_draws() -> None:
    x = torch.rand(200, 3, generator=seeded(), dtype=torch.float64)
    x[:, 1] = 0.5 * x[:, 0] + 0.5 * x[:, 1]
    moments, share = fit_moments(x), 0.3
    many = x.repeat(2000, 1)
    u = torch.rand(many.shape, generator=seeded(1), dtype=torch.float64)
    y = torch.where(u < share, (u < share / 2).double(), many)
    variance = salt_and_pepper_variance(moments, share)
    torch.testing.assert_close((y - 0.7 * many - 0.15).var(0), variance, rtol=0.01, atol=0)
    design = torch.cat([y, torch.ones(len(y), 1)], dim=1)
    expected = design @ torch.linalg.lstsq(design, many).solution
    found = estimate_from_noise(moments, y, gain=0.7, offset=0.15, variance=variance)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01)
