import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.semi_supervised import LabelSpreading

from pipeline.data.label_graph import (
    Floats,
    choose_confident,
    connect_neighbours,
    normalise_graph,
    one_hot,
    spread_shares,
)


@pytest.fixture(scope="module")
def features() -> Floats:
    return np.asarray(load_digits().data[:200] / 16, np.float32)


def test_spreading_is_the_closed_form_of_zhou_et_al(features: Floats) -> None:
    weights = connect_neighbours(features)
    graph = normalise_graph(weights)
    labels, at = load_digits().target[:200:4], np.arange(0, 200, 4)
    given = one_hot(labels, at, (200, 10))
    found = spread_shares(graph, given, alpha=0.9, steps=300)

    dense = weights.toarray()
    root = np.sqrt(dense.sum(axis=0))
    wanted = np.linalg.solve(np.eye(200) - 0.9 * dense / np.outer(root, root), given)
    np.testing.assert_allclose(found, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-4)


def test_spreading_agrees_with_scikit_learn(features: Floats) -> None:
    labels, at = load_digits().target[:200:4], np.arange(0, 200, 4)
    hidden = np.full(200, -1)
    hidden[at] = labels
    graph = normalise_graph(connect_neighbours(features))
    found = spread_shares(graph, one_hot(labels, at, (200, 10)), alpha=0.9, steps=300)
    kernel = lambda x, _: connect_neighbours(x)  # noqa: E731
    theirs = LabelSpreading(kernel=kernel, alpha=0.9, max_iter=1000, tol=1e-8).fit(features, hidden)
    np.testing.assert_allclose(found, theirs.label_distributions_, atol=1e-4)


def test_what_no_label_reaches_stays_zero_and_alpha_one_is_refused() -> None:
    features = np.concatenate([np.zeros((10, 2)), np.full((10, 2), 9)]).astype(np.float32)
    features += np.random.default_rng(0).normal(0, 0.1, features.shape).astype(np.float32)
    graph = normalise_graph(connect_neighbours(features))
    shares = spread_shares(graph, one_hot(np.array([1]), np.array([0]), (20, 2)), alpha=0.9)
    np.testing.assert_allclose(shares[:10], np.tile([0, 1], (10, 1)))
    assert (shares[10:] == 0).all()
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\), got 1"):
        spread_shares(graph, shares, alpha=1)


def test_the_surest_of_each_class_are_kept() -> None:
    shares = np.array([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.45, 0.55], [0.3, 0.7], [0, 0]], dtype=np.float32)
    positions, labels = choose_confident(shares, 0.5)
    assert positions.tolist() == [0, 2, 4]  # two of the three of class 0, one of the two of class 1
    assert labels.tolist() == [0, 0, 1]
    assert choose_confident(shares, 1.0)[0].tolist() == [0, 1, 2, 3, 4]  # the last one's class is not known at all
    with pytest.raises(ValueError, match=r"share must be in \(0, 1\], got 0"):
        choose_confident(shares, 0)
