from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config.monitor import Monitor
from pipeline.config.pretrain import ConvLayer, DenseLayer
from pipeline.models.dbn import DBN
from pipeline.training.greedy import LayerData, LayerTask, fit_layer
from pipeline.training.monitor import Curve, Point
from pipeline.training.plan import FitPlan, schedule_factor
from pipeline.training.stored import load_dbn, save_dbn

IMAGE_SHAPE = (1, 12, 12)
COMMON: dict[str, Any] = {
    "visible": "bernoulli",
    "steps": 30,
    "batch_size": 16,
    "lr": 0.1,
    "schedule": "linear_tail",
    "momentum": 0.5,
    "weight_decay": 0.0,
    "gibbs_steps": 1,
    "sparsity_target": 0.1,
    "sparsity_cost": 0.0,
}
CONV = ConvLayer(kind="conv", below="prepare", num_filters=4, kernel_size=5, pool_size=2, persistent=False, **COMMON)
DENSE = DenseLayer(
    kind="dense",
    below="pretrain/conv",
    num_hidden=8,
    persistent=True,
    num_temperatures=1,
    centred=False,
    hidden="bernoulli",
    **COMMON,
)
LOOKS = Monitor(ais_looks=3, ais_chains=100, ais_temperatures=100, chain_rounds=[0])


def bars(count: int, seed: int) -> Tensor:
    """Images of one bright column each."""
    columns = torch.randint(0, 12, (count,), generator=torch.Generator().manual_seed(seed))
    images = torch.zeros(count, *IMAGE_SHAPE, dtype=torch.uint8)
    images[torch.arange(count), 0, :, columns] = 255
    return images


def column(curves: Curve, name: str) -> list[float]:
    """The values of a column that every point has."""
    values = [point[name] for point in curves]
    assert None not in values
    return cast(list[float], values)


def train(
    below: DBN, layer: ConvLayer | DenseLayer, folder: Path, stop_at: int = -1, monitor: Monitor | None = None
) -> tuple[DBN, Curve]:
    def stop(step: int, epoch: Point) -> None:
        if step == stop_at:
            raise InterruptedError

    task = LayerTask(
        name="layer",
        below=below,
        layer=layer,
        seed=0,
        accelerator="cpu",
        precision="32",
        checkpoint=folder / "fit.ckpt",
        monitor=monitor,
    )
    return fit_layer(task, LayerData(bars(64, 0).numpy(), bars(32, 1).numpy()), stop)


def test_a_layer_trains_on_top_of_frozen_ones_and_learns(tmp_path: Path) -> None:
    first, curves = train(DBN([], IMAGE_SHAPE), replace(CONV, lr=3.0), tmp_path / "1")
    second, _ = train(first, DENSE, tmp_path / "2")
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), f"{name} moved while the layer above it was trained"
    errors = column(curves, "reconstruction_error")
    assert errors[-1] < 0.8 * errors[0]
    gaps, *both = (np.array(column(curves, name)) for name in ("gap", "validation", "train"))
    assert gaps == pytest.approx(both[0] - both[1])


@pytest.mark.parametrize("layer", [CONV, replace(CONV, persistent=True, gibbs_steps=2), DENSE])
def test_a_killed_layer_goes_on_to_the_same_bits_and_curves(tmp_path: Path, layer: ConvLayer | DenseLayer) -> None:
    below = DBN([], IMAGE_SHAPE)
    if isinstance(layer, DenseLayer):
        below, _ = train(below, CONV, tmp_path / "below")
    expected, curves = train(below, layer, tmp_path / "whole", monitor=LOOKS)
    with pytest.raises(InterruptedError):
        train(below, layer, tmp_path / "killed", stop_at=14, monitor=LOOKS)
    resumed, again = train(below, layer, tmp_path / "killed", monitor=LOOKS)
    assert again == curves
    for name, tensor in expected.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_sampled_training_sees_binary_draws_of_grey_images() -> None:
    """Half-grey images have no spread, binary draws of them a variance of a quarter."""
    grey = torch.full((64, *IMAGE_SHAPE), 128, dtype=torch.uint8).numpy()
    layer = replace(DENSE, below="prepare", lr=1e-6)
    errors: list[float] = []
    for sampled in (False, True):
        task = LayerTask(
            name="layer",
            below=DBN([], IMAGE_SHAPE),
            layer=layer,
            seed=0,
            accelerator="cpu",
            precision="32",
            checkpoint=None,
            sampled=sampled,
        )
        _, curves = fit_layer(task, LayerData(grey, grey), lambda *_: None)
        errors.append(column(curves, "reconstruction_error")[-1])
    assert errors == pytest.approx([0, 0.25], abs=0.002)


def test_a_saved_stack_gives_the_same_activations(tmp_path: Path) -> None:
    dbn, _ = train(DBN([], IMAGE_SHAPE), CONV, tmp_path)
    save_dbn(tmp_path, dbn)
    images = bars(5, 2).float() / 255
    assert torch.equal(load_dbn(tmp_path).mean_field(images), dbn.mean_field(images))


@pytest.mark.parametrize(("schedule", "share"), [("constant", 1.0), ("linear_tail", 0.5), ("cosine", 0.1464466)])
def test_the_rate_of_a_layer_follows_its_schedule(
    schedule: str, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """share: of the rate, at update 75 of 100."""
    plans: list[FitPlan] = []

    def keep(_model: object, _stream: object, plan: FitPlan, **_: object) -> list[Any]:
        plans.append(plan)
        return []

    monkeypatch.setattr("pipeline.training.fit.fit", keep)
    train(DBN([], IMAGE_SHAPE), replace(DENSE, below="prepare", schedule=schedule), tmp_path)
    assert schedule_factor(plans[0].schedule, 75, 100) == pytest.approx(share)
