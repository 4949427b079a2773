"""Oracles: quadrature, the exact likelihood of linear models, formulas written out, and what an encoder must learn."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from torch import Tensor, nn

from pipeline.models.anogan import LatentEncoder
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.row_vae import RowVAE
from pipeline.models.vae_scores import draw_noise, reconstruction_and_kl
from tests.gan_models import halves, seeded, small_gan


def no_labels(rows: Tensor) -> Tensor:
    return torch.full((len(rows),), UNLABELLED)


def small_encoder(kappa: float = 0.7) -> LatentEncoder:
    return LatentEncoder(small_gan(), kappa=kappa, generator=seeded(1))


def test_the_reconstruction_probability_is_the_expectation_over_the_posterior() -> None:
    """One latent dimension, so that Gauss-Hermite quadrature gives E_q log p(x|z) exactly enough."""
    model = RowVAE(5, latent_dim=1, num_hidden=6, generator=seeded())
    rows = torch.randn(3, 5, generator=seeded(1))
    mean, log_variance = model.encode(rows)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    wanted = torch.zeros(3, dtype=torch.float64)
    with torch.no_grad():
        for node, weight in zip(nodes, weights / math.sqrt(2 * math.pi), strict=True):
            z = mean + node * (0.5 * log_variance).exp()
            wanted += weight * model.log_likelihood(rows, z.float()).double()
    found, kl = reconstruction_and_kl(model, rows, no_labels(rows), spread_noise(400))
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=0.05)  # kinks cost either rule some 0.03
    written = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    torch.testing.assert_close(kl, written.detach())


def spread_noise(count: int) -> Tensor:
    """(count, 1): quantiles of N(0, 1), whose mean is the integral without a draw's error."""
    quantiles: Tensor = torch.special.ndtri((torch.arange(count) + 0.5) / count)
    return quantiles[:, None]


def linear_row_vae() -> tuple[RowVAE, Tensor, Tensor]:
    """Factor analysis, x ~ N(b, W W' + diag(variance)), whose exact posterior the encoder is given; W and b."""
    model, rng = RowVAE(3, latent_dim=1, num_hidden=4), seeded(3)
    weight = torch.randn(3, 1, generator=rng)
    bias, log_variance = torch.randn(3, generator=rng), 0.3 * torch.randn(3, generator=rng)
    variance = 1 / (1 + (weight[:, 0].square() / log_variance.exp()).sum())
    gain = variance * weight[:, 0] / log_variance.exp()
    decoder, encoder = nn.Linear(1, 3), nn.Linear(3, 2)
    with torch.no_grad():
        decoder.weight.copy_(weight)
        decoder.bias.copy_(bias)
        encoder.weight.copy_(torch.stack([gain, torch.zeros(3)]))
        encoder.bias.copy_(torch.stack([-gain @ bias, variance.log()]))
        model.log_variance.copy_(log_variance)
    model.decoder, model.encoder = nn.Sequential(decoder), nn.Sequential(encoder)
    return model, weight, bias


def test_the_bound_of_rows_is_the_likelihood_where_the_posterior_is_exact() -> None:
    model, weight, bias = linear_row_vae()
    rows = torch.randn(5, 3, generator=seeded(4))
    covariance = (weight @ weight.T + model.log_variance.exp().diag()).detach().double().numpy()
    wanted = multivariate_normal(bias.double().numpy(), covariance).logpdf(rows.double().numpy())
    reconstruction, kl = reconstruction_and_kl(model, rows, no_labels(rows), spread_noise(400))
    np.testing.assert_allclose((reconstruction - kl).numpy(), wanted, atol=0.02)


def test_the_score_of_an_image_depends_on_no_other() -> None:
    model, rows = linear_row_vae()[0], torch.randn(5, 3, generator=seeded(4))
    noise = draw_noise(3, 1)
    whole, alone = (reconstruction_and_kl(model, each, no_labels(each), noise)[0] for each in (rows, rows[3:4]))
    torch.testing.assert_close(whole[3:4], alone)
    torch.testing.assert_close(draw_noise(3, 1), noise, rtol=0, atol=0)


def test_the_row_loss_is_minus_its_bound_and_falls() -> None:
    rows = torch.randn(64, 2, generator=seeded(6)) @ torch.tensor([[1.0, 0.9, 0.1], [0.0, 0.3, 0.5]])
    model = RowVAE(3, latent_dim=2, num_hidden=8, generator=seeded(7))
    batch = Batch(rows, no_labels(rows))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    first = model.validation_losses(batch, 0, seeded(8))
    assert float(first.total) == pytest.approx(-float(first.parts["elbo"]))
    for step in range(100):
        optimizer.zero_grad()
        model.training_losses(batch, step, seeded(step)).total.backward()
        optimizer.step()
    assert float(model.validation_losses(batch, 0, seeded(8)).total) < float(first.total) - 0.5


def test_the_score_is_the_papers_formula() -> None:
    model, images = small_encoder(), halves(4).images
    made = model.gan.average(model.encode(images), no_labels(images))
    features = model.gan.discriminator.features
    pixels = ((images - made) ** 2).reshape(4, -1).mean(1)
    wanted = pixels + 0.7 * ((features(images) - features(made)) ** 2).mean(1)
    torch.testing.assert_close(model.scores(images), wanted.detach())
    losses = model.training_losses(Batch(images, no_labels(images)), 0, seeded())
    torch.testing.assert_close(losses.total, wanted.mean())


def test_the_encoder_finds_what_the_generator_made_and_leaves_the_gan_alone() -> None:
    model = small_encoder()
    before = copy.deepcopy(model.gan.state_dict())
    images = model.gan.sample(torch.full((16,), UNLABELLED), seeded(2))
    batch = Batch(images, no_labels(images))
    start = float(model.validation_losses(batch, 0, seeded()).total)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.003)
    for step in range(60):
        optimizer.zero_grad()
        model.training_losses(batch, step, seeded()).total.backward()
        optimizer.step()
    assert float(model.validation_losses(batch, 0, seeded()).total) < 0.5 * start
    assert all(torch.equal(before[name], value) for name, value in model.gan.state_dict().items())


def test_an_encoder_comes_back_from_its_config_and_state() -> None:
    model, images = small_encoder(), halves(4).images
    again = LatentEncoder.from_config(model.to_config())
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.scores(images), model.scores(images), rtol=0, atol=0)
