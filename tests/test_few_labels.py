import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.datasets import load_digits

from benchmarks.published.few_labels import label_draws, spread_labels
from benchmarks.published.label_pool import project
from pipeline.data.label_graph import connect_neighbours, normalise_graph
from pipeline.models.detectors import pooled_features
from tests.classifier_data import make_dbn


@pytest.fixture(scope="module")
def digits() -> tuple[csr_matrix, np.ndarray]:
    data = load_digits()
    return normalise_graph(connect_neighbours(data.data.astype(np.float32))), data.target.astype(np.int64)


def test_labels_reach_the_pool_and_the_draws_own_stay(digits: tuple[csr_matrix, np.ndarray]) -> None:
    graph, target = digits
    labelled = label_draws(target, 0)[3][:100]
    assert (np.bincount(target[labelled]) == 10).all()
    wrong = (target[labelled] + 1) % 10  # what is said of the draw's images goes, whatever they show
    for known in (target[labelled], wrong):
        shares = spread_labels(graph, labelled, known)
        assert np.array_equal(shares[labelled].argmax(axis=1), known)
        assert (shares[labelled].max(axis=1) == 1).all()
    assert (spread_labels(graph, labelled, target[labelled]).argmax(axis=1) == target).mean() > 0.9


def test_whitened_components_have_the_variance_left_to_them() -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(4000, 6)) * [5, 4, 3, 2, 1, 0.5]).astype(np.float32)
    found = project(x, x, 6, 0.5).var(axis=0, ddof=1)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(np.cov(x.T))[::-1] ** 0.5, rtol=1e-3)


def test_features_are_averages_of_the_first_layer_at_length_one() -> None:
    dbn = make_dbn()
    images = torch.rand((3, *dbn.shapes[0]), generator=torch.Generator().manual_seed(0))
    found = pooled_features(dbn, images)
    first = dbn.mean_field(images, 1)
    corner = first[:, :, :3, :3].mean((2, 3)).sqrt()
    per_filter = found.view(3, first.shape[1], -1)
    ratio = per_filter[:, :, 0] / corner
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
