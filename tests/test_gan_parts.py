"""Oracles of what GANs are made of: losses on given logits, slopes in closed form, singular values, blocks."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.adversarial import discriminator_loss, generator_loss, gradient_penalty
from pipeline.models.residual_blocks import ResidualDecoder, ResidualEncoder
from pipeline.models.spectral_norm import advance_spectra, normalise_spectra
from tests.gan_models import halves, seeded, small_gan

REAL, FAKE = torch.tensor([2.0, -0.5, 0.0]), torch.tensor([-3.0, 0.25, 1.0])


@pytest.mark.parametrize(
    ("kind", "of_real", "of_fake", "of_generated"),
    [
        (
            "nonsaturating",
            lambda x: -math.log(1 / (1 + math.exp(-x))),
            lambda x: -math.log(1 - 1 / (1 + math.exp(-x))),
            lambda x: -math.log(1 / (1 + math.exp(-x))),
        ),
        ("hinge", lambda x: max(0.0, 1 - x), lambda x: max(0.0, 1 + x), lambda x: -x),
        ("wasserstein", lambda x: -x, lambda x: x, lambda x: -x),
    ],
)
def test_losses_are_the_formulas_of_their_papers(
    kind: str,
    of_real: Callable[[float], float],
    of_fake: Callable[[float], float],
    of_generated: Callable[[float], float],
) -> None:
    expected = sum(map(of_real, REAL.tolist())) / 3 + sum(map(of_fake, FAKE.tolist())) / 3
    assert float(discriminator_loss(kind, REAL, FAKE)) == pytest.approx(expected, rel=1e-6)
    assert float(generator_loss(kind, FAKE)) == pytest.approx(sum(map(of_generated, FAKE.tolist())) / 3, rel=1e-6)


def test_gradient_penalty_of_a_quadratic_is_known_between_every_pair() -> None:
    """D(x) = a |x|^2 / 2 has slope a |x|; with real and fake one length apart on a ray, eps can be read off."""
    real, fake = torch.full((5, 1, 1, 1), 3.0), torch.full((5, 1, 1, 1), 1.0)
    a = torch.tensor(0.7, requires_grad=True)
    penalty = gradient_penalty(lambda x: a * x.square().sum(dim=(1, 2, 3)) / 2, real, fake, seeded(4))
    eps = torch.rand(5, generator=seeded(4))
    x = 1 + 2 * eps
    torch.testing.assert_close(penalty, (0.7 * x - 1).square().mean())
    penalty.backward()
    torch.testing.assert_close(a.grad, (2 * (0.7 * x - 1) * x).mean())


def test_gradient_penalty_is_finite_where_the_slope_is_zero() -> None:
    a, (real, fake) = torch.zeros((), requires_grad=True), torch.rand(2, 3, 1, 4, 4)
    gradient_penalty(lambda x: a * x.sum(dim=(1, 2, 3)), real, fake, seeded()).backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad)


def test_gradient_penalty_of_the_discriminator_matches_finite_differences() -> None:
    model, batch = small_gan(r1_weight=0.0, gradient_penalty=10.0).double(), halves(2)
    real, fake = torch.rand(2, 2, 1, 28, 28, generator=seeded(1), dtype=torch.float64)
    network = model.discriminator
    projection = network.projection
    assert projection is not None

    def penalty() -> Tensor:
        def discriminate(x: Tensor) -> Tensor:  # forward() rounds its logits to 32 bits
            phi = network.features(x)
            logits: Tensor = network.unconditional(phi)[:, 0] + (projection(batch.labels) * phi).sum(1)
            return logits

        return gradient_penalty(discriminate, real, fake, seeded(3))

    penalty().backward()
    weight = network.encoder.first.weight
    assert weight.grad is not None
    direction = torch.randn(weight.shape, generator=seeded(2), dtype=torch.float64)
    slope, step = float((weight.grad * direction).sum()), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(float(penalty().detach()))
        with torch.no_grad():
            weight -= sign * step * direction
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4)


def test_a_wasserstein_critic_of_two_points_ends_with_the_slope_that_its_penalty_allows() -> None:
    """Between two images a distance d apart, slope s gains s d and costs weight (s - 1)^2: the best is
    s = 1 + d / (2 weight), and the critic then tells the two apart by s d."""
    torch.manual_seed(0)
    real, fake, weight = torch.zeros(32, 1, 2, 2), torch.full((32, 1, 2, 2), 1.5), 10.0
    d = 3.0
    critic = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    discriminate = lambda x: critic(x)[:, 0]  # noqa: E731
    optimizer, generator = torch.optim.Adam(critic.parameters(), 0.01), seeded()
    for _ in range(600):
        optimizer.zero_grad()
        loss = discriminator_loss("wasserstein", discriminate(real), discriminate(fake))
        (loss + weight * gradient_penalty(discriminate, real, fake, generator)).backward()
        optimizer.step()
    apart = float((discriminate(real) - discriminate(fake)).mean().detach())
    assert apart == pytest.approx(d * (1 + d / (2 * weight)), rel=0.03)


def spectral_layers() -> Any:
    layers = nn.Sequential(nn.Conv2d(2, 5, 3), nn.Flatten(), nn.Linear(20, 7), nn.LeakyReLU(0.2), nn.Linear(7, 4))
    for number, parameter in enumerate(layers.parameters()):
        nn.init.normal_(parameter, std=3.0, generator=seeded(number))
    return layers


@torch.no_grad()
def test_spectral_norm_divides_by_the_largest_singular_value() -> None:
    layers, plain = spectral_layers(), spectral_layers()
    normalise_spectra(layers, seeded())
    for _ in range(300):
        advance_spectra(layers)
    for number in (0, 2, 4):
        weight = plain[number].weight
        sigma = torch.linalg.svdvals(weight.flatten(1))[0]
        torch.testing.assert_close(layers[number].weight, weight / sigma, rtol=1e-4, atol=1e-6)


def test_the_gradient_through_spectral_norm_matches_the_formula() -> None:
    """(G - (sum G * W_SN) u v^T) / sigma for an upstream gradient G (Miyato et al. 2018, eq. 12)."""
    layer: Any = nn.Sequential(spectral_layers()[2])
    normalise_spectra(layer, seeded())
    upstream = torch.randn(7, 20, generator=seeded(5))
    (layer[0].weight * upstream).sum().backward()
    norm, weight = layer[0].parametrizations.weight[0], layer[0].parametrizations.weight.original
    sigma = norm.u @ weight.detach() @ norm.v
    inner = (upstream * weight.detach() / sigma).sum()
    torch.testing.assert_close(weight.grad, (upstream - inner * torch.outer(norm.u, norm.v)) / sigma)


@pytest.mark.parametrize("backbone", ["dcgan", "residual"])
def test_a_spectrally_normalised_discriminator_has_a_bounded_slope_whatever_its_weights(backbone: str) -> None:
    """A convolution's norm is at most its matrix's times sqrt(places of the kernel that see one input)."""
    model = small_gan(backbone=backbone, spectral_norm=True, seed=1)
    with torch.no_grad():
        for parameter in model.discriminator.parameters():
            parameter.mul_(50)
    for _ in range(200):
        advance_spectra(model.discriminator)
    images = torch.rand(6, 1, 28, 28, generator=seeded(2)).requires_grad_()
    (slope,) = torch.autograd.grad(model.discriminator(images, torch.arange(6) % 2).sum(), images)
    three = 3.0  # of a 3x3 kernel; a 4x4 one in strides of 2 sees an input from 4 places
    block = (1 + three**2) / math.sqrt(2)
    bounds = {"dcgan": three * 2, "residual": three * (block / 2) * block}
    assert float(slope.flatten(1).norm(dim=1).max()) <= 2 * bounds[backbone]  # 2: unconditional and projection rows


def test_power_iteration_moves_at_the_discriminators_updates_alone() -> None:
    model, batch = small_gan(spectral_norm=True), halves()
    hidden: Any = model.discriminator.hidden
    weight = hidden.parametrizations.weight
    with torch.no_grad():
        weight.original.normal_(generator=seeded(8))
    norm = weight[0]
    before = norm.u.clone()
    model.generator_losses(batch, 0, seeded())
    model.sample(batch.labels, seeded())
    assert torch.equal(norm.u, before)
    model.discriminator_losses(batch, 0, seeded())
    assert not torch.equal(norm.u, before)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 64, 64)])
def test_residual_networks_are_pictures_mirrors_with_gradients_by_finite_differences(
    shape: tuple[int, int, int],
) -> None:
    encoder, decoder = ResidualEncoder(shape, 4, leak=0.2).double(), ResidualDecoder(shape, 4, 5, num_rows=3).double()
    x = torch.rand(2, *shape, generator=seeded(), dtype=torch.float64)
    d = torch.randn(2, 5, generator=seeded(1), dtype=torch.float64)
    rows = torch.tensor([0, 2])
    assert decoder(d, rows).shape == x.shape
    assert encoder(x).shape == (2, encoder.num_features)
    cases: list[tuple[Any, tuple[Tensor, ...]]] = [(encoder, (x,)), (decoder, (d, rows))]
    for module, inputs in cases:
        out = module(*inputs)
        weighting = torch.randn(out.shape, generator=seeded(2), dtype=torch.float64)
        (out * weighting).sum().backward()
        for parameter in (module.first.weight, module.blocks[0].inner.weight, module.blocks[-1].outer.weight):
            direction = torch.randn(parameter.shape, generator=seeded(3), dtype=torch.float64)
            values: list[float] = []
            step = 1e-7
            for sign in (1, -1):
                with torch.no_grad():
                    parameter += sign * step * direction
                    values.append(float((module(*inputs) * weighting).sum()))
                    parameter -= sign * step * direction
            slope = float((parameter.grad * direction).sum())
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-4, abs=1e-6)


@torch.no_grad()
def test_a_residual_block_with_a_zero_branch_is_its_scaled_shortcut() -> None:
    encoder = ResidualEncoder((1, 28, 28), 4)
    block: Any = encoder.blocks[-1]
    h = torch.rand(2, 8, 7, 7, generator=seeded())
    nn.init.zeros_(block.outer.weight)
    nn.init.zeros_(block.outer.bias)
    torch.testing.assert_close(block(h), h / math.sqrt(2))
