"""Oracles: closed forms, enumeration, and studies simulated from a model whose truth is known."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from pipeline.metrics.statistics import (
    Estimate,
    adjust_holm,
    compare_paired,
    compare_two_models,
    compute_standard_error,
    estimate_mean,
    resample_means,
)

Matrix = npt.NDArray[np.bool_]

NOISE = {
    # seed-to-seed spread, example difficulty shared by both arms (correlation), luck of one prediction
    "seeds dominate": (0.40, 0.9, 0.4),
    "mixed": (0.15, 0.8, 0.5),
    "examples dominate": (0.0, 0.5, 0.2),
}


def simulate_studies(
    seeds: int, examples: int, noise: str, *, studies: int, gain: float = 0.2, root: int = 0
) -> Iterator[tuple[Matrix, Matrix, float]]:
    """(arm, baseline, true difference in accuracy): a prediction is right where a sum of normal effects is positive."""
    seed_sd, shared, luck = NOISE[noise]
    rng = np.random.default_rng(root)
    scale = np.sqrt(seed_sd**2 + 1 + luck**2)
    truth = float(stats.norm.cdf((1 + gain) / scale) - stats.norm.cdf(1 / scale))
    for _ in range(studies):
        common = rng.normal(size=examples)
        pair = []
        for level in (1 + gain, 1.0):
            easy = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=examples)
            lift = rng.normal(0, seed_sd, (seeds, 1))
            pair.append(level + lift + easy + rng.normal(0, luck, (seeds, examples)) > 0)
        yield pair[0], pair[1], truth


@pytest.mark.parametrize("seeds", [4, 5])
@pytest.mark.parametrize("noise", NOISE)
def test_nominal_95_percent_intervals_cover_the_truth_in_at_least_92_percent_of_studies(seeds: int, noise: str) -> None:
    rng = np.random.default_rng(1)
    covered = []
    for arm, baseline, truth in simulate_studies(seeds, 200, noise, studies=200, root=seeds):
        found = compare_paired(arm, baseline, confidence=0.95, resamples=500, rng=rng)
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) >= 0.92


def test_the_plain_percentile_bootstrap_fails_that_bar() -> None:
    # The simulation has teeth: without the corrections, a nominal 95 % interval covers far less.
    rng = np.random.default_rng(1)
    covered = []
    for arm, baseline, truth in simulate_studies(4, 300, "seeds dominate", studies=250):
        means = resample_means(arm.astype(int) - baseline.astype(int), 500, rng)
        low, high = np.quantile(means, [0.025, 0.975])
        covered.append(low <= truth <= high)
    assert np.mean(covered) < 0.88


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(2)
    p_values = [
        compare_paired(arm, baseline, confidence=0.95, resamples=500, rng=rng).p
        for arm, baseline, _ in simulate_studies(4, 200, "mixed", studies=200, gain=0.0)
    ]
    assert np.mean([p is not None and p < 0.05 for p in p_values]) <= 0.08


def test_the_interval_is_no_wider_than_it_must_be_where_examples_are_the_noise() -> None:
    rng = np.random.default_rng(3)
    estimates = [
        compare_paired(arm, baseline, confidence=0.95, resamples=500, rng=rng)
        for arm, baseline, _ in simulate_studies(5, 300, "examples dominate", studies=100)
    ]
    widths = [row.high - row.low for row in estimates if row.low is not None and row.high is not None]
    ideal = 2 * 1.96 * np.std([row.value for row in estimates])
    assert 0.85 * ideal < np.mean(widths) < 1.25 * ideal


def test_standard_error_recovers_the_variance_of_a_crossed_design() -> None:
    # Var(mean) = s2/S + e2/N + r2/(S N) for independent seed, example and rest effects.
    rng = np.random.default_rng(4)
    S, N = 5, 200
    squares = [
        compute_standard_error(0.3 * rng.normal(size=(S, 1)) + rng.normal(size=N) + rng.normal(size=(S, N)))[0] ** 2
        for _ in range(400)
    ]
    assert np.mean(squares) == pytest.approx(0.09 / S + 1 / N + 1 / (S * N), rel=0.06)


def test_degrees_of_freedom_are_those_of_the_seeds_or_of_the_examples() -> None:
    rng = np.random.default_rng(5)
    only_seeds = np.repeat(rng.normal(size=(4, 1)), 100, axis=1)
    only_examples = np.repeat(rng.normal(size=(1, 100)), 4, axis=0)
    assert compute_standard_error(only_seeds)[1] == pytest.approx(3)
    assert compute_standard_error(only_examples)[1] == pytest.approx(99)
    assert compute_standard_error(only_examples)[0] == pytest.approx(only_examples[0].std(ddof=1) / 10)


def test_crossed_resampling_has_the_moments_of_enumerating_every_resample() -> None:
    x = np.array([[1, 0, 1], [0, 0, 1]])
    every = [
        x[list(rows)][:, list(columns)].mean()
        for rows in product(range(2), repeat=2)
        for columns in product(range(3), repeat=3)
    ]
    drawn = resample_means(x, 40_000, np.random.default_rng(6))
    assert drawn.mean() == pytest.approx(np.mean(every), abs=0.005)
    assert drawn.std() == pytest.approx(np.std(every), rel=0.02)
    values = sorted(set(np.round(every, 9)))
    for value in values:
        share = np.mean(np.isclose(every, value))
        assert np.mean(np.isclose(drawn, value)) == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.25])
def test_p_value_and_interval_agree(gain: float) -> None:
    rng = np.random.default_rng(7)
    for arm, baseline, _ in simulate_studies(4, 200, "examples dominate", studies=20, gain=gain):
        found = compare_paired(arm, baseline, confidence=0.9, resamples=999, rng=rng)
        assert found.low is not None
        assert found.high is not None
        assert found.p is not None
        if abs(found.p - 0.1) > 0.005:
            assert (found.p < 0.1) == (found.low > 0 or found.high < 0)


def test_one_seed_gives_a_difference_and_no_interval() -> None:
    arm, baseline, _ = next(simulate_studies(1, 50, "mixed", studies=1))
    found = compare_paired(arm, baseline, confidence=0.95, resamples=1000, rng=np.random.default_rng(0))
    assert found == Estimate(float(arm.mean() - baseline.mean()), None, None, None, seeds=1)


def test_models_that_never_disagree_do_not_get_an_interval_of_width_zero() -> None:
    same = np.ones((4, 100), dtype=bool)
    found = compare_paired(same, same, confidence=0.95, resamples=2000, rng=np.random.default_rng(0))
    assert found.value == 0
    assert found.low == pytest.approx(-stats.t.isf(0.025, 3) / 100, rel=0.1)
    assert found.p is not None
    assert found.p > 0.5


def test_equal_generators_give_equal_bits() -> None:
    arm, baseline, _ = next(simulate_studies(4, 100, "mixed", studies=1))
    first, second = (
        compare_paired(arm, baseline, confidence=0.95, resamples=1000, rng=np.random.default_rng(8)) for _ in range(2)
    )
    assert first == second


def test_matrices_of_different_shapes_are_not_paired() -> None:
    first, second = np.ones((2, 3), dtype=bool), np.ones((2, 4), dtype=bool)
    with pytest.raises(ValueError, match="must have one shape"):
        compare_paired(first, second, confidence=0.95, resamples=1000, rng=np.random.default_rng(0))


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (9, 2), (2, 9), (30, 30), (40, 15)])
def test_mcnemar_p_matches_the_binomial_test_and_its_interval(wins: int, losses: int) -> None:
    first = np.array([True] * wins + [False] * losses + [True] * 200)
    second = np.array([False] * wins + [True] * losses + [True] * 200)
    found = compare_two_models(first, second, confidence=0.95)
    assert found.value == pytest.approx((wins - losses) / len(first))
    if wins + losses:
        assert found.p == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert found.p is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    if found.low > 0 or found.high < 0:
        assert found.p < 0.05


def test_interval_of_two_models_covers_rare_and_common_disagreements() -> None:
    rng = np.random.default_rng(9)
    for win, lose in ((0.004, 0.002), (0.06, 0.03), (0.2, 0.2)):
        covered = []
        for _ in range(300):
            draw = rng.uniform(size=300)
            first = draw >= lose
            second = (draw < lose) | (draw >= lose + win)
            found = compare_two_models(first, second, confidence=0.95)
            assert found.low is not None
            assert found.high is not None
            covered.append(found.low <= win - lose <= found.high)
        assert np.mean(covered) >= 0.93


def test_holm_by_hand() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1 = .02 .03 .06 .04, made monotone: .02 .03 .06 .06.
    assert adjust_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_rejects_what_the_step_down_procedure_rejects() -> None:
    rng = np.random.default_rng(10)
    for _ in range(50):
        p_values = list(rng.uniform(size=8) ** 4)
        rejected = set()
        for rank, index in enumerate(np.argsort(p_values)):
            if p_values[index] >= 0.05 / (8 - rank):
                break
            rejected.add(int(index))
        assert {i for i, p in enumerate(adjust_holm(p_values)) if p < 0.05} == rejected


def test_holm_of_nothing_is_nothing_and_never_exceeds_one() -> None:
    assert adjust_holm([]) == []
    assert adjust_holm([0.9, 0.8]) == [1.0, 1.0]


def test_estimate_of_an_accuracy_contains_it() -> None:
    correct = np.random.default_rng(0).uniform(size=(4, 100)) < 0.8
    found = estimate_mean(correct, confidence=0.95, resamples=1000, rng=np.random.default_rng(0))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
