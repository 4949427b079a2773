import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as oracle

from pipeline.metrics.classification import (
    Bin,
    compute_confusion,
    compute_ece,
    compute_nll,
    compute_recall,
    compute_reliability,
    compute_scores,
)


def make_predictions(num_classes: int = 5, seed: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(num_classes, size=400)
    logits = rng.normal(size=(400, num_classes)) + 2 * np.eye(num_classes)[labels]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), labels


@pytest.mark.parametrize("seed", [0, 1])
def test_accuracy_f1_nll_and_confusion_match_scikit_learn(seed: int) -> None:
    log_probs, labels = make_predictions(seed=seed)
    predictions = log_probs.argmax(axis=1)
    scores = compute_scores(log_probs, labels)
    assert scores.accuracy == pytest.approx(oracle.accuracy_score(labels, predictions))
    assert scores.macro_f1 == pytest.approx(oracle.f1_score(labels, predictions, average="macro"))
    assert scores.nll == pytest.approx(oracle.log_loss(labels, np.exp(log_probs), labels=range(5)))
    confusion = compute_confusion(predictions, labels, 5)
    np.testing.assert_array_equal(confusion, oracle.confusion_matrix(labels, predictions))
    np.testing.assert_allclose(compute_recall(confusion), oracle.recall_score(labels, predictions, average=None))


def test_macro_f1_ignores_a_class_that_never_occurs_as_scikit_learn_does() -> None:
    log_probs, labels = make_predictions(num_classes=3)
    labels = labels % 2
    log_probs = np.log(np.exp(log_probs[:, :2]) / np.exp(log_probs[:, :2]).sum(axis=1, keepdims=True))
    with_unused_class = np.column_stack([log_probs, np.full(len(labels), -50.0)])
    expected = oracle.f1_score(labels, with_unused_class.argmax(axis=1), average="macro")
    assert compute_scores(with_unused_class, labels).macro_f1 == pytest.approx(expected)


def test_nll_of_two_examples_by_hand() -> None:
    log_probs = np.log(np.array([[0.5, 0.5], [0.2, 0.8]], dtype=np.float32))
    assert compute_nll(log_probs, np.array([0, 1])) == pytest.approx((np.log(2) - np.log(0.8)) / 2, rel=1e-6)


def test_recall_by_hand_and_nan_for_an_absent_class() -> None:
    confusion = compute_confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    np.testing.assert_array_equal(compute_recall(confusion), [0.5, 1.0, np.nan])


def test_ece_by_hand() -> None:
    # Confidences .6 (right), .6 (wrong), .9 (right), 1.0 (right): |.5 - .6| * 2/4 + |1 - .9| * 1/4 + 0.
    log_probs = np.log(np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9], [1.0, 1e-30]]))
    bins = compute_reliability(log_probs, np.array([0, 1, 1, 0]))
    assert compute_ece(bins) == pytest.approx(0.1 * 2 / 4 + 0.1 / 4)
    assert [row.count for row in bins if row.count] == [2, 1, 1]


def test_a_confidence_on_an_edge_falls_into_the_bin_below() -> None:
    bins = compute_reliability(np.log(np.array([[0.5, 0.5]])), np.array([0]), num_bins=2)
    assert bins == [Bin(0.0, 0.5, 1, 0.5, 1.0), Bin(0.5, 1.0, 0, 0.0, 0.0)]


def test_ece_of_a_calibrated_model_is_small_and_of_a_boastful_one_is_its_gap() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.5, 1, size=200_000)
    labels = (rng.uniform(size=len(p)) > p).astype(np.int64)
    calibrated = compute_reliability(np.log(np.column_stack([p, 1 - p])), labels)
    boastful = compute_reliability(np.log(np.column_stack([np.full(len(p), 0.99), np.full(len(p), 0.01)])), labels)
    assert compute_ece(calibrated) < 0.005
    assert compute_ece(boastful) == pytest.approx(0.99 - 0.75, abs=0.005)


@pytest.mark.parametrize(
    ("log_probs", "labels", "message"),
    [
        (np.array([[np.nan, 0.0]]), np.array([0]), "must be finite"),
        (np.zeros((2, 2)), np.array([0]), "2 predictions for 1 labels"),
        (np.zeros((0, 2)), np.array([], dtype=np.int64), "at least one"),
        (np.zeros((1, 2)), np.array([2]), r"labels must lie in 0\.\.1"),
    ],
)
def test_bad_predictions_are_refused(
    log_probs: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        compute_scores(log_probs, labels)
