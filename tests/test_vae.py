"""Oracles: torch.distributions, a linear-Gaussian model whose evidence is known, the likelihood's affinity in x."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, distributions

from pipeline.config.generators import Vae
from pipeline.metrics.importance import bound_by_importance
from pipeline.models.conv_blocks import stage_sizes
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.vae import (
    ConditionalVAE,
    importance_bound,
    kl_above_free_bits,
    kl_to_standard_normal,
    normal_log_density,
)

SMALL: dict[str, Any] = {
    "latent_dim": 3,
    "width": 4,
    "likelihood": "bernoulli",
    "beta": 1.0,
    "free_bits": 0.0,
    "iw_samples": 1,
    "warmup_steps": 10,
    "steps": 1,
    "batch_size": 8,
    "lr": 1e-3,
}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_vae(shape: tuple[int, int, int] = (1, 28, 28), *, seed: int = 0, **changes: Any) -> ConditionalVAE:
    return ConditionalVAE(shape, 2, config=Vae(**{**SMALL, **changes}), generator=seeded(seed))


def halves(count: int = 32, shape: tuple[int, int, int] = (1, 28, 28)) -> Batch:
    """Class 0 is white on the left, class 1 on the right."""
    labels = torch.arange(count) % 2
    images = torch.full((count, *shape), 0.05)
    middle = shape[2] // 2
    images[labels == 0, :, :, :middle] = 0.95
    images[labels == 1, :, :, middle:] = 0.95
    return Batch(images, labels)


def train(model: ConditionalVAE, batch: Batch, steps: int, lr: float = 0.01) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr)
    generator = seeded(7)
    for step in range(steps):
        optimizer.zero_grad()
        model.training_losses(batch, step, generator).total.backward()
        optimizer.step()


def test_kl_matches_torch_distributions_and_monte_carlo() -> None:
    mean, log_variance = torch.randn(4, 3, generator=seeded()), torch.randn(4, 3, generator=seeded(1))
    posterior = distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = distributions.Normal(torch.zeros(4, 3), torch.ones(4, 3))
    kl = kl_to_standard_normal(mean, log_variance)
    torch.testing.assert_close(kl, distributions.kl_divergence(posterior, prior).sum(1))
    z = mean + (0.5 * log_variance).exp() * torch.randn(20_000, 4, 3, generator=seeded(2))
    estimate = (posterior.log_prob(z) - prior.log_prob(z)).sum(2).mean(0)
    torch.testing.assert_close(kl, estimate, atol=0.05, rtol=0.02)


def test_normal_log_density_matches_torch_distributions() -> None:
    z, mean, log_variance = (torch.randn(4, 3, generator=seeded(i)) for i in range(3))
    expected = distributions.Normal(mean, (0.5 * log_variance).exp()).log_prob(z).sum(1)
    torch.testing.assert_close(normal_log_density(z, mean, log_variance), expected)


class LinearGaussian:
    """x = A z + sigma e with z ~ N(0, I): evidence N(x; 0, A A' + sigma^2 I), posterior N(M A' x / sigma^2, M) with
    M = (I + A' A / sigma^2)^-1; the columns of A are orthogonal, so M is diagonal."""

    def __init__(self) -> None:
        directions, _ = torch.linalg.qr(torch.randn(6, 2, generator=seeded(), dtype=torch.float64))
        self.A = directions * torch.tensor([1.5, 0.7], dtype=torch.float64)
        self.sigma = 0.5
        z = torch.randn(5, 2, generator=seeded(1), dtype=torch.float64)
        self.x = z @ self.A.T + self.sigma * torch.randn(5, 6, generator=seeded(2), dtype=torch.float64)
        variance = 1 / (1 + self.A.square().sum(0) / self.sigma**2)
        self.posterior_mean = self.x @ self.A * variance / self.sigma**2
        self.posterior_log_variance = variance.log().expand(5, 2)

    def log_joint(self, z: Tensor) -> Tensor:
        x_given_z: Tensor = distributions.Normal(z @ self.A.T, self.sigma).log_prob(self.x).sum(1)
        return x_given_z + normal_log_density(z, torch.zeros_like(z), torch.zeros_like(z))

    def log_evidence(self) -> Tensor:
        covariance = self.A @ self.A.T + self.sigma**2 * torch.eye(6, dtype=torch.float64)
        evidence = distributions.MultivariateNormal(torch.zeros(6, dtype=torch.float64), covariance)
        log_evidence: Tensor = evidence.log_prob(self.x)
        return log_evidence


@pytest.mark.parametrize("k", [1, 7])
def test_importance_bound_with_the_true_posterior_is_the_evidence(k: int) -> None:
    toy = LinearGaussian()
    bound = importance_bound(toy.log_joint, toy.posterior_mean, toy.posterior_log_variance, k, seeded())
    torch.testing.assert_close(bound, toy.log_evidence())


def test_importance_bound_with_another_posterior_rises_with_k_to_the_evidence() -> None:
    toy = LinearGaussian()
    mean, log_variance = toy.posterior_mean + 0.4, toy.posterior_log_variance + 0.5

    def bound(k: int, repeats: int) -> Tensor:
        draws = [importance_bound(toy.log_joint, mean, log_variance, k, seeded(i)) for i in range(repeats)]
        return torch.stack(draws).mean(0)

    gap = distributions.kl_divergence(
        distributions.Normal(mean, (0.5 * log_variance).exp()),
        distributions.Normal(toy.posterior_mean, (0.5 * toy.posterior_log_variance).exp()),
    ).sum(1)
    elbo, few, many = bound(1, 1500), bound(8, 200), bound(2000, 1)
    torch.testing.assert_close(elbo, toy.log_evidence() - gap, atol=0.15, rtol=0)
    assert (elbo < few).all()
    assert (few < many).all()
    torch.testing.assert_close(many, toy.log_evidence(), atol=0.1, rtol=0)


def test_importance_bound_refuses_zero_samples() -> None:
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        importance_bound(lambda z: z[:, 0], torch.zeros(1, 1), torch.zeros(1, 1), 0, seeded())


def test_bernoulli_likelihood_matches_torch_and_averages_over_binarisations() -> None:
    model, z, labels = small_vae(), torch.randn(2, 3, generator=seeded(1)), torch.tensor([0, 1])
    probabilities = model.decode(z, labels)
    images = (torch.rand(2, 1, 28, 28, generator=seeded(2)) > 0.5).float()
    expected = distributions.Bernoulli(probs=probabilities).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(model.log_likelihood(images, z, labels), expected)
    halfway = 0.5 * (expected + model.log_likelihood(1 - images, z, labels))
    torch.testing.assert_close(model.log_likelihood(torch.full_like(images, 0.5), z, labels), halfway)


def test_gaussian_likelihood_matches_torch() -> None:
    model, z, labels = small_vae(likelihood="gaussian"), torch.randn(2, 3, generator=seeded(1)), torch.tensor([0, 1])
    images = torch.rand(2, 1, 28, 28, generator=seeded(2))
    normal = distributions.Normal(model.decode(z, labels), model.sigma())
    torch.testing.assert_close(model.log_likelihood(images, z, labels), normal.log_prob(images).flatten(1).sum(1))


@torch.no_grad()
def test_elbo_is_below_the_iwae_bound_which_rises_with_k() -> None:
    model, batch = small_vae(), halves(8)
    model.posterior.bias[3:] = 1.0  # a posterior too wide, so that there is a gap to close
    repeats = range(30)
    elbo = torch.stack([model.validation_losses(batch, 0, seeded(i)).parts["elbo"] for i in repeats])
    bounds = {
        k: torch.stack([model.iwae_bound(batch.images, batch.labels, k, seeded(i)).mean() for i in repeats])
        for k in (1, 5, 25)
    }
    error = float(torch.cat([elbo, bounds[1]]).std()) / math.sqrt(len(repeats))
    assert abs(float(elbo.mean() - bounds[1].mean())) < 5 * error
    assert float(elbo.mean()) < float(bounds[5].mean()) < float(bounds[25].mean())


def test_continuous_bernoulli_likelihood_and_mean_match_torch() -> None:
    model, z = small_vae(likelihood="continuous_bernoulli"), torch.randn(2, 3, generator=seeded(1))
    labels, images = torch.tensor([0, 1]), torch.rand(2, 1, 28, 28, generator=seeded(2))
    logits = small_vae().decode(z, labels).double().logit()
    expected = distributions.ContinuousBernoulli(logits=logits)
    torch.testing.assert_close(
        model.log_likelihood(images, z, labels), expected.log_prob(images.double()).flatten(1).sum(1).float()
    )
    torch.testing.assert_close(model.decode(z, labels), expected.mean.float(), atol=1e-4, rtol=0)


def test_training_raises_the_continuous_bernoulli_bound() -> None:
    model, batch = small_vae(likelihood="continuous_bernoulli"), halves(16)
    before = model.validation_losses(batch, 0, seeded()).parts["elbo"].item()
    train(model, batch, 40)
    assert model.validation_losses(batch, 0, seeded()).parts["elbo"].item() > before + 100


def test_total_is_reconstruction_plus_warmed_up_beta_times_kl() -> None:
    model, batch = small_vae(beta=2.0, warmup_steps=10), halves(8)
    for step, beta in ((0, 0.0), (5, 1.0), (10, 2.0), (99, 2.0)):
        losses = model.training_losses(batch, step, seeded())
        torch.testing.assert_close(losses.total, losses.parts["reconstruction"] + beta * losses.parts["kl"])
        torch.testing.assert_close(losses.parts["elbo"], -losses.parts["reconstruction"] - losses.parts["kl"])
    torch.testing.assert_close(model.validation_losses(batch, 0, seeded()).total, losses.total)
    assert small_vae(warmup_steps=0).beta(0) == 1.0


def wide_one_dimensional_vae(iw_samples: int = 1) -> ConditionalVAE:
    """z moves the pixels and q(z|x) is close to the prior, so that the bounds differ."""
    model = small_vae(latent_dim=1, iw_samples=iw_samples, warmup_steps=0)
    with torch.no_grad():
        model.decoder_hidden.weight[:, 0] *= 5
    return model


@torch.no_grad()
def test_bounds_of_a_one_dimensional_latent_rise_to_the_log_likelihood_by_quadrature() -> None:
    model, batch = wide_one_dimensional_vae(), halves(2)
    grid = torch.linspace(-6, 6, 601)
    log_p, elbo = [], []
    mean, log_variance = model.encode(batch.images, batch.labels)
    for i in range(2):
        images, labels = batch.images[i].expand(601, -1, -1, -1), batch.labels[i].expand(601)
        log_joint = model.log_likelihood(images, grid[:, None], labels) + distributions.Normal(0, 1).log_prob(grid)
        log_q = distributions.Normal(mean[i], (0.5 * log_variance[i]).exp()).log_prob(grid)
        log_p.append(log_joint.logsumexp(0) + math.log(12 / 600))
        elbo.append(torch.trapezoid(log_q.exp() * (log_joint - log_q), grid))

    def bounds(k: int, repeats: int) -> Tensor:
        return torch.stack([model.iwae_bound(batch.images, batch.labels, k, seeded(i)) for i in range(repeats)])

    one, few, many = bounds(1, 400), bounds(10, 40), bounds(1000, 1)[0]
    error = one.std(dim=0) / math.sqrt(len(one))
    assert ((one.mean(0) - torch.stack(elbo)).abs() < 4 * error).all()
    assert (one.mean(0) < few.mean(0)).all()
    assert (few.mean(0) < torch.stack(log_p)).all()
    torch.testing.assert_close(many, torch.stack(log_p), atol=0.2, rtol=0)


def test_log_weights_make_up_the_bound_one_draw_each() -> None:
    model, batch = wide_one_dimensional_vae(), halves(4)
    log_w = model.log_weights(batch.images, batch.labels, 6, seeded())
    assert log_w.shape == (4, 6)
    expected = model.iwae_bound(batch.images, batch.labels, 6, seeded())
    torch.testing.assert_close(log_w.logsumexp(1) - math.log(6), expected)
    bound = bound_by_importance(model, batch.images, batch.labels, k=400, seed=0)
    many = model.iwae_bound(batch.images, batch.labels, 400, seeded(1)).mean()
    assert abs(float(many) - bound.value) < 6 * bound.standard_error


def test_training_by_importance_samples_is_by_the_bound_and_reports_the_elbo() -> None:
    model, batch = wide_one_dimensional_vae(iw_samples=5), halves(8)
    losses = model.training_losses(batch, 0, seeded())
    bound = model.iwae_bound(batch.images, batch.labels, 5, seeded()).mean()
    torch.testing.assert_close(-losses.total, bound)
    torch.testing.assert_close(losses.parts["elbo"], -losses.parts["reconstruction"] - losses.parts["kl"])
    losses.total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_importance_weighted_gradient_matches_finite_differences() -> None:
    toy = LinearGaussian()

    def bound(mean: Tensor, log_variance: Tensor) -> Tensor:
        return importance_bound(toy.log_joint, mean, log_variance, 3, seeded())

    mean, log_variance = toy.posterior_mean + 0.4, toy.posterior_log_variance + 0.5
    assert torch.autograd.gradcheck(bound, (mean.requires_grad_(), log_variance.requires_grad_()))


def test_importance_samples_at_beta_zero_weigh_by_the_likelihood_alone() -> None:
    model, batch = small_vae(iw_samples=2, beta=0.0, warmup_steps=0), halves(4)
    mean, log_variance = model.encode(batch.images, batch.labels)
    generator = seeded()
    z = [mean + torch.randn(mean.shape, generator=generator) * (0.5 * log_variance).exp() for _ in range(2)]
    log_likelihoods = torch.stack([model.log_likelihood(batch.images, z_i, batch.labels) for z_i in z])
    expected = -(log_likelihoods.logsumexp(0) - math.log(2)).mean()
    torch.testing.assert_close(model.training_losses(batch, 0, seeded()).total, expected)


def test_free_bits_and_importance_samples_exclude_each_other() -> None:
    with pytest.raises(ValueError, match=r"vae\.free_bits must be 0 where vae\.iw_samples > 1, got 0\.1"):
        small_vae(free_bits=0.1, iw_samples=2)
    with pytest.raises(ValueError, match=r"vae\.iw_samples must be >= 1, got 0"):
        small_vae(iw_samples=0)


def test_free_bits_charge_each_latent_dimension_at_least_that_much() -> None:
    model, batch = small_vae(beta=2.0, free_bits=0.1, warmup_steps=0), halves(8)
    with torch.no_grad():
        model.posterior.weight.zero_()
        model.posterior.bias.zero_()
        model.posterior.bias[:3] = torch.tensor([1.0, 0.2, 0.0])  # KL 0.5, 0.02 and 0 nats for every image
    losses = model.training_losses(batch, 0, seeded())
    charged = losses.total - losses.parts["reconstruction"]
    torch.testing.assert_close(charged, torch.tensor(2 * (0.5 + 0.1 + 0.1)), atol=1e-3, rtol=0)
    torch.testing.assert_close(losses.parts["kl"], torch.tensor(0.52))
    charged.backward()
    assert model.posterior.bias.grad is not None
    torch.testing.assert_close(model.posterior.bias.grad, torch.tensor([2.0, 0, 0, 0, 0, 0]), atol=1e-3, rtol=0)


def test_free_bits_count_the_mean_over_the_batch() -> None:
    mean = torch.tensor([[2.0, 0.2], [0.0, 0.2]])  # KL 2 and 0 nats, mean 1; 0.02 twice
    torch.testing.assert_close(kl_above_free_bits(mean, torch.zeros(2, 2), 0.5), torch.tensor(1.5))
    assert kl_above_free_bits(mean, torch.zeros(2, 2), 0.0) == kl_to_standard_normal(mean, torch.zeros(2, 2)).mean()


def test_negative_free_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"vae\.free_bits must be >= 0, got -0\.1: set it in params\.yaml"):
        small_vae(free_bits=-0.1)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 36, 36), (3, 64, 64)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_training_separates_the_classes_by_label(shape: tuple[int, int, int], likelihood: str) -> None:
    model, batch = small_vae(shape, likelihood=likelihood), halves(16, shape)
    train(model, batch, 40)
    samples = model.sample(batch.labels, seeded(3))
    assert samples.min() >= 0
    assert samples.max() <= 1
    assert (samples - batch.images).abs().mean() < 0.2 < (samples - batch.images.flip(0)).abs().mean()
    reconstructions = model.reconstruct(batch.images, batch.labels)
    assert (reconstructions - batch.images).abs().mean() < 0.2


def test_labels_change_samples_of_the_same_noise_and_unlabelled_is_a_class_of_its_own() -> None:
    model = small_vae()
    images = [model.sample(torch.full((4,), label), seeded()) for label in (0, 1, UNLABELLED)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (images[one] - images[other]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_unlabelled_images_train_the_null_row_alone() -> None:
    model, batch = small_vae(), halves(8)
    unlabelled = Batch(batch.images, torch.full_like(batch.labels, UNLABELLED))
    model.training_losses(unlabelled, 10, seeded()).total.backward()
    for embedding in (model.encoder_label, model.decoder_label):
        assert embedding.weight.grad is not None
        assert embedding.weight.grad.abs().sum(1).gt(0).tolist() == [False, False, True]


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be in -1\.\.1, got 0\.\.2"):
        small_vae().sample(torch.tensor([0, 2]), seeded())


def test_a_sample_depends_on_its_own_label_alone() -> None:
    model = small_vae()
    one, other = model.sample(torch.tensor([0, 0, 1]), seeded()), model.sample(torch.tensor([0, 1, 0]), seeded())
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_equal_seeds_give_equal_bits_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    models = [small_vae(seed=3) for _ in range(2)]
    for model in models:
        train(model, halves(8), 3)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
    labels = torch.tensor([0, 1])
    assert torch.equal(models[0].sample(labels, seeded()), models[1].sample(labels, seeded()))
    assert torch.equal(torch.get_rng_state(), before)
    first = [next(iter(small_vae(seed=seed).parameters())) for seed in (3, 4)]
    assert not torch.equal(first[0], first[1])


@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "gaussian"])
def test_a_model_rebuilt_from_its_config_and_state_samples_the_same_bits(likelihood: str) -> None:
    model = small_vae((3, 32, 32), likelihood=likelihood)
    train(model, halves(8, (3, 32, 32)), 2)
    copy = ConditionalVAE.from_config(model.to_config())
    copy.load_state_dict(model.state_dict())
    labels = torch.tensor([0, 1, UNLABELLED])
    assert torch.equal(copy.sample(labels, seeded()), model.sample(labels, seeded()))
    assert copy.to_config() == model.to_config()


def test_stage_sizes_halve_twice_and_on_while_even_and_above_eight() -> None:
    expected = {28: [14, 7], 32: [16, 8], 36: [18, 9], 48: [24, 12, 6], 60: [30, 15], 64: [32, 16, 8]}
    assert {side: stage_sizes((1, side, side)) for side in expected} == expected


@pytest.mark.parametrize("shape", [(1, 30, 30), (2, 28, 28), (1, 28, 32), (1, 68, 68)])
def test_shapes_the_data_cannot_have_are_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"multiple of 4 in 28\.\.64"):
        small_vae(shape)


def test_sigma_belongs_to_the_gaussian_likelihood() -> None:
    with pytest.raises(ValueError, match=r"set vae\.likelihood to gaussian"):
        small_vae().sigma()
