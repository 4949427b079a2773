"""Oracles: closed forms for Gaussians, naive loops, scikit-learn, sets whose answer is known."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from pipeline.metrics.distances import frechet_between, frechet_distance, kernel_distance, squared_mmd
from pipeline.metrics.generative import LabelledImages, as_rows, judge_collapse, pca_features, quality_report
from pipeline.metrics.neighbours import (
    copy_rate,
    duplicate_rate,
    duplicate_threshold,
    nearest_neighbour_accuracy,
    pairwise_distances,
    precision_recall_density_coverage,
)
from pipeline.metrics.ppca import class_ppca_samples, fit_ppca
from pipeline.metrics.score import Score, jackknife_variance, score_difference, score_mean, score_rate

Floats = npt.NDArray[np.float64]
SCORES = ["frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy", "duplicates", "copies"]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def normals(count: int, num_features: int = 4, seed: int = 0) -> Floats:
    return rng(seed).standard_normal((count, num_features))


def test_frechet_between_commuting_gaussians_matches_the_closed_form() -> None:
    turn, _ = np.linalg.qr(normals(3, 3))
    one, other = np.array([1.0, 4.0, 9.0]), np.array([4.0, 0.25, 0.0])
    distance = frechet_between(np.zeros(3), (turn * one) @ turn.T, np.array([1.0, 2.0, 0.0]), (turn * other) @ turn.T)
    assert distance == pytest.approx(5.0 + np.square(np.sqrt(one) - np.sqrt(other)).sum())


def test_frechet_between_any_gaussians_matches_the_eigenvalues_of_the_product() -> None:
    a, b = (normals(9, 4, seed) for seed in (1, 2))
    first, second = np.cov(a.T), np.cov(b.T)
    root_trace = np.sqrt(np.linalg.eigvals(first @ second)).real.sum()
    expected = np.trace(first) + np.trace(second) - 2 * root_trace
    assert frechet_between(np.zeros(4), first, np.zeros(4), second) == pytest.approx(expected)


def test_frechet_interval_of_large_samples_covers_the_distance_of_their_gaussians() -> None:
    scores = [frechet_distance(normals(3000, 2, i), 2 * normals(3000, 2, 900 + i) + 1, rng()) for i in range(60)]
    covered = [score.low < 4.0 < score.high for score in scores]  # |(1, 1)|^2 + 2 * (2 - 1)^2
    assert np.mean(covered) > 0.85
    assert np.mean([score.value for score in scores]) == pytest.approx(4.0, abs=0.1)
    assert scores[0].warning == ""
    assert frechet_distance(normals(100), normals(100), rng()).value == pytest.approx(0, abs=1e-9)


def test_frechet_interval_covers_the_spread_of_repeated_samples() -> None:
    scores = [frechet_distance(normals(400, 3, i), normals(400, 3, 1000 + i) + 0.5, rng()) for i in range(60)]
    claimed = np.mean([(score.high - score.low) / 2 / 1.96 for score in scores])
    assert claimed == pytest.approx(np.std([score.value for score in scores]), rel=0.3)


def test_frechet_distance_warns_of_few_images_and_refuses_a_singular_covariance() -> None:
    assert "fewer than 2048" in frechet_distance(normals(2000), normals(3000), rng()).warning
    with pytest.raises(ValueError, match="synthetic features must be a matrix with at least 31 rows"):
        frechet_distance(normals(100, 30), normals(30, 30), rng())
    constant = np.zeros((100, 4))  # a collapsed generator must score badly, not become NaN
    assert frechet_distance(normals(100), constant, rng()).value == pytest.approx(4, rel=0.3)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(normals(100), np.full((100, 4), np.nan), rng())


def test_squared_mmd_matches_a_double_loop() -> None:
    x, y = normals(6, 3), normals(5, 3, 1)

    def kernel(a: Floats, b: Floats) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within_x = np.mean([kernel(x[i], x[j]) for i in range(6) for j in range(6) if i != j])
    within_y = np.mean([kernel(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    between = np.mean([kernel(a, b) for a in x for b in y])
    assert squared_mmd(x, y) == pytest.approx(within_x + within_y - 2 * between)


def test_kernel_distance_is_unbiased_and_its_interval_covers_zero_for_equal_sources() -> None:
    scores = [kernel_distance(normals(40, 3, i), normals(60, 3, 1000 + i), rng(i)) for i in range(300)]
    values = np.array([score.value for score in scores])
    assert abs(values.mean()) < 4 * values.std() / 300**0.5
    assert (values < 0).any()
    assert np.mean([score.low < 0 < score.high for score in scores]) > 0.93
    apart = kernel_distance(normals(200, 3), normals(200, 3, 1) + 1, rng())
    assert apart.low > 0


def naive_scores(real: Floats, made: Floats, k: int) -> dict[str, float]:
    def radius(rows: Floats, i: int) -> float:
        return sorted(float(np.linalg.norm(rows[i] - rows[j])) for j in range(len(rows)) if j != i)[k - 1]

    inside_real = np.array([[np.linalg.norm(r - m) < radius(real, i) for m in made] for i, r in enumerate(real)])
    inside_made = np.array([[np.linalg.norm(r - m) < radius(made, j) for j, m in enumerate(made)] for r in real])
    return {
        "precision": np.mean([inside_real[:, j].any() for j in range(len(made))]),
        "recall": np.mean([inside_made[i].any() for i in range(len(real))]),
        "density": sum(inside_real[:, j].sum() for j in range(len(made))) / (k * len(made)),
        "coverage": np.mean([inside_real[i].any() for i in range(len(real))]),
    }


def test_precision_recall_density_coverage_match_a_naive_loop() -> None:
    real, made = normals(25, 2), normals(20, 2, 1) + 0.7
    scores = precision_recall_density_coverage(real, made, rng(), k=3)
    assert {name: score.value for name, score in scores.items()} == pytest.approx(naive_scores(real, made, 3))
    assert all(0 <= score.low <= score.value <= score.high for score in scores.values())
    assert all("fewer than 100" in score.warning for score in scores.values())


def test_identical_sets_score_one_and_a_constant_set_has_no_recall() -> None:
    real = normals(120)
    scores = precision_recall_density_coverage(real, real, rng())
    assert {name: score.value for name, score in scores.items()} == pytest.approx(dict.fromkeys(scores, 1.0))
    constant = np.repeat(real[:1], 120, axis=0)
    collapsed = precision_recall_density_coverage(real, constant, rng())
    assert collapsed["precision"].value == 1
    assert collapsed["recall"].value == 0
    assert collapsed["coverage"].value < 0.2
    with pytest.raises(ValueError, match="at least 6 rows"):
        precision_recall_density_coverage(real, real[:5], rng())


def test_pairwise_distances_keep_their_digits_far_from_the_origin() -> None:
    a, b = normals(5), normals(6, seed=1)
    expected = np.linalg.norm(a[:, None] - b[None], axis=2)
    np.testing.assert_allclose(pairwise_distances(a + 1e6, b + 1e6), expected, rtol=1e-6)


def test_nearest_neighbour_accuracy_matches_scikit_learn() -> None:
    train, test = normals(80, 3), normals(150, 3, 1)
    train_labels, test_labels = (train[:, 0] > 0).astype(int), (test[:, 0] > 0).astype(int)
    score = nearest_neighbour_accuracy(train, train_labels, test, test_labels)
    expected = KNeighborsClassifier(1, algorithm="brute").fit(train, train_labels).score(test, test_labels)
    assert score.value == pytest.approx(expected)
    error = (expected * (1 - expected) / 150) ** 0.5
    assert score.high - score.low == pytest.approx(2 * 1.96 * error, rel=0.2)
    with pytest.raises(ValueError, match="leave unlabelled rows out"):
        nearest_neighbour_accuracy(train, train_labels - 1, test, test_labels)


def test_duplicate_rate_is_the_quantile_for_real_rows_and_one_for_repeats() -> None:
    real = normals(500)
    threshold = duplicate_threshold(real, share=0.1)
    assert duplicate_rate(real, threshold).value == pytest.approx(0.1, abs=0.003)
    assert duplicate_rate(np.repeat(real[:50], 10, axis=0), threshold).value == 1
    assert copy_rate(real[:100], real, threshold).value == 1
    assert copy_rate(real[:100] + 50, real, threshold).value == 0


def test_ppca_samples_have_the_covariance_and_mean_of_the_model() -> None:
    rows = normals(300, 5) * np.array([3.0, 2.0, 1.0, 0.7, 0.5]) + np.arange(5)
    model = fit_ppca(rows, 2)
    eigenvalues, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    noise = eigenvalues[:3].mean()
    expected = (vectors[:, 3:] * (eigenvalues[3:] - noise)) @ vectors[:, 3:].T + noise * np.eye(5)
    np.testing.assert_allclose(model.weights @ model.weights.T + model.variance * np.eye(5), expected, atol=1e-9)
    samples = model.sample(200_000, rng())
    np.testing.assert_allclose(np.cov(samples.T), expected, atol=0.12)
    np.testing.assert_allclose(samples.mean(axis=0), rows.mean(axis=0), atol=0.03)
    plain = model.sample(1000, rng(), noise=False)
    assert np.linalg.matrix_rank(plain - plain.mean(axis=0), tol=1e-6) == 2


def test_ppca_maximises_the_likelihood_that_scikit_learn_computes() -> None:
    rows = normals(200, 6) * np.array([3.0, 2.0, 1.0, 0.7, 0.5, 0.4])
    model = fit_ppca(rows, 3)
    covariance = model.weights @ model.weights.T + model.variance * np.eye(6)
    theirs = PCA(3).fit(rows)
    factor = 199 / 200  # scikit-learn divides by N - 1
    np.testing.assert_allclose(covariance, theirs.get_covariance() * factor, rtol=1e-6, atol=1e-9)


def test_class_ppca_samples_follow_their_class_and_stay_in_range() -> None:
    rows = np.concatenate([np.full((30, 4), 0.2), np.full((30, 4), 0.9)]) + 0.05 * normals(60)
    labels = np.repeat([0, 1], 30)
    wanted = np.array([1, 0, 1, 0, 0])
    samples = class_ppca_samples(rows, labels, wanted, rng(), num_components=2)
    assert ((samples.mean(axis=1) > 0.5) == (wanted == 1)).all()
    assert samples.min() >= 0
    assert samples.max() <= 1
    single = class_ppca_samples(rows[:1], labels[:1], np.array([0, 0]), rng())  # one image: its copies, no crash
    np.testing.assert_allclose(single, np.repeat(rows[:1], 2, axis=0))
    with pytest.raises(ValueError, match="class 2 has no real image"):
        class_ppca_samples(rows, labels, np.array([2]), rng())


def test_score_rate_is_where_the_score_test_does_not_reject() -> None:
    """Wilson's bounds solve |rate - p| = 1.96 sqrt(p (1 - p) / n)."""
    for hits, count in ((0, 40), (13, 40), (40, 40)):
        score = score_rate(np.arange(count) < hits)
        assert score.value == hits / count
        for bound in {score.low, score.high} - {0.0, 1.0}:
            assert abs(score.value - bound) == pytest.approx(1.96 * (bound * (1 - bound) / count) ** 0.5, rel=1e-3)
    assert score.low < 0.95 < score.high == 1


def test_score_mean_and_jackknife_give_the_standard_error_of_a_mean() -> None:
    values = rng().exponential(size=400)
    error = values.std(ddof=1) / 20
    score = score_mean(values, rng())
    assert score.high - score.low == pytest.approx(2 * 1.96 * error, rel=0.15)
    parts = values.reshape(20, 20)
    variance = jackknife_variance(20, lambda g: float(np.delete(parts, g, axis=0).mean()))
    assert variance == pytest.approx(parts.mean(axis=1).var(ddof=1) / 20)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_pca_features_match_the_eigenvectors_of_the_covariance(shape: tuple[int, int, int]) -> None:
    """Both solvers: 784 pixels take the exact one, 3072 the randomised one."""
    basis = normals(6, int(np.prod(shape)), 1)
    values = 0.5 + 0.02 * (normals(80, 6) * np.array([6, 5, 4, 3, 2, 1])) @ basis
    images = np.clip(values, 0, 1).reshape(80, *shape)
    (features,) = pca_features(images[:60], [images[60:]], num_components=3, seed=0)
    pool = as_rows(images[:60]).astype(np.float64)
    directions = np.linalg.svd(pool - pool.mean(axis=0), full_matrices=False)[2][:3]
    expected = (as_rows(images[60:]) - pool.mean(axis=0)) @ directions.T
    np.testing.assert_allclose(np.abs(features), np.abs(expected), atol=0.02)
    assert np.array_equal(features, pca_features(images[:60], [images[60:]], num_components=3, seed=0)[0])
    with pytest.raises(ValueError, match="90 components need as many images"):
        pca_features(images, [images], num_components=90, seed=0)


def test_uint8_and_float_images_have_equal_rows_and_others_are_refused() -> None:
    images = rng().integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    np.testing.assert_allclose(as_rows(images), as_rows(images / 255), rtol=1e-6)
    for bad in (1.5, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"float images must lie in \[0, 1\]"):
            as_rows(np.full((2, 1, 4, 4), bad))


def blobs(count: int, seed: int) -> LabelledImages:
    """Two classes of 28 x 28 images: a bright square, left or right, at a random height and brightness, on noise."""
    draw = rng(seed)
    images = draw.uniform(0, 0.2, (count, 1, 28, 28))
    labels = np.arange(count) % 2
    for image, label in zip(images[:, 0], labels, strict=True):
        top, left = draw.integers(2, 18), (3, 17)[label]
        image[top : top + 8, left : left + 8] += draw.uniform(0.3, 0.8)
    return LabelledImages(np.round(images * 255).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return quality_report(blobs(300, 0), blobs(120, 1), blobs(150, 2), num_images=1000, seed=0)


def test_quality_report_puts_a_perfect_generator_at_the_real_floor(report: dict[str, Any]) -> None:
    assert set(report) == {"synthetic", "class_ppca", "real"}
    assert all(list(row) == SCORES for row in report.values())
    for name in ("frechet", "coverage", "accuracy", "duplicates"):
        made, real = report["synthetic"][name], report["real"][name]
        assert made["low"] <= real["high"]
        assert real["low"] <= made["high"]
    for name in ("precision", "density", "coverage"):  # squares that move are no Gaussian
        assert report["class_ppca"][name]["high"] < report["real"][name]["low"]
    assert report["real"]["accuracy"]["value"] == 1
    assert judge_collapse(report).name == "diverse"


def test_quality_report_is_a_function_of_its_seed(report: dict[str, Any]) -> None:
    again = quality_report(blobs(300, 0), blobs(120, 1), blobs(150, 2), num_images=1000, seed=0)
    assert again == report


def test_collapse_and_noise_are_named() -> None:
    train, holdout, good = blobs(300, 0), blobs(120, 1), blobs(120, 2)
    once = np.repeat(np.arange(3), 40)
    sets = {
        "collapsed": good.part(once),
        "off_the_data": LabelledImages(rng().integers(0, 256, (120, 1, 28, 28), dtype=np.uint8), good.labels),
        "diverse": good,
    }
    for name, synthetic in sets.items():
        verdict = judge_collapse(quality_report(train, holdout, synthetic, num_images=1000, seed=0))
        assert verdict.name == name
        assert "coverage" in verdict.sentence
    table = {
        (0.9, 0.01): "diverse",
        (0.4, 0.01): "narrow",
        (0.1, 0.01): "off_the_data",
        (0.1, 0.2): "collapsed",
        (0.9, 0.6): "collapsed",
    }
    for (coverage, duplicates), expected in table.items():
        made = {"coverage": {"value": coverage}, "duplicates": {"value": duplicates}}
        real = {"coverage": {"value": 0.95}, "duplicates": {"value": 0.01, "high": 0.02}}
        assert judge_collapse({"synthetic": made, "real": real}).name == expected


def test_quality_report_ignores_unlabelled_rows_and_refuses_too_few_images() -> None:
    train = blobs(300, 0)
    half_known = LabelledImages(train.images, np.where(np.arange(300) < 150, train.labels, -1))
    scores = quality_report(half_known, blobs(120, 1), blobs(120, 2), num_images=100, seed=0)
    assert scores["real"]["accuracy"]["value"] > 0.9
    with pytest.raises(ValueError, match=r"got 300, 49, 120: raise data\.validation_fraction"):
        quality_report(train, blobs(49, 1), blobs(120, 2), num_images=100, seed=0)


def test_difference_of_rates_has_newcombes_interval() -> None:
    one, other = (score_rate([True] * hits + [False] * (count - hits)) for hits, count in ((56, 70), (48, 80)))
    found = score_difference(one, other)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=1e-4)  # Newcombe 1998, table II, case (a)
    assert score_difference(Score(value=0.1, low=0.1, high=0.1), Score(value=0, low=0, high=0)).low == 0.1
