"""Oracles of the semi-supervised GAN: K + 1 classes written out, feature matching by hand, a fit that resumes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.semi_supervised_gan import SemiSupervisedGAN, realness
from pipeline.training.fit import fit
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream, MixedStream
from tests.gan_models import halves, seeded

SHAPE = (1, 4, 4)


def small(**changes: Any) -> SemiSupervisedGAN:
    settings = {"hidden": (12, 6), "latent_dim": 3, "ema_decay": 0.9, "generator": seeded(), **changes}
    return SemiSupervisedGAN(SHAPE, 2, **settings)


def mixed_batch() -> Batch:
    images = torch.rand(7, *SHAPE, generator=seeded(4))
    return Batch(images, torch.tensor([0, 1, 1, UNLABELLED, UNLABELLED, UNLABELLED, UNLABELLED]))


def test_realness_is_the_softmax_over_the_classes_and_one_more_with_logit_zero() -> None:
    logits = torch.randn(5, 3, generator=seeded())
    with_fake = torch.cat([logits, torch.zeros(5, 1)], dim=1).softmax(dim=1)
    torch.testing.assert_close(torch.sigmoid(realness(logits)), 1 - with_fake[:, 3])


def test_the_classifiers_loss_is_the_cross_entropy_over_classes_and_real_or_generated() -> None:
    model, batch = small(), mixed_batch()
    generator = seeded(6)
    with torch.no_grad():
        fake = model.generator(torch.randn(7, 3, generator=generator))
    logits = model.discriminator(torch.cat([batch.images, fake]), generator)
    p = torch.cat([logits, torch.zeros(14, 1)], dim=1).softmax(dim=1)
    real = -(1 - p[3:7, 2]).log().mean()
    generated = -p[7:, 2].log().mean()
    labelled = -logits[:3].softmax(dim=1)[torch.arange(3), batch.labels[:3]].log().mean()
    losses = model.discriminator_losses(batch, 0, seeded(6))
    torch.testing.assert_close(losses.parts["unlabelled"], real)
    torch.testing.assert_close(losses.parts["generated"], generated)
    torch.testing.assert_close(losses.total, labelled + (real + generated) / 2)


def test_the_generators_loss_is_the_distance_of_mean_features_and_trains_it_alone() -> None:
    model, batch = small(), mixed_batch()
    generator = seeded(6)
    wanted = model.discriminator.features(batch.images[3:], generator).mean(dim=0)
    found = model.discriminator.features(model.generator(torch.randn(7, 3, generator=generator)), generator).mean(dim=0)
    losses = model.generator_losses(batch, 0, seeded(6))
    torch.testing.assert_close(losses.total, (wanted - found).square().sum() / 6)
    losses.total.backward()
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())
    assert all(parameter.grad is not None for parameter in model.generator.parameters())
    with pytest.raises(ValueError, match=r"the batch has none: give some label -1"):
        model.generator_losses(Batch(batch.images[:3], batch.labels[:3]), 0, seeded())


def make_stream(labelled: int) -> MixedStream:
    """Halves under noise; `labelled` of them have a label."""
    batch = halves(80, SHAPE)
    images = (batch.images * 0.6 + 0.4 * torch.rand(batch.images.shape, generator=seeded(2))).mul(255).to(torch.uint8)
    few = BatchStream(images[:labelled], batch.labels[:labelled], batch_size=4, seed=1)
    return MixedStream(few, BatchStream(images, torch.full((80,), UNLABELLED), batch_size=12, seed=2))


def train(steps: int, checkpoint: Path | None = None, stop_after: int = 0) -> SemiSupervisedGAN:
    def stop(step: int, epoch: Epoch) -> None:
        if step == stop_after:
            raise InterruptedError

    model = small()
    plan = FitPlan(steps=steps, steps_per_epoch=-(-steps // 3), lr=0.004, betas=(0.5, 0.999), seed=3)
    fit(model, make_stream(4), plan, checkpoint=checkpoint, on_epoch=stop)
    return model


def test_a_fit_that_is_killed_and_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    expected: nn.Module = train(9)
    with pytest.raises(InterruptedError):
        train(9, tmp_path / "semi.ckpt", stop_after=3)
    for one, other in zip(expected.parameters(), train(9, tmp_path / "semi.ckpt").parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_learns_to_tell_the_halves_and_real_images_from_noise() -> None:
    model, batch = train(150), halves(40, SHAPE)
    images = batch.images * 0.6 + 0.4 * torch.rand(batch.images.shape, generator=seeded(8))
    assert (model.predict(images).argmax(dim=1) == batch.labels).float().mean() > 0.95
    noise: Tensor = torch.rand(40, *SHAPE, generator=seeded(9))
    assert realness(model.predict(images)).mean() > realness(model.predict(noise)).mean()


def test_a_model_rebuilt_from_its_config_and_state_predicts_the_same_bits() -> None:
    model = train(3)
    copy = SemiSupervisedGAN.from_config(model.to_config())
    copy.load_state_dict(model.state_dict())
    images = mixed_batch().images
    assert torch.equal(copy.predict(images), model.predict(images))
