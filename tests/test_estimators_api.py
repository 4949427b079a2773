"""The estimator outside the pipeline: scikit-learn's own checks, and its BernoulliRBM as the oracle."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import BernoulliRBM
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from pipeline.estimators import RBM
from pipeline.models import rbm
from pipeline.weights import save_weights
from tests.readme_tree import README, ROOT

Floats = npt.NDArray[np.float64]

BY_PLACE = "the unit that score_samples looks at depends on a row's place in X, as in scikit-learn's BernoulliRBM"
SCORES = {"check_methods_sample_order_invariance": BY_PLACE, "check_methods_subset_invariance": BY_PLACE}
IN_PLACE = "a scikit-learn Pipeline fits its last step in place"
PIPELINES = {"check_estimators_overwrite_params": IN_PLACE, "check_dont_overwrite_parameters": IN_PLACE}


def digits() -> tuple[Floats, npt.NDArray[np.int64]]:
    """8x8 pictures in [0, 1] and their classes; the last rows are other people's hands than the first."""
    X, y = load_digits(return_X_y=True)
    return X / 16, y


def binary(rows: int = 200) -> Floats:
    return (digits()[0][:rows] > 0.5).astype(np.float64)


def fitted(**options: object) -> RBM:
    return RBM(**{"num_hidden": 16, "epochs": 2, **options}).fit(binary())  # type: ignore[arg-type]


def twin(model: RBM) -> BernoulliRBM:
    """scikit-learn's estimator with the same weights."""
    other = BernoulliRBM(model.num_hidden, n_iter=0, random_state=model.seed_).fit(np.eye(model.n_features_in_))
    other.components_ = model.weights_.T.astype(np.float64)
    other.intercept_hidden_ = model.hidden_bias_.astype(np.float64)
    other.intercept_visible_ = model.visible_bias_.astype(np.float64)
    return other


def compute_pseudo_likelihood(model: BernoulliRBM, v: Floats) -> float:
    """Its exact mean: the sum over all units, of which score_samples draws one."""
    energy = model._free_energy(v)
    total = np.zeros(len(v))
    for unit in range(v.shape[1]):
        flipped = v.copy()
        flipped[:, unit] = 1 - flipped[:, unit]
        total -= np.logaddexp(0, energy - model._free_energy(flipped))
    return float(total.mean())


# --- scikit-learn's contract


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        (RBM(5, epochs=2, visible="gaussian", lr=0.005), SCORES),
        (make_pipeline(MinMaxScaler(clip=True), RBM(5, epochs=2)), SCORES | PIPELINES),
    ],
    ids=["gaussian", "bernoulli, scaled"],
)
def test_scikit_learns_checks_pass(estimator: RBM | Pipeline, expected: dict[str, str]) -> None:
    results = check_estimator(estimator, expected_failed_checks=expected, on_skip=None, on_fail="raise")
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(expected)


def test_bernoulli_units_fail_a_check_only_by_refusing_inputs_outside_0_to_1() -> None:
    results = check_estimator(RBM(5, epochs=2), on_skip=None, on_fail=None)
    failed = [result for result in results if result["status"] == "failed"]
    assert failed
    assert [result["check_name"] for result in failed if "must be in [0, 1], got" not in str(result["exception"])] == []


def test_a_grid_search_over_a_pipeline_finds_that_one_feature_is_too_few() -> None:
    X, y = digits()
    pipeline = Pipeline([("rbm", RBM(epochs=3)), ("classifier", LogisticRegression(max_iter=1000))])
    search = GridSearchCV(pipeline, {"rbm__num_hidden": [1, 32]}, cv=2).fit(X[:300], y[:300])
    assert search.best_params_ == {"rbm__num_hidden": 32}
    assert search.best_estimator_[0].weights_.shape == (64, 32)


def test_data_frames_come_back_with_names() -> None:
    frame = pd.DataFrame(binary(40), columns=[f"pixel{number}" for number in range(64)])
    model = RBM(3, epochs=1).set_output(transform="pandas").fit(frame)
    assert list(model.transform(frame)) == ["rbm0", "rbm1", "rbm2"]
    assert np.array_equal(model.transform(frame), RBM(3, epochs=1).fit(binary(40)).transform(binary(40)))
    with pytest.raises(ValueError, match="feature names"):
        model.transform(frame.rename(columns={"pixel0": "other"}))


def test_importing_it_does_not_import_lightning() -> None:
    code = (
        "import sys, pipeline.estimators\nprint([m for m in ('pytorch_lightning', 'ray', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- maths


def test_features_energies_and_scores_are_those_of_scikit_learns_rbm_with_the_same_weights() -> None:
    model, v = fitted(random_state=3), binary()
    other = twin(model)
    np.testing.assert_allclose(model.transform(v), other.transform(v), rtol=1e-8)
    np.testing.assert_allclose(model.free_energy(v), other._free_energy(v), rtol=1e-8)
    np.testing.assert_allclose(model.score_samples(v), other.score_samples(v), rtol=1e-8)
    assert model.score(v) == pytest.approx(other.score_samples(v).mean())
    np.testing.assert_allclose(model.transform(v.astype(np.float32)), other.transform(v), atol=1e-5)


def test_samples_and_gibbs_steps_have_the_models_distribution() -> None:
    v = np.array([[int(bit) for bit in f"{number:03b}"] for number in range(8)], dtype=np.float64)
    model = RBM(2, epochs=1).fit(v)
    with torch.no_grad():
        model.model_.weight.copy_(torch.tensor([[2.0, -1.0], [1.5, 1.0], [-2.0, 0.5]]))
        model.model_.visible_bias.copy_(torch.tensor([0.3, -0.5, 0.2]))
    exact = np.exp(-model.free_energy(v))
    exact /= exact.sum()
    drawn = model.sample(20_000, steps=50)
    for rows in (drawn, model.gibbs(drawn, 3)):
        shares = np.bincount((rows @ [4, 2, 1]).astype(int), minlength=8) / len(rows)
        assert np.all(np.abs(shares - exact) < 4.5 * np.sqrt(exact * (1 - exact) / len(rows)))


def test_gaussian_units_sample_and_reconstruct_in_the_units_of_the_rows() -> None:
    X = np.random.default_rng(0).normal([10.0, -50.0], [3.0, 20.0], size=(400, 2))
    model = RBM(4, visible="gaussian", lr=0.001, epochs=1).fit(X)
    mean, std = X.mean(0), X.std(0, ddof=1)
    h = np.random.default_rng(1).random((5, 4))
    expected = mean + std * (model.visible_bias_ + h @ model.weights_.T)
    np.testing.assert_allclose(model.inverse_transform(h), expected, rtol=1e-4)
    with torch.no_grad():
        model.model_.weight.zero_()
        model.model_.visible_bias.zero_()
    drawn = model.sample(10_000, steps=1)
    assert np.all(np.abs(drawn.mean(0) - mean) < 5 * std / 100)
    np.testing.assert_allclose(drawn.std(0), std, rtol=0.05)


def test_it_learns_more_of_held_out_digits_than_scikit_learns_rbm_in_as_many_updates() -> None:
    v = binary(1797)
    train, held_out = v[:1300], v[1300:]
    start, model = RBM(64, lr=1e-9, epochs=1).fit(train), RBM(64, batch_size=10).fit(train)
    other = BernoulliRBM(64, batch_size=10, n_iter=10, random_state=0).fit(train)
    nats = [compute_pseudo_likelihood(each, held_out) for each in (twin(start), other, twin(model))]
    assert nats[0] + 3 < nats[1]
    assert nats[1] + 1 < nats[2]
    assert len(model.history_) == 10
    assert model.history_[-1]["train/reconstruction_error"] < model.history_[0]["train/reconstruction_error"]


def test_trained_features_classify_digits_better_than_untrained_ones() -> None:
    """Not better than the 64 raw pixels, with which the same classifier is right for 92 % of these small pictures."""
    X, y = digits()
    features = [RBM(100, epochs=20), RBM(100, epochs=1, lr=1e-9), PCA(2, random_state=0)]
    trained, untrained, plane = (
        make_pipeline(each, LogisticRegression(max_iter=1000)).fit(X[:1300], y[:1300]).score(X[1300:], y[1300:])
        for each in features
    )
    assert trained > untrained + 0.01
    assert trained > plane + 0.1


# --- bits and files


def test_equal_random_states_give_equal_bits_and_others_do_not() -> None:
    models = [fitted(random_state=seed) for seed in (1, 1, 2, np.random.RandomState(5), np.random.RandomState(5))]
    assert np.array_equal(models[0].weights_, models[1].weights_)
    assert not np.array_equal(models[0].weights_, models[2].weights_)
    assert np.array_equal(models[3].weights_, models[4].weights_)
    v = binary()
    for draw in (lambda m: m.score_samples(v), lambda m: m.sample(5, steps=2), lambda m: m.gibbs(v)):
        assert np.array_equal(draw(models[0]), draw(models[1]))
    assert not np.array_equal(models[0].gibbs(v), models[0].gibbs(v, random_state=9))


@pytest.mark.parametrize("options", [{}, {"persistent": False}, {"num_temperatures": 3, "batch_size": 20}])
def test_pickles_and_files_bring_the_estimator_back(options: dict[str, object], tmp_path: Path) -> None:
    frame = pd.DataFrame(binary(50), columns=[f"pixel{number}" for number in range(64)])
    model = RBM(4, epochs=1, **options).fit(frame)  # type: ignore[arg-type]
    model.save(tmp_path / "rbm.safetensors")
    for back in (RBM.load(tmp_path / "rbm.safetensors"), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(back.transform(frame), model.transform(frame))
        assert np.array_equal(back.score_samples(frame), model.score_samples(frame))
        assert np.array_equal(back.sample(3, steps=2), model.sample(3, steps=2))
        assert back.get_params() == model.get_params()
        assert back.history_ == model.history_
        assert list(back.feature_names_in_) == list(frame)
        assert list(back.get_feature_names_out()) == list(model.get_feature_names_out())
        assert all(torch.equal(a, b) for a, b in zip(back.model_.buffers(), model.model_.buffers(), strict=True))


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "other.safetensors", rbm.RBM(3, 2).state_dict(), kind="dbn", config={})
    with pytest.raises(ValueError, match="holds a 'dbn', not a 'rbm_estimator'"):
        RBM.load(tmp_path / "other.safetensors")


# --- errors


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"lr": -1.0}, "RBM: lr must be > 0, got -1.0: give it"),
        ({"epochs": 0}, "RBM: epochs must be >= 1, got 0: give it"),
        ({"visible": "poisson"}, "RBM: visible must be one of bernoulli, gaussian, gaussian_variance, got 'poisson'"),
        ({"num_temperatures": 5, "persistent": False}, "RBM: num_temperatures must be 1 without persistent: true"),
        ({"precision": "16"}, "RBM: precision must be one of 32, bf16, got '16'"),
    ],
)
def test_a_parameter_out_of_range_is_named_with_its_rule(options: dict[str, object], rule: str) -> None:
    with pytest.raises(ValueError, match=re.escape(rule)):
        fitted(**options)


@pytest.mark.parametrize(("value", "fault"), [(-0.5, "Negative values"), (16.0, "Values above 1")])
def test_bernoulli_inputs_outside_0_to_1_are_refused_with_a_remedy(value: float, fault: str) -> None:
    model, v = fitted(), binary()
    v[0, 0] = value
    for verb in (model.fit, clone(model).fit, model.transform, model.score_samples, model.gibbs):
        with pytest.raises(ValueError, match=rf"{fault}.* must be in \[0, 1\], got .*MinMaxScaler\(clip=True\)"):
            verb(v)


def test_the_example_in_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    exec(example, {})
    accuracy, score = map(float, capsys.readouterr().out.split())
    assert accuracy > 0.5
    assert -64 < score < 0
