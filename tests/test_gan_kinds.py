"""GANs of every kind: how the parts go together, adaptive augmentation's recurrence, a kill that changes no bit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.adaptive_augmentation import MAX_PROBABILITY, AdaptiveAugmentation
from pipeline.models.adversarial import gradient_penalty
from pipeline.models.diffaugment import diffaugment
from pipeline.models.losses import UNLABELLED, Batch, Losses
from pipeline.training.fit import fit
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream
from tests.gan_models import KINDS, SMALL, halves, seeded, small_gan


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
