"""Anomalies among rows of a table: a VAE and a Gaussian RBM that learn from half of the normal rows, and baselines.

The split and the sets that it is tried on are ADBench's (Han et al. 2022).
"""

# N rows, D columns

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.applications.anomaly import SIMPLE, with_ensemble
from pipeline.applications.anomaly_baselines import count_components, fit_baselines
from pipeline.applications.anomaly_fits import EPOCHS, RBM, Scores
from pipeline.artifacts import hash_file
from pipeline.config.anomaly import Anomaly
from pipeline.config.pretrain import DenseLayer
from pipeline.metrics.detection import Flags
from pipeline.models.dbn import DBN
from pipeline.models.losses import UNLABELLED
from pipeline.models.row_vae import RowVAE
from pipeline.models.vae_scores import draw_noise, reconstruction_and_kl
from pipeline.seeding import derive_seed, make_generator, make_numpy_rng
from pipeline.training.greedy import LayerData, LayerTask, fit_layer
from pipeline.training.plan import FitPlan
from pipeline.training.stream import BatchStream

ENSEMBLE = ("vae_elbo", "rbm_free_energy")
TRAINED = ("ensemble", "vae_elbo", "vae_reconstruction", "rbm_free_energy")
VARIANCE_KEPT = 0.9
"""By the principal components of the baseline."""
HELD_OUT = 0.2
"""Of the normal rows to learn from: for thresholds and scales."""
LATENT, HIDDEN, BATCH, VAE_LR, RBM_LR = 8, 64, 128, 2e-3, 2e-3
MAX_STD = 1e-9
MIN_ROWS = 20

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Table:
    """rows: (N, D).  anomalous: (N,).  sha256: of the file."""

    rows: npt.NDArray[np.float64]
    anomalous: Flags
    sha256: str


def load_table(path: Path) -> Table:
    """.npz with X (N, D) and y (N,), or .csv whose last column is y, with a header or without; y is 1 for an anomaly.

    Raises ValueError naming the file, the rule and the remedy.
    """
    if path.suffix not in (".npz", ".csv") or not path.is_file():
        raise ValueError(f"anomaly.table must be a .npz or .csv file, or a folder for none, got {path}: set it")
    x, y = _read_npz(path) if path.suffix == ".npz" else _read_csv(path)
    if x.ndim != 2 or y.shape != (len(x),) or x.shape[1] < 1:
        raise ValueError(f"{path}: X has shape {x.shape}, y {y.shape}: wanted (rows, columns) and (rows,)")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x).all(axis=1))[0])
        raise ValueError(f"{path}: row {row} has values that are not finite: fill or remove it")
    if not np.isin(y, (0, 1)).all():
        raise ValueError(f"{path}: y holds {sorted(set(np.unique(y).tolist()))[:5]}: wanted 0 (normal) and 1 (anomaly)")
    if (y == 0).sum() < MIN_ROWS or not (y == 1).any():
        raise ValueError(f"{path}: {(y == 0).sum()} normal rows and {(y == 1).sum()} anomalies: give more of either")
    return Table(x.astype(np.float64), y.astype(bool), hash_file(path))


@dataclass(frozen=True)
class Rating:
    """Scores of held-out normal rows and of the judged rows, by name, and which of the latter are anomalies."""

    normal: Scores
    judged: Scores
    anomalous: Flags


def rate_table(table: Table, settings: Anomaly, *, seed: int, accelerator: str, work: Path) -> Rating:
    """A random half of the normal rows to learn from, the other half and all anomalies to judge.

    Columns are standardised by the rows to learn from.  work: a folder for checkpoints.
    """
    normal = make_numpy_rng(seed, "table", "split").permutation(np.flatnonzero(~table.anomalous))
    half = len(normal) // 2
    held_out, train = np.split(normal[:half], [int(HELD_OUT * half)])
    judged = np.concatenate([normal[half:], np.flatnonzero(table.anomalous)])
    mean, std = table.rows[train].mean(0), table.rows[train].std(0)
    scaled = ((table.rows - mean) / np.where(std > MAX_STD, std, 1)).astype(np.float32)
    vae = fit_row_vae(scaled[train], settings, seed=seed, accelerator=accelerator, work=work)
    rbm = fit_row_rbm(scaled[train], scaled[held_out], settings, seed=seed, accelerator=accelerator, work=work)
    baselines = fit_baselines(scaled[train], seed=seed, num_components=count_components(scaled[train], VARIANCE_KEPT))
    found: list[Scores] = []
    for part in (held_out, judged):
        rows = torch.from_numpy(scaled[part])
        none = torch.full((len(rows),), UNLABELLED)
        reconstruction, kl = reconstruction_and_kl(vae, rows, none, draw_noise(settings.num_samples, LATENT))
        (layer,) = rbm.rbms()
        with torch.no_grad():
            energy = layer.free_energy(layer.standardise(rows))
        values = {"vae_elbo": kl - reconstruction, "vae_reconstruction": -reconstruction, "rbm_free_energy": energy}
        found.append({name: score.double().numpy() for name, score in values.items()})
        found[-1] |= {name: baselines[name](scaled[part]) for name in SIMPLE}
    return Rating(*with_ensemble(found[0], found[1], ENSEMBLE), table.anomalous[judged])


def fit_row_vae(train: Rows, settings: Anomaly, *, seed: int, accelerator: str, work: Path) -> RowVAE:
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    weights = make_generator(seed, "row vae", "weights")
    model = RowVAE(train.shape[1], latent_dim=LATENT, num_hidden=HIDDEN, generator=weights)
    plan = FitPlan(
        steps=settings.vae_steps,
        steps_per_epoch=-(-settings.vae_steps // EPOCHS),
        lr=VAE_LR,
        schedule="linear_tail",
        seed=derive_seed(seed, "row vae", "fit"),
        accelerator=accelerator,
    )
    stream = BatchStream(
        torch.from_numpy(train),
        torch.full((len(train),), UNLABELLED),
        batch_size=BATCH,
        seed=derive_seed(seed, "row vae", "batches"),
    )
    fit(model, stream, plan, checkpoint=work / "row-vae.ckpt")
    return model


def fit_row_rbm(train: Rows, held_out: Rows, settings: Anomaly, *, seed: int, accelerator: str, work: Path) -> DBN:
    """Gaussian visible units: the rows are (1, 1, D) pictures to it."""
    changes: dict[str, Any] = {"visible": "gaussian", "lr": RBM_LR, "persistent": False}
    task = LayerTask(
        name="row rbm",
        below=DBN([], (1, 1, train.shape[1])),
        layer=DenseLayer(num_hidden=settings.rbm_hidden, steps=settings.rbm_steps, **{**RBM, **changes}),
        seed=derive_seed(seed, "row rbm"),
        accelerator=accelerator,
        precision="32",
        checkpoint=work / "row-rbm.ckpt",
        epochs=EPOCHS,
    )
    return fit_layer(task, LayerData(train[:, None, None], held_out[:, None, None]), lambda *_: None)[0]


def _read_npz(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = {"X", "y"} - set(archive.files)
            if missing:
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
            return np.asarray(archive["X"], np.float64), np.asarray(archive["y"], np.float64)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): wanted plain arrays X (rows, columns) and y (rows,)"
        ) from error


def _read_csv(path: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    with path.open(encoding="utf-8", newline="") as handle:
        lines = [line for line in csv.reader(handle) if line]
    for first in (0, 1):  # a header does not read as numbers
        try:
            values = np.array(lines[first:], dtype=np.float64)
        except ValueError as error:
            found = error
            continue
        if values.ndim == 2 and values.shape[1] > 1:
            return values[:, :-1], values[:, -1]
        found = ValueError(f"it has shape {values.shape}")
    raise ValueError(f"{path} cannot be read ({found}): wanted numbers, equally many in every line, the last one y")
