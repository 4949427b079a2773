"""The estimators that start from a DBN: scikit-learn's own checks, the DBN's mean field and PCA as oracles."""

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import check_estimator

from pipeline.deep_estimators import DBNClassifier, DeepAutoencoder
from tests.readme_tree import ROOT
from tests.test_estimators_api import PIPELINES

NOTHING: dict[str, Any] = {"epochs": 1, "lr": 1e-12}
"""Fine-tuning that leaves the weights where pretraining left them."""
FAST: dict[str, Any] = {"pretrain_epochs": 2, "epochs": 2}


def digits() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """8x8 pictures in [0, 1] and their classes; the last rows are other people's hands than the first."""
    X, y = load_digits(return_X_y=True)
    return X / 16, y


# --- scikit-learn's contract


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(MinMaxScaler(clip=True), DeepAutoencoder((5, 2), **FAST)),
        make_pipeline(MinMaxScaler(clip=True), DBNClassifier((12,), pretrain_epochs=1, epochs=15, lr=0.05)),
    ],
    ids=["autoencoder", "classifier"],
)
def test_scikit_learns_checks_pass(estimator: Pipeline) -> None:
    results = check_estimator(estimator, expected_failed_checks=PIPELINES, on_skip=None, on_fail="raise")
    assert {result["check_name"] for result in results if result["status"] == "xfail"} == set(PIPELINES)


def test_importing_them_does_not_import_lightning() -> None:
    code = "import sys, pipeline.deep_estimators\nprint([m for m in ('pytorch_lightning', 'ray') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- where they start


def test_an_autoencoder_that_is_not_fine_tuned_codes_by_mean_field() -> None:
    X = digits()[0][:200]
    model = DeepAutoencoder((20, 4), pretrain_epochs=2, **NOTHING).fit(X)
    assert model.dbn_ is not None
    codes = model.dbn_.double().mean_field(torch.from_numpy(X)).detach()
    np.testing.assert_allclose(model.transform(X), codes.numpy(), atol=1e-5)
    rows = model.dbn_.reconstruct(torch.from_numpy(X).view(-1, 1, 1, 64)).detach().flatten(1).numpy()
    np.testing.assert_allclose(model.inverse_transform(model.transform(X)), rows, atol=1e-5)
    assert model.score(X) == pytest.approx(-((rows - X) ** 2).sum(1).mean(), rel=1e-4)


def test_a_classifier_that_is_not_fine_tuned_is_a_linear_head_on_mean_field() -> None:
    X, y = digits()[0][:200], np.array(["odd", "even"])[digits()[1][:200] % 2]
    model = DBNClassifier((20, 8), pretrain_epochs=2, **NOTHING).fit(X, y)
    assert model.dbn_ is not None
    head = model.model_.stack.linears()[-1]
    features = model.dbn_.double().mean_field(torch.from_numpy(X))
    expected = torch.softmax(features @ head.weight.double().t() + head.bias.double(), 1).detach().numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-5)
    assert list(model.classes_) == ["even", "odd"]
    assert set(model.predict(X)) <= {"even", "odd"}


# --- what they learn


def test_eight_codes_of_digits_keep_more_than_eight_principal_components() -> None:
    X = digits()[0]
    train, held_out = X[:1300], X[1300:]
    pca = PCA(8).fit(train)
    error = ((pca.inverse_transform(pca.transform(held_out)) - held_out) ** 2).sum(1).mean()
    scores = [
        DeepAutoencoder((64, 8), pretrain_epochs=5, epochs=40, lr=0.02, pretrain=pretrain).fit(train).score(held_out)
        for pretrain in (True, False)
    ]
    assert min(scores) > -error


def test_a_classifier_learns_what_no_linear_one_can_and_predicts_without_dropout() -> None:
    X = np.random.default_rng(0).integers(0, 2, (400, 6)).astype(np.float64)
    y = X[:, 0] != X[:, 1]
    model = DBNClassifier((32,), input_dropout=0.0, dropout=0.2, epochs=60, lr=0.05).fit(X[:300], y[:300])
    linear = LogisticRegression().fit(X[:300], y[:300])
    assert linear.score(X[300:], y[300:]) < 0.7
    assert model.score(X[300:], y[300:]) > 0.95
    assert np.array_equal(model.predict_proba(X), model.predict_proba(X))
    np.testing.assert_allclose(model.predict_proba(X[:9].astype(np.float32)), model.predict_proba(X[:9]), atol=1e-4)


# --- bits, files, errors


@pytest.mark.parametrize("pretrain", [True, False])
def test_equal_random_states_give_equal_bits_and_pickles_bring_them_back(pretrain: bool) -> None:
    X, y = digits()[0][:100], digits()[1][:100]
    models = [DBNClassifier((9,), pretrain=pretrain, random_state=seed, **FAST).fit(X, y) for seed in (1, 1, 2)]
    first, second, other = (model.predict_proba(X) for model in models)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.array_equal(pickle.loads(pickle.dumps(models[0])).predict_proba(X), first)
    assert (models[0].dbn_ is None) != pretrain


@pytest.mark.parametrize(
    ("estimator", "rule"),
    [
        (
            DeepAutoencoder(()),
            r"DeepAutoencoder: layer_sizes must be one or more sizes, each >= 1, got \(\): give it when",
        ),
        (DeepAutoencoder(lr=0.0), "DeepAutoencoder: lr must be > 0, got 0.0: give it"),
        (DBNClassifier(dropout=1.0), r"DBNClassifier: dropout must be in \[0, 1\), got 1.0: give it"),
        (DBNClassifier(pretrain_epochs=0), "DBNClassifier: pretrain_epochs must be >= 1, got 0"),
        (DBNClassifier(max_norm=-1), "DBNClassifier: max_norm must be >= 0, got -1"),
    ],
)
def test_a_parameter_out_of_range_is_named_with_its_rule(estimator: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        estimator.fit(digits()[0][:20], digits()[1][:20])


def test_inputs_outside_0_to_1_and_codes_of_another_width_are_refused() -> None:
    X, y = digits()
    with pytest.raises(ValueError, match=r"Values above 1 in data passed to DBNClassifier: inputs must be in \[0, 1\]"):
        DBNClassifier().fit(16 * X, y)
    model = DeepAutoencoder((3,), **FAST).fit(X[:50])
    with pytest.raises(ValueError, match=r"Negative values .* put MinMaxScaler\(clip=True\) before it"):
        model.transform(-X)
    with pytest.raises(ValueError, match="codes must have the 3 columns that transform gives, got 64"):
        model.inverse_transform(X)
