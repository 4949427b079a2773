import numpy as np
import pytest
from scipy.linalg import inv
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from pipeline.data import pseudo_labels
from pipeline.data.arrays import Images, Indices, Labels
from pipeline.data.label_graph import NEIGHBOURS
from pipeline.data.pseudo_labels import ALPHA, spread_labels
from pipeline.data.splits import label_subsets


@pytest.fixture(scope="module")
def digits() -> tuple[Images, Labels, Indices]:
    data = load_digits()
    labels = data.target.astype(np.int64)
    names = [str(digit) for digit in range(10)]
    labelled = label_subsets(labels, class_names=names, budgets=[50], draws=1, seed=0)[0]
    return (data.images * 15).astype(np.uint8)[:, None], labels, labelled


def test_labels_spread_better_than_to_the_nearest_labelled_image(digits: tuple[Images, Labels, Indices]) -> None:
    images, labels, labelled = digits
    found = spread_labels(images, labels, labelled, seed=0)
    flat = images.reshape(len(images), -1).astype(float)
    nearest = NearestNeighbors(n_neighbors=1).fit(flat[labelled]).kneighbors(flat, return_distance=False)[:, 0]
    rest = np.setdiff1d(np.arange(len(labels)), labelled)
    spread = (found.labels == labels)[rest].mean()
    assert spread > (labels[labelled][nearest] == labels)[rest].mean() + 0.03
    assert spread > 0.93


def test_confidence_ranks_right_above_wrong(digits: tuple[Images, Labels, Indices]) -> None:
    images, labels, labelled = digits
    found = spread_labels(images, labels, labelled, seed=0)
    right = found.labels == labels
    assert found.confidence[right].mean() > found.confidence[~right].mean() + 0.2
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    assert (found.confidence[labelled] == 1).all()
    assert np.array_equal(found.labels[labelled], labels[labelled])


@pytest.mark.parametrize("largest_graph", [10_000, 600])
def test_no_other_label_is_looked_at(
    digits: tuple[Images, Labels, Indices], monkeypatch: pytest.MonkeyPatch, largest_graph: int
) -> None:
    monkeypatch.setattr(pseudo_labels, "LARGEST_GRAPH", largest_graph)
    images, labels, labelled = digits
    rest = np.setdiff1d(np.arange(len(labels)), labelled)
    shuffled, hidden = labels.copy(), labels.copy()
    shuffled[rest] = np.random.default_rng(0).permutation(labels[rest])
    hidden[rest] = -1
    wanted = spread_labels(images, labels, labelled, seed=0)
    for other in (shuffled, hidden):
        found = spread_labels(images, other, labelled, seed=0)
        assert np.array_equal(found.labels, wanted.labels)
        assert np.array_equal(found.confidence, wanted.confidence)


def test_a_pool_larger_than_the_graph_takes_its_neighbours_labels(
    digits: tuple[Images, Labels, Indices], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels, labelled = digits
    monkeypatch.setattr(pseudo_labels, "LARGEST_GRAPH", 600)
    found = spread_labels(images, labels, labelled, seed=0)
    again = spread_labels(images, labels, labelled, seed=0)
    assert np.array_equal(found.confidence, again.confidence)
    assert (found.labels == labels).mean() > 0.88
    assert np.array_equal(found.labels[labelled], labels[labelled])
    monkeypatch.setattr(pseudo_labels, "LARGEST_GRAPH", 20)  # fewer than are labelled: these alone make the graph
    assert (spread_labels(images, labels, labelled, seed=0).labels == labels).mean() > 0.7


def test_spreading_is_the_closed_form_of_zhou_et_al(digits: tuple[Images, Labels, Indices]) -> None:
    images, labels, _ = digits
    features = images[:120].reshape(120, -1).astype(np.float32) / 255
    labelled = np.arange(0, 120, 4)
    shares, classes = pseudo_labels._spread(features, labelled, labels[labelled])

    distances = np.linalg.norm(features[:, None] - features, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :NEIGHBOURS]
    scale = np.take_along_axis(distances, nearest, axis=1).max(axis=1)
    weights = np.zeros((120, 120))
    for i in range(120):
        for j in nearest[i]:
            weights[i, j] = weights[j, i] = np.exp(-(distances[i, j] ** 2) / (scale[i] * scale[j]))
    root = np.sqrt(weights.sum(axis=0))
    given = (labels[:120, None] == classes) * np.isin(np.arange(120), labelled)[:, None]
    wanted = inv(np.eye(120) - ALPHA * weights / np.outer(root, root)) @ given
    np.testing.assert_allclose(shares, wanted / wanted.sum(axis=1, keepdims=True), atol=1e-3)


def test_an_island_without_labels_gets_the_nearest_label_with_no_confidence() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 20, (60, 1, 4, 4)).astype(np.uint8)
    images[20:40] += 100
    images[40:] += 200  # three far groups; the last has no label and lies nearer to the second
    labels = np.repeat(np.array([0, 1, 1], dtype=np.int64), 20)
    found = spread_labels(images, labels, np.array([0, 1, 20, 21]), seed=0)
    assert found.labels.tolist() == labels.tolist()
    assert (found.confidence[40:] == 0).all()
    assert (found.confidence[:40] > 0.99).all()


def test_copies_of_one_image_do_not_break_the_graph() -> None:
    images = np.repeat(np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype(np.uint8), 10, axis=0)
    labels = np.repeat(np.arange(3), 10)
    found = spread_labels(images, labels, np.array([0, 10, 20]), seed=0)
    assert np.array_equal(found.labels, labels)


def test_an_image_without_label_cannot_be_spread_from(digits: tuple[Images, Labels, Indices]) -> None:
    images, labels, _ = digits
    with pytest.raises(ValueError, match="only from images that have one"):
        spread_labels(images, np.full_like(labels, -1), np.array([3]), seed=0)
