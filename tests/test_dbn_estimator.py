"""The deep belief network outside the pipeline: scikit-learn's own checks, enumeration, and what up-down changes."""

import pickle
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from pipeline.dbn_estimator import DBN
from pipeline.metrics.likelihood import MIN_ESS
from tests.rbm_oracles import states
from tests.test_estimators_api import PIPELINES, binary
from tests.test_updown import bars, enumerate_bound, log_conditional

BY_PLACE = "the hidden states that score_samples draws depend on a row's place in X, as its noise does"
SCORES = {"check_methods_sample_order_invariance": BY_PLACE, "check_methods_subset_invariance": BY_PLACE}


def fitted(**options: object) -> DBN:
    return DBN(**{"layer_sizes": (8, 6), "epochs": 5, **options}).fit(bars(300, 0).numpy())  # type: ignore[arg-type]


@pytest.mark.parametrize("fine_tune", [None, "updown"])
def test_scikit_learns_checks_pass(fine_tune: str | None) -> None:
    estimator = make_pipeline(
        MinMaxScaler(clip=True), DBN((5, 3), epochs=1, fine_tune=fine_tune, fine_tune_epochs=1, num_draws=2)
    )
    assert isinstance(estimator, Pipeline)
    expected = SCORES | PIPELINES
    results = check_estimator(estimator, expected_failed_checks=expected, on_skip=None, on_fail="raise")
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(expected)


def test_it_fails_a_check_only_by_refusing_inputs_outside_0_to_1() -> None:
    results = check_estimator(DBN((5, 3), epochs=1, num_draws=2), on_skip=None, on_fail=None)
    failed = [result for result in results if result["status"] == "failed"]
    assert failed
    assert [result["check_name"] for result in failed if "must be in [0, 1], got" not in str(result["exception"])] == []


@pytest.mark.parametrize("fine_tune", [None, "updown"])
def test_scores_are_the_enumerated_bound_and_below_the_exact_log_likelihood(fine_tune: str | None) -> None:
    model, v = fitted(fine_tune=fine_tune, num_draws=2000), bars(20, 1)
    with torch.no_grad():
        bound = enumerate_bound(model.model_, v).numpy()
        (layer,), top, h = model.model_.layers(), model.model_.top, states(8).float()
        log_p = log_conditional(layer.down(h)[None], v[:, None]) - top.free_energy(h) - top.log_partition()
        exact = torch.logsumexp(log_p, 1).numpy()
    scores = model.score_samples(v.numpy())
    assert np.abs(scores - bound).max() < 0.25
    assert abs((scores - bound).mean()) < 0.05
    assert bool((bound < exact).all())
    assert model.score(v.numpy()) == pytest.approx(scores.mean())


def test_a_top_layer_too_large_to_enumerate_is_annealed_or_refused() -> None:
    options = {"layer_sizes": (8, 21), "epochs": 2}
    model = fitted(**options)
    assert MIN_ESS < model.partition_.ess <= 100
    with torch.no_grad():  # summed over the top's visible units, which are few
        exact = float(torch.logsumexp(-model.model_.top.free_energy(states(8).float()).double(), 0))
    assert model.partition_.log_z == pytest.approx(exact, abs=0.1)
    few = fitted(**options, ais_chains=10)
    with pytest.raises(ValueError, match=r"effective chains of 10, fewer than 50: .*ais_temperatures and ais_chains"):
        few.score_samples(bars(3, 1).numpy())


def test_up_down_parts_the_weights_and_improves_the_score_of_other_rows() -> None:
    options = {"layer_sizes": (8, 8), "epochs": 20, "lr": 0.1, "batch_size": 20}
    plain = fitted(**options)
    tuned = fitted(**options, fine_tune="updown", fine_tune_epochs=20, fine_tune_lr=0.1)
    for model, parted in ((plain, False), (tuned, True)):
        (layer,) = model.model_.layers()
        assert torch.equal(layer.recognition, layer.generative) is not parted
        assert len(model.histories_) == 2 + parted
    rows = bars(500, 1).numpy()
    assert tuned.score(rows) > plain.score(rows)


def test_samples_have_the_models_distribution() -> None:
    small = DBN((4, 3), epochs=1).fit(states(3).numpy())
    (layer,), top, h = small.model_.layers(), small.model_.top, states(4).float()
    with torch.no_grad():
        layer.generative.mul_(0).add_(torch.linspace(-3, 3, 12).view(3, 4))
        top.weight.mul_(0).add_(torch.linspace(2, -2, 12).view(4, 3))
        log_p = log_conditional(layer.down(h)[None], states(3).float()[:, None]) - top.free_energy(h)
        exact = torch.softmax(torch.logsumexp(log_p, 1), 0).numpy()
    drawn = small.sample(20_000, steps=50)
    shares = np.bincount((drawn @ [4, 2, 1]).astype(int), minlength=8) / len(drawn)
    assert np.all(np.abs(shares - exact) < 4.5 * np.sqrt(exact * (1 - exact) / len(drawn)))


def test_equal_random_states_give_equal_bits_and_pickles_bring_it_back() -> None:
    v = binary(60)
    models = [DBN((6, 5), epochs=1, fine_tune="updown", random_state=seed).fit(v) for seed in (1, 1, 2)]
    assert np.array_equal(models[0].transform(v), models[1].transform(v))
    assert not np.array_equal(models[0].transform(v), models[2].transform(v))
    back = pickle.loads(pickle.dumps(models[0]))
    for draw in (lambda m: m.score_samples(v), lambda m: m.sample(5, steps=2), lambda m: m.transform(v)):
        assert np.array_equal(draw(models[0]), draw(models[1]))
        assert np.array_equal(draw(models[0]), draw(back))
    assert list(models[0].get_feature_names_out()) == [f"dbn{number}" for number in range(5)]
    np.testing.assert_allclose(models[0].transform(v.astype(np.float32)), models[0].transform(v), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"layer_sizes": ()}, "DBN: layer_sizes must be one size a layer, at least one, got (): give it"),
        ({"layer_sizes": (5, 0)}, "DBN: num_hidden must be >= 1, got 0: give it"),
        ({"fine_tune": "wake"}, "DBN: fine_tune must be None or updown, got 'wake': give it"),
        ({"fine_tune_lr": 0.0}, "DBN: fine_tune_lr must be > 0, got 0.0: give it"),
        ({"num_draws": 0}, "DBN: num_draws must be >= 1, got 0: give it"),
        ({"lr": -1.0}, "DBN: lr must be > 0, got -1.0: give it"),
    ],
)
def test_a_parameter_out_of_range_is_named_with_its_rule(options: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        fitted(**options)


def test_inputs_outside_0_to_1_are_refused_with_a_remedy() -> None:
    model, v = fitted(), bars(5, 0).numpy()
    v[0, 0] = -0.5
    for verb in (clone(model).fit, model.transform, model.score_samples):
        with pytest.raises(ValueError, match=r"Negative values.*inputs must be in \[0, 1\].*MinMaxScaler\(clip=True\)"):
            verb(v)
