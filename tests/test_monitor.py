"""What is watched of a layer in training: likelihoods against enumeration, refusals, weights that notice nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.config.monitor import Monitor
from pipeline.models.dbn import DBN, GreedyLayer
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli
from pipeline.seeding import make_generator
from pipeline.training.monitor import LayerMonitor, say_why_refused
from tests.test_dbn import conv, dense
from tests.test_greedy import CONV, DENSE, IMAGE_SHAPE, LOOKS, column, train

SHAPE = (1, 3, 4)


def make_monitor(scale: float, monitor: Monitor) -> tuple[RBM, LayerMonitor]:
    """An RBM of random weights over twelve grey pixels, and what watches it over six updates in epochs of two."""
    model = GreedyLayer(DBN([dense(8, "prepare", sparsity_cost=0.0)], SHAPE))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.top.parameters():
            parameter.normal_(0, scale, generator=generator)
    train, held_out = torch.rand(2, 300, *SHAPE, generator=generator)
    assert isinstance(model.top, RBM)
    return model.top, LayerMonitor(model, train, held_out, monitor=monitor, steps=6, steps_per_epoch=2, seed=3)


@torch.no_grad()
def test_the_log_likelihood_is_that_of_enumeration_and_its_interval_holds_it() -> None:
    rbm, monitor = make_monitor(0.8, LOOKS)
    point = monitor.measure(2)
    v = sample_bernoulli(monitor._inputs[1].flatten(1), make_generator(3, "binary"))
    exact = -float(rbm.free_energy(v).double().mean()) - float(rbm.log_partition())
    assert point["log_likelihood"] == pytest.approx(exact, abs=0.2)
    assert point["log_likelihood_low"] <= exact <= point["log_likelihood_high"]
    assert 50 <= point["ess"] <= 100


@torch.no_grad()
def test_the_pseudo_likelihood_of_a_small_layer_is_the_exact_one() -> None:
    rbm, monitor = make_monitor(0.8, LOOKS)
    v = sample_bernoulli(monitor._inputs[1].flatten(1), make_generator(3, "units"))
    every = (torch.arange(2**12)[:, None] >> torch.arange(12) & 1).float()
    log_p = torch.log_softmax(-rbm.free_energy(every).double(), 0)
    state = (v.long() << torch.arange(12)).sum(1)
    both = [torch.stack([log_p[state], log_p[state ^ (1 << unit)]]) for unit in range(12)]
    exact = sum(float((log_p[state] - torch.logsumexp(pair, 0)).mean()) for pair in both)
    assert monitor.measure(2)["pseudo_likelihood"] == pytest.approx(exact, abs=1e-4)


def test_a_look_with_few_effective_chains_leaves_a_reason_and_no_number() -> None:
    settings = replace(LOOKS, ais_temperatures=2)
    _, monitor = make_monitor(4.0, settings)
    point = monitor.measure(2)
    assert point["ess"] < 50
    assert [name for name in point if name.startswith("log_likelihood")] == []
    reason = say_why_refused(dense(8), settings, {"log_likelihood": None, **point})
    assert "effective chains of 100, fewer than 50: raise num_temperatures (now 2) or num_chains" in reason


@pytest.mark.parametrize(("looks", "due"), [(0, []), (1, [6]), (2, [4, 6]), (3, [2, 4, 6]), (9, [2, 4, 6])])
def test_looks_are_spread_over_the_updates_and_the_last_is_at_the_end(looks: int, due: list[int]) -> None:
    _, monitor = make_monitor(0.1, replace(LOOKS, ais_looks=looks))
    assert [step for step in (2, 4, 6) if "ess" in monitor.measure(step)] == due


def test_layers_without_an_annealed_likelihood_say_why() -> None:
    nothing = {"log_likelihood": None, "ess": None}
    for layer in (conv(3, 4), dense(3, visible="gaussian"), dense(3, hidden="relu")):
        assert "dense layers of bernoulli units alone" in say_why_refused(layer, LOOKS, nothing)
    assert say_why_refused(dense(3), replace(LOOKS, ais_looks=0), nothing) == "monitor.ais_looks is 0"
    assert say_why_refused(dense(3), LOOKS, {"log_likelihood": -3.0, "ess": 60.0}) == ""


def test_watching_changes_no_bit_of_the_weights(tmp_path: Path) -> None:
    below, _ = train(DBN([], IMAGE_SHAPE), CONV, tmp_path / "below", monitor=LOOKS)
    unwatched, plain = train(below, DENSE, tmp_path / "plain")
    watched, curves = train(below, DENSE, tmp_path / "watched", monitor=LOOKS)
    assert all(torch.equal(tensor, watched.state_dict()[name]) for name, tensor in unwatched.state_dict().items())
    for name in ("train", "validation", "gap", "reconstruction_error"):
        assert column(curves, name) == column(plain, name)
    assert len(set(column(curves, "pseudo_likelihood"))) == len(curves)
    assert sum(point["ess"] is not None for point in curves) == 3
    assert all(point["ess"] is point["pseudo_likelihood"] is None for point in plain)
