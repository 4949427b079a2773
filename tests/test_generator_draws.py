from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from pipeline.config.generators import Gan, Vae
from pipeline.data.prepared import Prepared, Split
from pipeline.launch.local import LocalLauncher
from pipeline.training.draws import fit_draws, generator_labels
from pipeline.training.generators import FittedGenerator, mean_curves

VAE = Vae(
    latent_dim=2,
    width=4,
    likelihood="bernoulli",
    beta=1.0,
    free_bits=0.0,
    iw_samples=1,
    warmup_steps=2,
    steps=4,
    batch_size=8,
    lr=0.001,
)


def prepared(labels: npt.NDArray[np.int64]) -> Prepared:
    """Two easy classes, two draws of two labels and of four."""
    classes = np.arange(60) % 2
    images = (np.random.default_rng(0).integers(0, 80, (60, 1, 28, 28)) + classes[:, None, None, None] * 150).astype(
        np.uint8
    )
    split = Split(images, labels)
    validation = Split(images[:10], classes[:10])
    subsets = np.array([[0, 1, 2, 3], [4, 5, 6, 7]])
    return Prepared(Path(), (1, 28, 28), ["dark", "bright"], split, validation, [2, 4], subsets)


def fit(work: Path, config: Vae | Gan = VAE) -> tuple[list[FittedGenerator], list[int]]:
    data, heard = prepared(np.arange(60) % 2), list[int]()
    fitted = fit_draws(
        config,
        data,
        generator_labels(data, seed=0),
        LocalLauncher(),
        seed=0,
        accelerator="cpu",
        precision="32",
        work=work,
        on_fitted=heard.append,
    )
    return fitted, heard


def test_a_generator_sees_no_label_outside_the_smallest_budget() -> None:
    rows = []
    for seed in (1, 2):
        labels = np.random.default_rng(seed).integers(0, 2, 60)
        labels[[0, 1, 4, 5]] = [0, 1, 0, 1]
        rows.append(generator_labels(prepared(labels), seed=0))
    assert np.array_equal(rows[0], rows[1])
    assert rows[0].shape == (2, 60)
    assert np.array_equal(rows[0][0], np.arange(60) % 2)


def test_finished_draws_are_not_fitted_again(tmp_path: Path) -> None:
    first, heard = fit(tmp_path)
    assert heard == [0, 1, 2]
    again, heard = fit(tmp_path)
    assert heard == [2]
    for left, right in zip(first, again, strict=True):
        assert left.history == right.history
        assert all(np.array_equal(left.state[name], right.state[name]) for name in left.state)


def test_a_diverging_generator_is_named_with_its_draw(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)2 of 2 trials failed.*vae, label draw 0: training diverged at step"):
        fit(tmp_path, replace(VAE, lr=1e30))


def test_mean_curves_average_step_by_step() -> None:
    histories = [[{"step": 1, "train/loss": 2.0}], [{"step": 1, "train/loss": 4.0}]]
    assert mean_curves(histories) == [{"step": 1.0, "train/loss": 3.0}]
