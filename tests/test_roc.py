"""Oracles: scikit-learn's areas and curves, DeLong's covariance as a double loop, intervals that cover."""

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline.metrics.roc import area_under_curve, rate_at_false_alarms
from pipeline.metrics.score import Z_95

Floats = npt.NDArray[np.float64]


def scores(num_positives: int, num_negatives: int, shift: float, seed: int = 0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    return rng.normal(shift, 1, num_positives), rng.normal(0, 1, num_negatives)


def joined(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """Labels and scores."""
    return np.repeat([1.0, 0.0], [len(positives), len(negatives)]), np.concatenate([positives, negatives])


def test_area_is_scikit_learns_also_with_ties() -> None:
    for positives, negatives in (scores(30, 45, 0.7), tuple(np.round(part) for part in scores(30, 45, 0.7))):
        expected = roc_auc_score(*joined(positives, negatives))
        assert area_under_curve(positives, negatives).value == pytest.approx(expected, abs=1e-12)


def test_interval_is_delongs_by_a_double_loop() -> None:
    positives, negatives = (np.round(part, 1) for part in scores(20, 13, 0.5))
    wins = np.array([[float(p > n) + 0.5 * float(p == n) for n in negatives] for p in positives])
    area = wins.mean()
    by_positive, by_negative = wins.mean(axis=1), wins.mean(axis=0)
    variance = sum((v - area) ** 2 for v in by_positive) / (19 * 20) + sum((v - area) ** 2 for v in by_negative) / (
        12 * 13
    )
    score = area_under_curve(positives, negatives)
    assert score.low == pytest.approx(area - Z_95 * variance**0.5)
    assert score.high == pytest.approx(area + Z_95 * variance**0.5)


def test_interval_covers_the_area_of_two_gaussians() -> None:
    truth = 0.638163  # Phi(0.5 / sqrt(2))
    found = [area_under_curve(*scores(60, 80, 0.5, seed)) for seed in range(300)]
    assert np.mean([score.low <= truth <= score.high for score in found]) == pytest.approx(0.95, abs=0.035)


def test_perfect_separation_of_few_images_still_has_an_interval() -> None:
    score = area_under_curve(np.arange(10, 20.0), np.arange(0, 10.0))
    assert (score.value, score.high) == (1.0, 1.0)
    assert score.low == pytest.approx(1 - Z_95 / 20)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.33, 1.0])
def test_rate_at_false_alarms_is_the_highest_point_of_scikit_learns_curve(share: float) -> None:
    positives, negatives = (np.round(part, 1) for part in scores(80, 60, 0.8))
    false_alarms, found, _ = roc_curve(*joined(positives, negatives), drop_intermediate=False)
    rng = np.random.default_rng(0)
    if share == 1.0:
        assert rate_at_false_alarms(positives, negatives, 0.99, rng).value == 1.0
        return
    expected = found[false_alarms <= share + 1e-12].max()
    assert rate_at_false_alarms(positives, negatives, share, rng).value == pytest.approx(expected)


def test_rate_has_an_interval_and_a_warning_for_few_negatives() -> None:
    positives, negatives = scores(400, 400, 1.0)
    score = rate_at_false_alarms(positives, negatives, 0.1, np.random.default_rng(0))
    truth = 0.3891  # P(z > 1.2816 - 1)
    assert score.low < truth < score.high < score.low + 0.25
    assert score.warning == ""
    assert "coarse" in rate_at_false_alarms(positives, negatives, 0.01, np.random.default_rng(0)).warning


def test_scores_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="positives must be at least 2 scores"):
        area_under_curve(np.zeros(1), np.zeros(5))
    with pytest.raises(ValueError, match="negatives has scores that are not finite"):
        area_under_curve(np.zeros(5), np.array([0.0, np.nan]))
