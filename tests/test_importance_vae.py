"""Oracles: torch.distributions, quadrature over a latent of one dimension, finite differences."""

import math

import pytest
import torch
from torch import distributions

from pipeline.metrics.importance import bound_by_importance
from pipeline.models.importance_vae import ImportanceVAE
from pipeline.models.losses import UNLABELLED, Batch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(latent_dim: int = 2, iw_samples: int = 1) -> ImportanceVAE:
    made = ImportanceVAE(6, [5, 4], latent_dim, iw_samples=iw_samples, generator=seeded(1))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=seeded(parameter.numel())))
    return made


def batch(count: int = 3) -> Batch:
    return Batch((torch.rand(count, 1, 2, 3, generator=seeded(2)) > 0.5).float(), torch.full((count,), UNLABELLED))


def test_log_weights_are_the_joint_over_the_posterior() -> None:
    made, images = model(), batch().images
    log_w = made.log_weights(images, batch().labels, 4, seeded(3))
    mean, log_variance = made.encode(images)
    q = distributions.Normal(mean[:, None], (0.5 * log_variance).exp()[:, None])
    z = q.mean + q.stddev * torch.randn(3, 4, 2, generator=seeded(3))
    log_p = distributions.Bernoulli(made.decode(z)).log_prob(images.flatten(1)[:, None]).sum(2)
    log_prior = distributions.Normal(0.0, 1.0).log_prob(z).sum(2)
    torch.testing.assert_close(log_w, log_p + log_prior - q.log_prob(z).sum(2))


@torch.no_grad()
def test_the_bound_reaches_the_log_likelihood_by_quadrature() -> None:
    made, data = model(latent_dim=1), batch()
    grid = torch.linspace(-7, 7, 1401)[None, :, None].expand(3, -1, 1)
    joint = made.log_likelihood(data.images, grid) + distributions.Normal(0.0, 1.0).log_prob(grid[..., 0])
    log_p = float((joint.logsumexp(1) + math.log(0.01)).mean())
    bound = bound_by_importance(made, data.images, data.labels, k=20_000, seed=0)
    assert abs(bound.value - log_p) < 4 * bound.standard_error + 1e-4
    assert bound.standard_error < 0.02


def test_the_trained_bound_is_the_elbo_with_one_sample_and_burdas_with_more() -> None:
    data = batch()
    losses = model().training_losses(data, 0, seeded(4))
    torch.testing.assert_close(losses.total, losses.parts["reconstruction"] + losses.parts["kl"])
    log_w = model().log_weights(data.images, data.labels, 5, seeded(4))
    losses = model(iw_samples=5).training_losses(data, 0, seeded(4))
    torch.testing.assert_close(losses.total, -log_w.exp().mean(1).log().mean())


@torch.no_grad()
def test_one_weight_is_the_elbo_on_average() -> None:
    made, data = model(), batch()
    elbo = torch.stack([made.validation_losses(data, 0, seeded(i)).parts["bound"] for i in range(300)])
    one = made.log_weights(data.images, data.labels, 20_000, seeded()).mean()
    assert abs(float(elbo.mean() - one)) < 5 * float(elbo.std()) / math.sqrt(300)


@pytest.mark.parametrize("iw_samples", [1, 4])
def test_gradients_match_finite_differences(iw_samples: int) -> None:
    made, data = model(iw_samples=iw_samples).double(), batch()
    data = Batch(data.images.double(), data.labels)
    losses = made.training_losses(data, 0, seeded())
    losses.total.backward()
    for weight in (made.encoder.top.weight, made.decoder.top.weight, made.decoder.top.bias):
        with torch.no_grad():
            values = []
            for shift in (1e-5, -2e-5):
                weight.view(-1)[1] += shift
                values.append(float(made.training_losses(data, 0, seeded()).total))
        assert weight.grad is not None
        assert float(weight.grad.view(-1)[1]) == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-8)
        with torch.no_grad():
            weight.view(-1)[1] += 1e-5


def test_biases_start_at_the_means_of_the_pixels() -> None:
    made = ImportanceVAE(4, [3], 2)
    images = torch.tensor([[1.0, 0, 0.5, 1], [1, 0, 0, 0]])
    made.start_at_means(images)
    torch.testing.assert_close(made.sample(2, seeded()), torch.tensor([0.999, 0.001, 0.25, 0.5]).expand(2, -1))


def test_a_model_rebuilt_from_its_config_and_state_has_the_same_bits() -> None:
    made, data = model(iw_samples=3), batch()
    copy = ImportanceVAE.from_config(made.to_config())
    copy.load_state_dict(made.state_dict())
    losses = [each.training_losses(data, 0, seeded()).total for each in (made, copy)]
    assert torch.equal(losses[0], losses[1])


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="iw_samples must be >= 1, got 0"):
        model(iw_samples=0)
