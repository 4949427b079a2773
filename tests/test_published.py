"""The published rows' own arithmetic, on tiny data: scikit-learn's PCA as the oracle, the rows that a fit ends in."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from benchmarks.published import codes, permutation_invariant
from benchmarks.published.digits import Digits, Effort
from pipeline.models.dbn import DBN
from pipeline.models.mlp import MLP
from pipeline.training.greedy import LayerData
from tests.test_dbn import dense, random_dbn


def digits(count: int = 120) -> Digits:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3 * count, 1, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, 3 * count)
    data = LayerData(images[:count], images[count : 2 * count])
    return Digits(data, labels[:count], labels[count : 2 * count], images[2 * count :], labels[2 * count :])


def test_errors_of_principal_components_are_scikit_learns() -> None:
    x, y = (torch.rand(60, 1, 7, 7, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    pca = PCA(codes.CODE, svd_solver="full").fit(x.flatten(1).double().numpy())
    rows = y.flatten(1).double().numpy()
    expected = ((pca.inverse_transform(pca.transform(rows)) - rows) ** 2).sum(1)
    np.testing.assert_allclose(codes.pca_errors(x, y).numpy(), expected, rtol=1e-6)


def test_images_that_are_not_mnists_are_refused_before_anything_is_trained() -> None:
    with pytest.raises(ValueError, match=r"leave 13.87 \+- 0.02 .* these images are not MNIST's"):
        codes.measure_codes(digits(), Effort(quick=True, accelerator="cpu"))


def test_the_dropout_row_scores_both_networks_on_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that know the labels: the error is the share of test labels that were changed."""
    known = digits()
    monkeypatch.setattr(permutation_invariant, "HIDDEN", (4,))
    monkeypatch.setattr(permutation_invariant, "pretrain", lambda *_: one_layer())
    monkeypatch.setattr(permutation_invariant, "finetune", lambda *_, **__: None)
    labels = torch.from_numpy(known.test_labels)
    monkeypatch.setattr(
        MLP,
        "predict_log_probabilities",
        lambda _, images: torch.nn.functional.one_hot(labels[: len(images)], 10).float(),
    )
    wrong = replace(known, test_labels=np.where(np.arange(120) < 6, (known.test_labels + 1) % 10, known.test_labels))
    rows = permutation_invariant.measure_dropout(wrong, Effort(quick=False, accelerator="cpu"))
    assert [row.value for row in rows] == [5.0, 5.0]
    assert [row.bar for row in rows] == [0.95, None]
    assert all(row.misses_bar() == (row.bar is not None) for row in rows)


def one_layer() -> DBN:
    return random_dbn([dense(4, "prepare")], (1, 28, 28))
