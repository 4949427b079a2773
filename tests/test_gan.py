"""Oracles: autograd on functions with a known gradient, formulas written out from the parameters, unrolled averages."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.adversarial import r1_penalty
from pipeline.models.conv_blocks import LEAK
from pipeline.models.diffaugment import CUTOUT, MAX_SHIFT, diffaugment
from pipeline.models.gan import ConditionalGAN
from pipeline.models.losses import UNLABELLED, Batch
from tests.gan_models import halves, seeded, small_gan


def train(model: ConditionalGAN, batch: Batch, steps: int, lr: float = 0.004) -> None:
    optimizers = [torch.optim.Adam(m.parameters(), lr, (0.0, 0.99)) for m in (model.discriminator, model.generator)]
    generator = seeded(7)
    for step in range(steps):
        for optimizer, losses in zip(optimizers, (model.discriminator_losses, model.generator_losses), strict=True):
            optimizer.zero_grad()
            losses(batch, step, generator).total.backward()
            optimizer.step()
        model.update_average(step)


def gradients(module: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]


def test_r1_of_a_quadratic_is_its_squared_gradient_and_can_be_differentiated() -> None:
    x = torch.randn(5, 2, 3, 3, generator=seeded())
    a = torch.tensor(1.5, requires_grad=True)
    penalty = r1_penalty(lambda images: a * images.square().sum(dim=(1, 2, 3)), x)
    expected = (2 * 1.5 * x).square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(penalty, expected)
    penalty.backward()
    torch.testing.assert_close(a.grad, 2 * expected / 1.5)


@torch.no_grad()
def test_discriminator_logit_is_linear_plus_projection_on_the_labels_row() -> None:
    model, batch = small_gan().discriminator, halves(3)
    labels = torch.tensor([0, 1, UNLABELLED])
    assert model.projection is not None
    phi = F.leaky_relu(F.linear(model.encoder(batch.images), model.hidden.weight, model.hidden.bias), LEAK)
    expected = [
        model.unconditional.weight[0] @ phi[i] + model.unconditional.bias[0] + model.projection.weight[row] @ phi[i]
        for i, row in enumerate((0, 1, 2))
    ]
    torch.testing.assert_close(model(batch.images, labels), torch.stack(expected))


@torch.no_grad()
def test_adversarial_losses_are_cross_entropies_against_real_and_fake() -> None:
    model, batch = small_gan(), halves()
    fake = model.generator(torch.randn(8, 4, generator=seeded(5)), batch.labels)
    real_logit, fake_logit = (model.discriminator(images, batch.labels) for images in (batch.images, fake))
    one, zero = torch.ones(8), torch.zeros(8)
    cross_entropy = F.binary_cross_entropy_with_logits
    losses = model.discriminator_losses(batch, 1, seeded(5))
    torch.testing.assert_close(losses.total, cross_entropy(real_logit, one) + cross_entropy(fake_logit, zero))
    torch.testing.assert_close(losses.parts["real_logit"], real_logit.mean())
    torch.testing.assert_close(losses.parts["fake_logit"], fake_logit.mean())
    torch.testing.assert_close(model.generator_losses(batch, 1, seeded(5)).total, cross_entropy(fake_logit, one))


def test_r1_is_added_on_every_fourth_step_with_four_times_its_weight() -> None:
    model, batch = small_gan(), halves()
    penalty = r1_penalty(lambda x: model.discriminator(x, batch.labels), batch.images)
    for step in range(5):
        losses = model.discriminator_losses(batch, step, seeded())
        expected = 0.5 * 0.3 * 4 * penalty if step % 4 == 0 else torch.zeros(())
        torch.testing.assert_close(losses.parts["r1"], expected)
        torch.testing.assert_close(losses.total, losses.parts["adversarial"] + losses.parts["r1"])


def test_r1_gradient_of_the_discriminator_matches_finite_differences() -> None:
    model = small_gan().double().discriminator
    batch = halves(2)
    images = batch.images.double() + 0.1 * torch.rand(batch.images.shape, generator=seeded(1), dtype=torch.float64)

    def penalty() -> Tensor:
        assert model.projection is not None
        logits = model.unconditional  # in double: forward() rounds its logits to 32 bits
        rows = model.projection(batch.labels)
        return r1_penalty(lambda x: logits(model.features(x))[:, 0] + (rows * model.features(x)).sum(1), images)

    penalty().backward()
    weight = model.encoder.first.weight
    assert weight.grad is not None
    direction = torch.randn(weight.shape, generator=seeded(2), dtype=torch.float64)
    slope, step = (weight.grad * direction).sum(), 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step * direction
        values.append(penalty().detach())
        with torch.no_grad():
            weight -= sign * step * direction
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), slope, rtol=1e-4, atol=1e-6)


def test_each_loss_trains_its_own_network_alone() -> None:
    model, batch = small_gan(), halves()
    model.discriminator_losses(batch, 0, seeded()).total.backward()
    assert all(g.abs().sum() == 0 for g in gradients(model.generator))
    assert any(g.abs().sum() > 0 for g in gradients(model.discriminator))
    before = gradients(model.discriminator)
    model.generator_losses(batch, 0, seeded()).total.backward()
    assert all(torch.equal(a, b) for a, b in zip(before, gradients(model.discriminator), strict=True))
    assert all(p.requires_grad for p in model.discriminator.parameters())
    frozen = gradients(model.generator)
    model.zero_grad()
    fake = model.generator(torch.randn(8, 4, generator=seeded()), batch.labels)
    F.softplus(-model.discriminator(fake, batch.labels)).mean().backward()
    for one, other in zip(frozen, gradients(model.generator), strict=True):
        torch.testing.assert_close(one, other)


def test_average_follows_its_formula() -> None:
    model = small_gan(ema_decay=0.5)
    weight = model.generator.decoder.last.weight
    expected = weight.detach().clone()
    for step, decay in ((0, 1 / 10), (1, 2 / 11), (2, 3 / 12), (50, 0.5)):
        with torch.no_grad():
            weight += 0.1 * (step + 1)
        expected = decay * expected + (1 - decay) * weight.detach()
        model.update_average(step)
        torch.testing.assert_close(model.average.decoder.last.weight, expected)
    assert not any(p.requires_grad for p in model.average.parameters())
    assert list(dict(model.average.named_buffers())) == []


@torch.no_grad()
def test_a_sample_does_not_depend_on_the_rest_of_the_batch() -> None:
    model, z = small_gan(), torch.randn(6, 4, generator=seeded())
    labels = torch.tensor([0, 1, UNLABELLED, 0, 1, 0])
    together = model.average(z, labels)
    alone = torch.cat([model.average(z[i : i + 1], labels[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(model.average(z.flip(0), labels.flip(0)).flip(0), together, atol=1e-6, rtol=0)
    one, other = model.sample(labels, seeded()), model.sample(torch.tensor([0, 0, 0, 1, 0, 0]), seeded())
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[5], other[5])
    assert torch.equal(one, model.eval().sample(labels, seeded()))


def test_labels_change_samples_of_the_same_noise() -> None:
    model = small_gan()
    images = [model.sample(torch.full((4,), label), seeded()) for label in (0, 1, UNLABELLED)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (images[one] - images[other]).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    with pytest.raises(ValueError, match=r"labels must be in -1\.\.1, got -2\.\.0"):
        model.sample(torch.tensor([0, -2]), seeded())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64)])
def test_one_small_step_down_the_gradient_lowers_each_loss(shape: tuple[int, int, int]) -> None:
    model, batch = small_gan(shape, augmentation="diffaugment"), halves(8, shape)
    for network, compute_losses in (
        (model.discriminator, model.discriminator_losses),
        (model.generator, model.generator_losses),
    ):
        # Step 1, without R1: over black areas the first layer sits on the kink of its ReLU, where R1 jumps.
        total = compute_losses(batch, 1, seeded()).total
        total.backward()
        before = float(total.detach())
        slope = sum(float(gradient.square().sum()) for gradient in gradients(network))
        step = 1e-3 * before / slope
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients(network), strict=True):
                parameter.sub_(step * gradient)
        change = float(compute_losses(batch, 1, seeded()).total.detach()) - before
        assert change == pytest.approx(-step * slope, rel=0.2)


def test_training_separates_the_classes_by_label() -> None:
    model, batch = small_gan(augmentation="diffaugment"), halves(16)
    train(model, batch, 150)
    samples = model.sample(batch.labels, seeded(3))
    assert (samples - batch.images).abs().mean() < 0.15 < (samples - batch.images.flip(0)).abs().mean()


def test_equal_seeds_give_equal_bits_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    models = [small_gan(seed=3, augmentation="diffaugment") for _ in range(2)]
    for model in models:
        train(model, halves(), 3)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_rebuilt_from_its_config_and_state_samples_the_same_bits() -> None:
    model = small_gan((3, 32, 32))
    train(model, halves(8, (3, 32, 32)), 2)
    copy = ConditionalGAN.from_config(model.to_config())
    copy.load_state_dict(model.state_dict())
    labels = torch.tensor([0, 1, UNLABELLED])
    assert torch.equal(copy.sample(labels, seeded()), model.sample(labels, seeded()))
    assert copy.to_config() == model.to_config()


def test_diffaugment_is_a_shift_and_a_square_hole() -> None:
    """Every pixel has a value of its own, so the shift of each output can be read off and the hole is what is left."""
    size, count = 28, 64
    image = torch.arange(1, size * size + 1, dtype=torch.float32).view(size, size)
    out = diffaugment(image.expand(count, 1, size, size), seeded())[:, 0]
    limit, shifts = round(size * MAX_SHIFT), set()
    for one in out:
        places = one.nonzero()
        values = one[places[:, 0], places[:, 1]].long() - 1
        shift = torch.stack([values // size, values % size], 1) - places
        assert (shift == shift[0]).all()
        down, right = shift[0].tolist()
        assert max(abs(down), abs(right)) <= limit
        shifts.add((down, right))
        rows = torch.arange(size) + down
        columns = torch.arange(size) + right
        inside = ((rows >= 0) & (rows < size))[:, None] & ((columns >= 0) & (columns < size))[None, :]
        hole = inside & (one == 0)
        if hole.any():
            ys, xs = hole.nonzero().T
            box = hole[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            assert box.all()
            assert max(box.shape) <= round(size * CUTOUT)
    assert len(shifts) > 20


def test_diffaugment_is_linear_in_the_images() -> None:
    x, y = (torch.randn(4, 3, 32, 32, generator=seeded(i)) for i in (1, 2))
    mixed = diffaugment(2 * x - 3 * y, seeded())
    torch.testing.assert_close(mixed, 2 * diffaugment(x, seeded()) - 3 * diffaugment(y, seeded()))
