"""DP-SGD: gradients by example against a loop, clipping, noise that is there, Poisson batches, exact resume."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.generators import Vae
from pipeline.config.pretrain import ConvLayer
from pipeline.models.cnn import ConvNet
from pipeline.models.losses import Batch, LossModel
from pipeline.row_noise import part_generator, shard_generator
from pipeline.training.fit import fit
from pipeline.training.generators import GeneratorData, GeneratorTask, fit_generator
from pipeline.training.plan import FitPlan, PrivateSteps
from pipeline.training.poisson import PoissonStream
from pipeline.training.private_module import example_gradients, private_gradients, sum_clipped
from pipeline.training.stream import BatchStream
from tests.test_vae import SMALL, small_vae

SEED = 5
PRIVATE = PrivateSteps(noise_multiplier=1.0, max_grad_norm=1.0, secret=11)


def small_net() -> ConvNet:
    layers: dict[str, Any] = {
        "kind": "conv",
        "below": "prepare",
        "num_filters": 3,
        "kernel_size": 5,
        "pool_size": 4,
        "visible": "bernoulli",
        "steps": 1,
        "batch_size": 1,
        "lr": 0.1,
        "schedule": "linear_tail",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "gibbs_steps": 1,
        "persistent": False,
        "sparsity_target": 0.1,
        "sparsity_cost": 0.0,
    }
    net = ConvNet([ConvLayer(**layers)], (1, 28, 28), 2, dropout=0.5)
    net.init_random(torch.Generator().manual_seed(0))
    return net


MODELS = {
    "vae": lambda: small_vae(seed=1),
    "gaussian vae": lambda: small_vae(seed=1, likelihood="gaussian"),
    "weighted vae": lambda: small_vae(seed=1, iw_samples=3),
    "classifier": small_net,
}


def some_batch(count: int = 6) -> Batch:
    images = torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    return Batch(images, torch.arange(count) % 2)


def ordinary_gradients(model: nn.Module, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
    model.zero_grad()
    loss: LossModel = model  # type: ignore[assignment]
    loss.training_losses(batch, 3, generator).total.backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", list(MODELS))
def test_gradients_by_example_are_those_of_a_loop_over_examples(name: str) -> None:
    model, batch = MODELS[name](), some_batch()
    found = example_gradients(model, batch, 3, part_generator(SEED, "noise", 3, first=0, total=6))
    for place in range(6):
        alone = Batch(batch.images[place : place + 1], batch.labels[place : place + 1])
        own = part_generator(SEED, "noise", 3, first=place, total=6)
        for key, value in ordinary_gradients(model, alone, own).items():
            assert torch.allclose(found[key][place], value, rtol=1e-3, atol=1e-4 * float(value.abs().max())), key


@pytest.mark.parametrize("name", ["vae", "classifier"])
def test_without_clipping_and_noise_the_gradient_is_the_ordinary_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.training.private_module.EXAMPLES_AT_ONCE", 4)
    model, batch = MODELS[name](), some_batch()
    free = replace(PRIVATE, noise_multiplier=0.0, max_grad_norm=1e9)
    found = private_gradients(model, batch, 3, free, SEED, expected=6)
    expected = ordinary_gradients(model, batch, shard_generator(SEED, "noise", 3))
    for key, value in expected.items():
        assert torch.allclose(found[key], value, rtol=1e-3, atol=1e-4 * float(value.abs().max())), key


def test_every_example_is_clipped_to_the_norm() -> None:
    model, batch = MODELS["vae"](), some_batch()
    by_example = example_gradients(model, batch, 3, part_generator(SEED, "noise", 3, first=0, total=6))
    flat_BP = torch.cat([value.flatten(1) for value in by_example.values()], dim=1)
    norms = flat_BP.norm(dim=1)
    limit = float(norms.median()) + 1e-3  # some are longer and some shorter
    assert 0 < int((norms > limit).sum()) < 6
    expected = sum(row if row.norm() <= limit else row * limit / row.norm() for row in flat_BP)
    found = torch.cat([value.flatten() for value in sum_clipped(model, batch, 3, limit, SEED).values()])
    assert torch.allclose(found, torch.as_tensor(expected), rtol=1e-3, atol=1e-4)
    one = Batch(batch.images[:1], batch.labels[:1])
    tiny = torch.cat([value.flatten() for value in sum_clipped(model, one, 3, 1e-3, SEED).values()])
    assert float(tiny.norm()) == pytest.approx(1e-3, rel=1e-4)


def test_noise_of_the_stated_deviation_is_added_anew_at_each_step_and_secret() -> None:
    model, batch = MODELS["vae"](), some_batch()
    clean = private_gradients(model, batch, 3, replace(PRIVATE, noise_multiplier=0.0), SEED, expected=4)

    def noise(step: int, secret: int) -> Tensor:
        steps = PrivateSteps(noise_multiplier=3.0, max_grad_norm=0.5, secret=secret)
        quiet = replace(steps, noise_multiplier=0.0)
        loud, still = (private_gradients(model, batch, step, each, SEED, expected=4) for each in (steps, quiet))
        return torch.cat([(loud[key] - still[key]).flatten() for key in clean])

    first = noise(3, 11)
    assert float(first.std()) == pytest.approx(3.0 * 0.5 / 4, rel=0.03)
    assert float(first.mean()) == pytest.approx(0, abs=0.01)
    assert torch.equal(noise(3, 11), first)
    for other in (noise(4, 11), noise(3, 12)):
        correlation = float(torch.corrcoef(torch.stack([first, other]))[0, 1])
        assert abs(correlation) < 0.05


def test_an_empty_batch_is_noise_alone() -> None:
    model = MODELS["vae"]()
    nobody = Batch(torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.int64))
    found = private_gradients(model, nobody, 0, PRIVATE, SEED, expected=4)
    assert float(torch.cat([value.flatten() for value in found.values()]).std()) == pytest.approx(1 / 4, rel=0.03)


def make_stream(count: int = 200, batch_size: int = 20) -> PoissonStream:
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 28, 28)
    return PoissonStream(images, torch.arange(count) % 2, batch_size=batch_size, seed=7)


def test_poisson_batches_are_independent_draws_of_each_image() -> None:
    stream = make_stream()
    joins = np.zeros((400, 200))
    for step in range(400):
        found = (stream.batch(step).images[:, 0, 0, 0] * 255).round().long()
        joins[step, found.numpy()] = 1
        assert len(found) == joins[step].sum()
    sizes = joins.sum(axis=1)
    assert joins.mean() == pytest.approx(0.1, abs=0.005)
    assert sizes.var() == pytest.approx(200 * 0.1 * 0.9, rel=0.25)  # a fixed size would have 0
    assert joins.mean(axis=0).std() == pytest.approx((0.09 / 400) ** 0.5, rel=0.25)
    among = np.asarray(np.corrcoef(joins.T))[np.triu_indices(200, 1)]
    assert abs(among.mean()) < 0.003  # permutations have -1 / 199


def test_poisson_batches_depend_on_seed_and_step_alone() -> None:
    again, whole = make_stream(), make_stream().batch(9)
    assert torch.equal(again.batch(9).images, whole.images)
    assert torch.equal(again.batch(9, slice(2, 5)).images, whole.images[2:5])
    assert len(again.batch(10).labels) != len(whole.labels) or not torch.equal(again.batch(10).images, whole.images)
    with pytest.raises(ValueError, match="batch_size 201: lower it"):
        make_stream(batch_size=201)


def plan(**changes: Any) -> FitPlan:
    values: dict[str, Any] = {"steps": 4, "steps_per_epoch": 2, "lr": 0.01, "seed": SEED, "private": PRIVATE}
    return FitPlan(**(values | changes))


def test_a_private_fit_resumes_to_the_same_bits_and_tells_nothing_of_its_losses(tmp_path: Path) -> None:
    whole, halted = small_vae(seed=1), small_vae(seed=1)
    history = fit(whole, make_stream(), plan(), validation=[some_batch()])
    assert all(not key.startswith("train/") for entry in history for key in entry)
    assert all("val/loss" in entry for entry in history)

    class KilledError(Exception):
        pass

    def kill(step: int, _: dict[str, float]) -> None:
        if step == 2:
            raise KilledError

    with pytest.raises(KilledError):
        fit(halted, make_stream(), plan(), checkpoint=tmp_path / "a.ckpt", on_epoch=kill)
    resumed = small_vae(seed=9)
    fit(resumed, make_stream(), plan(), checkpoint=tmp_path / "a.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    other = small_vae(seed=1)
    fit(other, make_stream(), plan(private=replace(PRIVATE, secret=12)))
    assert not torch.equal(other.posterior.weight, whole.posterior.weight)


def test_a_private_generator_depends_on_its_secret() -> None:
    images = some_batch(12).images.mul(255).byte().numpy()
    labels = np.tile(np.arange(len(images)) % 2, (2, 1))
    data = GeneratorData(images, labels, images, labels[0], 2)
    config = Vae(**SMALL | {"steps": 2, "batch_size": 3})

    def task(draw: int, secret: int) -> GeneratorTask:
        private = PRIVATE.with_secret_of("draw", secret)
        fixed: dict[str, Any] = {"seed": 0, "precision": "32", "accelerator": "cpu", "checkpoint": None, "epochs": 1}
        return GeneratorTask(config=config, draw=draw, private=private, **fixed)

    weights = [fit_generator(task(0, secret), data).state["posterior.weight"] for secret in (0, 0, 1)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_what_the_guarantee_does_not_cover_is_refused() -> None:
    batch = some_batch()
    shuffled = BatchStream(batch.images, batch.labels, batch_size=2, seed=0)
    with pytest.raises(ValueError, match="a private fit needs a PoissonStream"):
        fit(small_vae(), shuffled, plan())
    with pytest.raises(ValueError, match=r"got 1 and bf16: set run\.workers"):
        fit(small_vae(), make_stream(), plan(precision="bf16"))
