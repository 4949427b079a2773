"""Oracles of what a GAN may be made of: losses on given logits, slopes in closed form, singular values, recurrences."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.adaptive_augmentation import MAX_PROBABILITY, AdaptiveAugmentation
from pipeline.models.adversarial import discriminator_loss, generator_loss, gradient_penalty
from pipeline.models.diffaugment import diffaugment
from pipeline.models.losses import UNLABELLED, Batch, Losses
from pipeline.models.residual_blocks import ResidualDecoder, ResidualEncoder
from pipeline.models.spectral_norm import advance_spectra, normalise_spectra
from pipeline.training.fit import fit
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream
from tests.gan_models import KINDS, SMALL, halves, seeded, small_gan

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


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_every_kind_depends_on_its_own_noise_and_label_alone(kind: str) -> None:
    model, labels = small_gan(**KINDS[kind]), torch.tensor([0, 1, UNLABELLED])
    z = torch.randn(3, 4, generator=seeded())
    alone = torch.cat([model.average(z[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(model.average(z, labels), alone, atol=1e-6, rtol=0)


def test_auxiliary_conditioning_adds_the_cross_entropy_of_known_labels_of_both_kinds_of_images() -> None:
    model, batch = small_gan(conditioning="auxiliary", r1_weight=0.0), halves(6)
    batch = Batch(batch.images, torch.tensor([0, UNLABELLED, 1, 1, 0, UNLABELLED]))
    fake = model.generator(torch.randn(6, 4, generator=seeded(3)), batch.labels).detach()
    network = model.discriminator
    assert network.auxiliary is not None
    both = torch.cat([network.auxiliary(network.features(x)) for x in (batch.images, fake)])
    known = torch.tensor([0, 2, 3, 4])
    log_p = both.log_softmax(dim=1)[torch.cat([known, known + 6])]
    labels = torch.tensor([0, 1, 1, 0] * 2)
    expected = -log_p[torch.arange(8), labels].mean()
    losses = model.discriminator_losses(batch, 1, seeded(3))
    torch.testing.assert_close(losses.parts["cross_entropy"], expected)
    torch.testing.assert_close(losses.total, losses.parts["adversarial"] + expected)
    generated = model.generator_losses(batch, 1, seeded(3))
    torch.testing.assert_close(generated.parts["cross_entropy"], -log_p[4:][torch.arange(4), labels[4:]].mean())


def test_penalties_are_added_with_their_weight() -> None:
    model, batch = small_gan(**KINDS["wasserstein"]), halves()
    generator = seeded(2)
    with torch.no_grad():
        fake = model.generator(torch.randn(8, 4, generator=generator), batch.labels)
    penalty = gradient_penalty(lambda x: model.discriminator(x, batch.labels), batch.images, fake, generator)
    losses = model.discriminator_losses(batch, 0, seeded(2))
    torch.testing.assert_close(losses.parts["gradient_penalty"], 10 * penalty)
    torch.testing.assert_close(losses.total, losses.parts["adversarial"] + 10 * penalty)


def test_the_augmentations_probability_follows_its_recurrence() -> None:
    """Signs are +1, -1 or 0; r_t is their mean over four updates."""
    augment = AdaptiveAugmentation(target=0.5, images=80, batch_size=4)
    logits = torch.tensor([[1.0, 2, 3, 4], [1, 1, 1, -1], [5, 5, 5, 5], [1, 1, 0, 1]]).repeat(8, 1)
    logits[16:] *= -1
    p, seen, expected = 0.0, [], []
    for step, real_logit in enumerate(logits):
        if step and step % 4 == 0:
            r = sum(float(torch.sign(x)) for x in logits[step - 4 : step].flatten()) / 16
            p = min(MAX_PROBABILITY, max(0.0, p + 0.2 * (1 if r > 0.5 else -1)))
        augment.steer(step)
        augment.watch(real_logit)
        seen.append(float(augment.probability))
        expected.append(p)
    assert seen == pytest.approx(expected)
    assert max(seen) == MAX_PROBABILITY
    assert seen[-1] < 0.5


def test_adaptive_augmentation_reaches_the_share_of_images_that_it_says() -> None:
    images = torch.rand(2000, 1, 28, 28, generator=seeded()) + 0.5
    assert torch.equal(diffaugment(images, seeded(1), torch.tensor(0.0)), images)
    out = diffaugment(images, seeded(1), torch.tensor(0.3, dtype=torch.float64))
    untouched = float((out == images).flatten(1).all(dim=1).float().mean())
    both_still = 0.7 + 0.3 / 49  # a shift by zero in both directions is one of 7 x 7
    assert untouched == pytest.approx(0.7 * both_still, abs=0.04)


class Recorded(nn.Module):
    """Counts which batch each loss was given."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.generator, self.discriminator = nn.Linear(1, 1), nn.Linear(1, 1)
        self.discriminator_steps = steps
        self.seen: list[tuple[str, int, list[int]]] = []

    def discriminator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        self.seen.append(("d", step, batch.labels.tolist()))
        return Losses(self.discriminator.weight.sum(), {})

    def generator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        self.seen.append(("g", step, batch.labels.tolist()))
        return Losses(self.generator.weight.sum(), {})

    def update_average(self, step: int) -> None:
        pass


def test_every_discriminator_step_has_a_batch_of_its_own_and_the_generator_the_last() -> None:
    model = Recorded(2)
    stream = BatchStream(torch.rand(8, 1, 4, 4), torch.arange(8), batch_size=2, seed=0)
    fit(model, stream, FitPlan(steps=2, steps_per_epoch=2, lr=0.1, seed=0))
    batches = [stream.batch(number).labels.tolist() for number in range(4)]
    assert model.seen == [
        ("d", 0, batches[0]),
        ("d", 1, batches[1]),
        ("g", 0, batches[1]),
        ("d", 2, batches[2]),
        ("d", 3, batches[3]),
        ("g", 1, batches[3]),
    ]


def train(kind: str, checkpoint: Path, stop_after: int = 0) -> tuple[list[Epoch], dict[str, Tensor]]:
    model, batch = small_gan(**KINDS[kind]), halves(40)
    images = batch.images * 0.8 + 0.2 * torch.rand(batch.images.shape, generator=seeded(9))
    stream = BatchStream(images, batch.labels, batch_size=8, seed=5)

    def stop(step: int, epoch: Epoch) -> None:
        if step == stop_after:
            raise InterruptedError

    plan = FitPlan(steps=14, steps_per_epoch=3, lr=0.004, betas=(0.0, 0.99), seed=3)
    return fit(model, stream, plan, checkpoint=checkpoint, on_epoch=stop), model.state_dict()


@pytest.mark.parametrize("kind", KINDS)
def test_a_gan_of_every_kind_that_is_killed_and_resumed_ends_with_the_same_bits(kind: str, tmp_path: Path) -> None:
    """Weights, average, the probability of augmentation, the vectors of power iteration."""
    expected, undisturbed = train(kind, tmp_path / "one.ckpt")
    with pytest.raises(InterruptedError):
        train(kind, tmp_path / "two.ckpt", stop_after=6)
    again, resumed = train(kind, tmp_path / "two.ckpt")
    assert again == expected
    assert resumed.keys() == undisturbed.keys()
    for key, tensor in undisturbed.items():
        assert torch.equal(resumed[key], tensor), key
    if kind == "adaptive":
        assert 0 < float(undisturbed["adaptive.probability"]) < MAX_PROBABILITY
    if kind == "spectral":
        assert any(key.endswith(".u") for key in undisturbed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gradient_penalty": 10.0}, r"gan.r1_weight must be 0 where gan.gradient_penalty > 0, got 0.3"),
        (
            {"loss": "wasserstein"},
            r"gan.gradient_penalty must be > 0 where gan.loss is wasserstein, unless gan.spectral",
        ),
        ({"loss": "wasserstein", "spectral_norm": True, "augmentation": "adaptive"}, r"no sign to steer by"),
        ({"discriminator_steps": 0}, r"gan.discriminator_steps must be >= 1, got 0"),
        ({"backbone": "vit"}, r"gan.backbone must be one of dcgan, residual, got 'vit'"),
        ({"ada_target": 1.0}, r"gan.ada_target must be in \[0, 1\), got 1.0"),
    ],
)
def test_settings_that_would_mean_nothing_are_errors(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **changes)
