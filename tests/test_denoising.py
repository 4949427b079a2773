"""Oracles: a linear-Gaussian model whose posterior is known, enumeration of a small RBM, a gate that is computed."""

import itertools

import pytest
import torch
from torch import Tensor, distributions

from pipeline.models.corruption import Gaussian
from pipeline.models.denoiser import Denoiser
from pipeline.models.dense_vae import DenseVAE, pixel_nats
from pipeline.models.latent_posterior import fit_posterior, posterior_mean
from pipeline.models.losses import Batch
from pipeline.models.rbm import RBM
from pipeline.models.rbm_denoising import gibbs_posterior_mean, mean_field_posterior
from tests.test_vae import LinearGaussian, seeded

SHAPE = (1, 4, 4)


def log_likelihood(toy: LinearGaussian, z: Tensor) -> Tensor:
    found: Tensor = distributions.Normal(z @ toy.A.T, toy.sigma).log_prob(toy.x).sum(1)
    return found


def test_the_fitted_posterior_of_a_linear_gaussian_model_is_the_true_one() -> None:
    toy = LinearGaussian()
    start = torch.zeros(5, 2, dtype=torch.float64)
    mean, log_variance = fit_posterior(lambda z: log_likelihood(toy, z), start, start, 600, seeded(), lr=0.03)
    torch.testing.assert_close(mean, toy.posterior_mean, atol=0.1, rtol=0)
    torch.testing.assert_close(log_variance, toy.posterior_log_variance, atol=0.2, rtol=0)


def test_importance_weights_correct_a_wrong_posterior() -> None:
    toy = LinearGaussian()
    mean, log_variance = toy.posterior_mean + 0.3, toy.posterior_log_variance + 0.5
    found, ess = posterior_mean(
        lambda z: log_likelihood(toy, z), lambda z: z @ toy.A.T, mean, log_variance, 1000, seeded()
    )
    torch.testing.assert_close(found, toy.posterior_mean @ toy.A.T, atol=0.05, rtol=0)
    assert (ess < 900).all()


def test_all_weights_are_equal_under_the_true_posterior() -> None:
    toy = LinearGaussian()
    log_variance = toy.posterior_log_variance
    _, ess = posterior_mean(
        lambda z: log_likelihood(toy, z), lambda z: z, toy.posterior_mean, log_variance, 50, seeded()
    )
    torch.testing.assert_close(ess, torch.full_like(ess, 50.0))


def random_rbm(scale: float = 1.0) -> RBM:
    rbm = RBM(5, 3)
    with torch.no_grad():
        for parameter in (rbm.weight, rbm.visible_bias, rbm.hidden_bias):
            parameter.normal_(0, scale, generator=seeded(parameter.numel()))
    return rbm


def enumerated_mean(rbm: RBM, evidence: Tensor) -> Tensor:
    """E[v | y]: p(v | y) is exp(-F(v) + evidence . v), up to its sum."""
    v = torch.tensor(list(itertools.product((0.0, 1.0), repeat=5)))
    weights = torch.softmax(evidence @ v.t() - rbm.free_energy(v), dim=1)
    return weights @ v


def test_gibbs_sampling_given_spoilt_pixels_ends_in_the_enumerated_posterior() -> None:
    rbm, evidence = random_rbm(), torch.randn(2, 5, generator=seeded(1))
    evidence[1, 0] = 30.0  # a pixel that is known to be white
    found = gibbs_posterior_mean(rbm, evidence.repeat(200, 1), 100, seeded(), burn_in=20)
    torch.testing.assert_close(
        found.view(200, 2, 5).mean(0), enumerated_mean(rbm, evidence).detach(), atol=0.02, rtol=0
    )


def test_mean_field_is_exact_for_independent_pixels_and_near_for_weak_weights() -> None:
    rbm, evidence = random_rbm(0.2), torch.randn(4, 5, generator=seeded(1))
    exact = enumerated_mean(rbm, evidence)
    torch.testing.assert_close(mean_field_posterior(rbm, evidence, 50), exact, atol=0.01, rtol=0)
    with torch.no_grad():
        rbm.weight.zero_()
    torch.testing.assert_close(mean_field_posterior(rbm, evidence, 1), torch.sigmoid(evidence + rbm.visible_bias))


def test_an_rbm_of_other_units_is_refused() -> None:
    with pytest.raises(ValueError, match="got gaussian visible, bernoulli hidden ones: train one with visible"):
        mean_field_posterior(RBM(5, 3, visible="gaussian"), torch.zeros(1, 5), 1)


def small_denoiser(*, variational: bool = True) -> Denoiser:
    model = Denoiser(SHAPE, hidden_sizes=[16], latent_dim=3, beta=0.1, variational=variational, generator=seeded())
    model.corruptions = {"gaussian": Gaussian(0.5)}
    return model


def bars(count: int = 200) -> Tensor:
    """Rows of 4 x 4 images, all white or all black."""
    rows = torch.randint(0, 2, (count, 1, 4, 1), generator=seeded(3)).float()
    return rows.expand(-1, -1, -1, 4).contiguous()


def test_losses_of_the_dense_vae_are_its_bound() -> None:
    model, images = DenseVAE(SHAPE, hidden_sizes=[8], latent_dim=2, generator=seeded()), bars(6)
    losses = model.validation_losses(Batch(images, torch.zeros(6)), 0, seeded(5))
    mean, log_variance = model.encode(images)
    z = mean + (0.5 * log_variance).exp() * torch.randn(6, 2, generator=seeded(5))
    nats = -distributions.Bernoulli(probs=model.decode(z)).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(pixel_nats(model.decode_logits(z), images), nats)
    normal = distributions.Normal(mean, (0.5 * log_variance).exp())
    kl = distributions.kl_divergence(normal, distributions.Normal(torch.zeros(2), torch.ones(2))).sum(1)
    torch.testing.assert_close(losses.total, (nats + kl).mean())


def test_without_a_decoder_the_gate_alone_denoises_each_pixel_by_its_log_odds() -> None:
    model, y = small_denoiser(), bars() + 0.5 * torch.randn(200, 1, 4, 4, generator=seeded(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.gate.bias.fill_(4.0 + torch.tensor(-4.0).exp().neg().log1p())  # softplus of it is 1 / sigma^2 = 4
    expected = torch.sigmoid((2 * y - 1) / (2 * 0.5**2))
    torch.testing.assert_close(model.denoise(y, 3, seeded()), expected)


@pytest.mark.parametrize("variational", [False, True])
def test_a_denoiser_learns_more_than_a_pixel_says_by_itself(variational: bool) -> None:
    model, images = small_denoiser(variational=variational), bars()
    optimizer, generator = torch.optim.Adam(model.parameters(), 0.01), seeded(7)
    for step in range(250):
        optimizer.zero_grad()
        model.training_losses(Batch(images, torch.zeros(200)), step, generator).total.backward()
        optimizer.step()
    y = Gaussian(0.5).spoil(images, seeded(9)).y
    alone = torch.sigmoid((2 * y - 1) / (2 * 0.5**2))
    error, error_alone = ((x - images).square().mean() for x in (model.denoise(y, 10, seeded()), alone))
    assert error < 0.5 * error_alone


def test_a_denoiser_comes_back_from_its_config() -> None:
    model = small_denoiser(variational=False)
    again = Denoiser.from_config(model.to_config())
    again.load_state_dict(model.state_dict())
    y = bars(3)
    assert torch.equal(again.denoise(y, 1, seeded()), model.denoise(y, 1, seeded()))
