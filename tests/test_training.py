from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pipeline.models.losses import Batch, Losses
from pipeline.models.rbm import RBM
from pipeline.seeding import make_generator
from pipeline.training.fit import fit
from pipeline.training.plan import Epoch, FitPlan, schedule_factor
from pipeline.training.stream import BatchStream, MixedStream, in_batches


class Regression(nn.Module):
    """Dropout and generator noise: both must be functions of (seed, step) for a resume to be exact."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        noise = torch.rand(batch.labels.shape, generator=generator)
        error = (self.net(batch.images)[:, 0] - batch.labels - noise).square().mean()
        return Losses(error, {"error": error})

    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return self.training_losses(batch, step, generator)


class Toy(nn.Module):
    """An adversarial model of two scalars a side."""

    discriminator_steps = 1

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.discriminator = nn.Linear(1, 1), nn.Linear(1, 1)
        self.averages = 0
        for parameter in self.parameters():
            nn.init.constant_(parameter, 0.1)

    def discriminator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        real = batch.images.mean((1, 2, 3))[:, None]
        fake = self.generator(torch.rand(real.shape, generator=generator)).detach()
        loss = self.discriminator(fake).mean() - self.discriminator(real).mean()
        return Losses(loss, {})

    def generator_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return Losses(-self.discriminator(self.generator(torch.rand(4, 1, generator=generator))).mean(), {})

    def update_average(self, step: int) -> None:
        self.averages += 1


def data(count: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % 3


def plan(**changes: object) -> FitPlan:
    return FitPlan(**{"steps": 10, "steps_per_epoch": 4, "lr": 0.01, "seed": 3, **changes})  # type: ignore[arg-type]


def stream(batch_size: int = 6) -> BatchStream:
    return BatchStream(*data(), batch_size=batch_size, seed=5)


def test_every_pass_of_a_stream_shows_every_image_once() -> None:
    images = data(20)[0]
    batches = [BatchStream(images, torch.arange(20), batch_size=6, seed=5).batch(step) for step in range(10)]
    shown = torch.cat([batch.labels for batch in batches])
    for number in range(3):
        assert sorted(shown[number * 20 : (number + 1) * 20].tolist()) == list(range(20))
    assert shown[:20].tolist() != shown[20:40].tolist()


def test_a_batch_depends_on_its_step_alone() -> None:
    forward, backward = stream(), stream()
    ahead = [forward.batch(step).images for step in range(8)]
    behind = [backward.batch(step).images for step in reversed(range(8))]
    assert all(torch.equal(left, right) for left, right in zip(ahead, reversed(behind), strict=True))


def test_mixed_stream_joins_real_and_synthetic() -> None:
    mixed = MixedStream(stream(4), stream(2)).batch(3)
    assert torch.equal(mixed.labels, torch.cat([stream(4).batch(3).labels, stream(2).batch(3).labels]))


def test_validation_batches_hold_the_whole_set_in_order() -> None:
    images, labels = data(20)
    batches = in_batches(images, labels, 6)
    assert torch.equal(torch.cat([batch.labels for batch in batches]), labels)
    assert float(batches[0].images.max()) <= 1.0


def test_an_epochs_validation_part_is_the_mean_over_images_not_over_batches() -> None:
    class Mean(Regression):
        def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
            value = batch.labels.float().mean()
            return Losses(value, {"label": value})

    history = fit(Mean(), stream(), plan(), validation=in_batches(*data(), 7))
    assert history[-1]["val/label"] == pytest.approx(float(data()[1].float().mean()))
    assert [entry["step"] for entry in history] == [4, 8, 10]


@pytest.mark.parametrize("stop_after", [4, 8])
def test_a_fit_that_is_stopped_and_resumed_ends_with_the_same_bits(tmp_path: Path, stop_after: int) -> None:
    cosine, validation = plan(schedule="cosine"), in_batches(*data(), 7)
    undisturbed, stopped = Regression(), Regression()
    expected = fit(undisturbed, stream(), cosine, validation=validation)

    def stop(step: int, epoch: Epoch) -> None:
        if step == stop_after:
            raise InterruptedError

    checkpoint = tmp_path / "fit.ckpt"
    with pytest.raises(InterruptedError):
        fit(
            stopped,
            stream(),
            plan(schedule="cosine"),
            validation=in_batches(*data(), 7),
            checkpoint=checkpoint,
            on_epoch=stop,
        )
    resumed = Regression()
    again = fit(resumed, stream(), plan(schedule="cosine"), validation=in_batches(*data(), 7), checkpoint=checkpoint)
    assert again == expected
    for left, right in zip(undisturbed.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


def test_resuming_an_adversarial_fit_ends_with_the_same_bits(tmp_path: Path) -> None:
    undisturbed, resumed = Toy(), Toy()
    expected = fit(undisturbed, stream(), plan())

    def stop(step: int, epoch: Epoch) -> None:
        if step == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fit(Toy(), stream(), plan(), checkpoint=tmp_path / "gan.ckpt", on_epoch=stop)
    assert fit(resumed, stream(), plan(), checkpoint=tmp_path / "gan.ckpt") == expected
    assert undisturbed.averages == 10
    for left, right in zip(undisturbed.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(left, right)


def test_an_adversarial_step_is_two_plain_updates_in_turn() -> None:
    gan, oracle = Toy(), Toy()
    fit(gan, stream(), plan(steps=1, steps_per_epoch=1))
    torch.manual_seed(0)

    generator = make_generator(3, "noise", 0)
    for module, losses in (
        (oracle.discriminator, oracle.discriminator_losses),
        (oracle.generator, oracle.generator_losses),
    ):
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.0, fused=True)
        optimizer.zero_grad()
        losses(stream().batch(0), 0, generator).total.backward()
        optimizer.step()
    for left, right in zip(gan.parameters(), oracle.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_loss_that_is_not_finite_stops_with_step_part_and_remedy() -> None:
    class Diverging(Regression):
        def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
            losses = super().training_losses(batch, step, generator)
            bad = losses.total * (torch.nan if step == 6 else 1.0)
            return Losses(bad, {"error": bad})

    with pytest.raises(ValueError, match=r"step 6: loss = nan, error = nan; lower the learning rate"):
        fit(Diverging(), stream(), plan())


def test_what_is_only_shown_is_the_mean_over_watched_updates_and_moves_no_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = data()
    ends: dict[int, Tensor] = {}
    seen: list[float | None] = []

    class Seen(RBM):
        def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
            losses = super().training_losses(batch, step, generator)
            error = losses.parts.get("reconstruction_error")
            seen.append(None if error is None else float(error))
            return losses

    for every in (1, 4):
        monkeypatch.setattr("pipeline.training.module.WATCH_EVERY", every)
        seen.clear()
        model = Seen(images[0].numel(), 5)
        model.initialise(Batch(images.float() / 255, labels), make_generator(0))
        history = fit(model, stream(), plan(steps=20, steps_per_epoch=8, optimizer="sgd", lr=0.1))
        watched = [step for step, value in enumerate(seen) if value is not None]
        assert watched == list(range(0, 20, every))
        for number, epoch in enumerate(history):
            shown = [value for value in seen[8 * number : 8 * number + 8] if value is not None]
            assert epoch["train/reconstruction_error"] == pytest.approx(sum(shown) / len(shown), rel=1e-5)
        ends[every] = model.weight
    assert torch.equal(ends[1], ends[4])


def test_weight_decay_spares_biases() -> None:
    class Still(Regression):
        def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
            return Losses(sum(p.sum() for p in self.parameters()) * 0.0, {})  # type: ignore[arg-type]

    model, before = Still(), Still()
    fit(model, stream(), plan(weight_decay=0.1))
    for left, right in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(left, right) == (left.ndim < 2)


def test_schedules_start_at_one_and_end_at_zero() -> None:
    assert schedule_factor("cosine", 0, 10) == 1.0
    assert schedule_factor("cosine", 5, 10) == pytest.approx(0.5)
    assert schedule_factor("linear_tail", 5, 10) == 1.0
    assert schedule_factor("linear_tail", 10, 10) == schedule_factor("cosine", 10, 10) == 0.0
    assert schedule_factor("constant", 9, 10) == 1.0
