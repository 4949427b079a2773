import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pipeline.metrics.detection import (
    Scale,
    combine_scores,
    compute_auprc,
    compute_auroc,
    judge_scores,
    normal_threshold,
)


@pytest.mark.parametrize("decimals", [1, 9])  # with ties and without
def test_rates_are_those_of_scikit_learn(decimals: int) -> None:
    rng = np.random.default_rng(0)
    anomalous = rng.random(300) < 0.2
    scores = np.round(rng.normal(size=300) + anomalous, decimals)
    assert compute_auroc(scores, anomalous) == pytest.approx(roc_auc_score(anomalous, scores), abs=1e-12)
    assert compute_auprc(scores, anomalous) == pytest.approx(average_precision_score(anomalous, scores), abs=1e-12)


def test_a_new_normal_row_is_above_the_threshold_as_often_as_was_asked() -> None:
    rng = np.random.default_rng(1)
    above = [rng.normal() > normal_threshold(rng.normal(size=39), 0.1) for _ in range(20_000)]
    assert np.mean(above) == pytest.approx(0.1, abs=0.007)  # three standard errors


def test_too_few_normal_rows_for_a_rate_are_refused() -> None:
    assert normal_threshold(np.arange(19.0), 0.05) == 18
    with pytest.raises(ValueError, match=r"false_positive_rate 0.05 needs at least 19 held-out normal rows, got 18"):
        normal_threshold(np.arange(18.0), 0.05)


def test_combined_scores_weigh_every_score_by_the_spread_of_its_normal_rows() -> None:
    rng = np.random.default_rng(2)
    normal, scores = rng.normal(size=50), rng.normal(size=20)
    both = combine_scores([normal, 1000 * normal + 5], [scores, 1000 * scores + 5])
    np.testing.assert_allclose(both, (scores - normal.mean()) / normal.std())
    assert Scale.of(np.ones(3)).std > 0


def test_flags_are_counted_by_kind() -> None:
    found = judge_scores(np.array([0.0, 3.0, 1.0, 4.0]), np.array([False, False, True, True]), 2.0)
    assert (found.false_positives, found.true_positives, found.auroc) == (0.5, 0.5, 0.75)


@pytest.mark.parametrize(
    ("scores", "flags", "message"),
    [
        ([1.0, np.nan], [True, False], "not finite"),
        ([1.0, 2.0], [True, True], "one kind"),
        ([1.0, 2.0, 3.0], [True, False], "one flag a row"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(scores: list[float], flags: list[bool], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_auroc(np.array(scores), np.array(flags))
