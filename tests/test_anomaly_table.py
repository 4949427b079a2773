from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.applications.anomaly_baselines import count_components, fit_baselines, pca_residual
from pipeline.applications.anomaly_table import load_table, rate_table
from pipeline.config.anomaly import Anomaly
from pipeline.config.load import load_params
from pipeline.metrics.detection import compute_auroc

ROOT = Path(__file__).parent.parent


def settings(**changes: int) -> Anomaly:
    return replace(load_params(ROOT / "params.yaml").section(Anomaly), **changes)  # type: ignore[arg-type]


def plane_and_off_plane() -> tuple[np.ndarray, np.ndarray]:
    """400 rows near a plane in four dimensions, 60 anomalies away from it, and far apart units of the columns."""
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(400, 2)) @ rng.normal(size=(2, 4)) + 0.05 * rng.normal(size=(400, 4))
    odd = 1.5 * rng.normal(size=(60, 4))
    return np.concatenate([normal, odd]) * [1, 10, 100, 1000] + 5, np.repeat([0, 1], [400, 60])


def test_a_table_is_the_same_from_npz_and_csv_with_a_header_or_without(tmp_path: Path) -> None:
    x, y = plane_and_off_plane()
    np.savez(tmp_path / "a.npz", X=x, y=y)
    np.savetxt(tmp_path / "b.csv", np.column_stack([x, y]), delimiter=",", fmt="%.17g")
    np.savetxt(tmp_path / "c.csv", np.column_stack([x, y]), delimiter=",", fmt="%.17g", header="p,q,r,s,y", comments="")
    for name in ("a.npz", "b.csv", "c.csv"):
        table = load_table(tmp_path / name)
        np.testing.assert_array_equal(table.rows, x)
        np.testing.assert_array_equal(table.anomalous, y == 1)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.ones((30, 2)), np.full(30, 2), "wanted 0 .normal. and 1 .anomaly."),
        (np.full((30, 2), np.nan), np.zeros(30), "row 0 has values that are not finite"),
        (np.ones((30, 2)), np.zeros(30), "30 normal rows and 0 anomalies"),
        (np.ones((30, 2)), np.zeros(29), r"y \(29,\): wanted"),
    ],
)
def test_a_bad_table_is_refused_by_name(tmp_path: Path, x: np.ndarray, y: np.ndarray, message: str) -> None:
    np.savez(tmp_path / "bad.npz", X=x, y=y)
    with pytest.raises(ValueError, match=message):
        load_table(tmp_path / "bad.npz")


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("a,b\nc,d\n")
    with pytest.raises(ValueError, match=r"words.csv cannot be read .*wanted numbers"):
        load_table(tmp_path / "words.csv")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(ValueError, match="it lacks X, y"):
        load_table(tmp_path / "other.npz")
    with pytest.raises(ValueError, match=r"must be a .npz or .csv file, or a folder"):
        load_table(tmp_path / "missing.npz")


def test_the_residual_of_principal_components_is_the_distance_to_their_plane() -> None:
    from sklearn.decomposition import PCA

    x, _ = plane_and_off_plane()
    train, rows = x[:300], x[300:]
    shares = PCA().fit(train).explained_variance_ratio_.cumsum()
    assert count_components(train, 0.9) == int(np.searchsorted(shares, 0.9)) + 1
    pca = PCA(2).fit(train)
    wanted = np.square(rows - pca.inverse_transform(pca.transform(rows))).sum(1)
    np.testing.assert_allclose(pca_residual(train, 2)(rows), wanted, rtol=1e-6)
    nearest = fit_baselines(train, seed=0)["nearest_neighbour"]
    distances = np.linalg.norm(rows[:5, None] - train, axis=2).min(1)
    np.testing.assert_allclose(nearest(rows[:5]), distances, rtol=1e-3)


def test_rows_off_the_plane_are_found_and_a_killed_fit_ends_the_same(tmp_path: Path) -> None:
    x, y = plane_and_off_plane()
    np.savez(tmp_path / "a.npz", X=x, y=y)
    table, few = load_table(tmp_path / "a.npz"), settings(vae_steps=120, rbm_steps=40, rbm_hidden=8)
    rating = rate_table(table, few, seed=1, accelerator="cpu", work=tmp_path / "one")
    assert rating.anomalous.sum() == 60
    assert len(rating.anomalous) == 260
    assert len(rating.normal["pca"]) == 40
    assert compute_auroc(rating.judged["vae_elbo"], rating.anomalous) > 0.8
    assert (tmp_path / "one" / "row-vae.ckpt").is_file()  # of the third of four epochs: what a kill would leave
    again = rate_table(table, few, seed=1, accelerator="cpu", work=tmp_path / "one")
    for name, scores in rating.judged.items():
        np.testing.assert_array_equal(scores, again.judged[name])
