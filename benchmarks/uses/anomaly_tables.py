"""Anomalies in ADBench's tables (Han et al. 2022): a VAE and a Gaussian RBM that learn from half of the normal rows.

The files are looked for in the folder adbench of LAYERWISE_DATA_MIRROR; without it there are no rows.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.published.digits import SEED, Effort
from benchmarks.record import Row
from pipeline.applications.anomaly_table import TRAINED, load_table, rate_table
from pipeline.config.anomaly import Anomaly
from pipeline.config.load import load_params
from pipeline.metrics.detection import compute_auroc
from pipeline.paths import WORK
from pipeline.progress import Progress
from pipeline.seeding import derive_seed

SEEDS = 3
STEPS = 1500
BASELINES = ("pca", "isolation_forest", "nearest_neighbour")


def measure_tables(effort: Effort) -> list[Row]:
    """For every table the mean AUROC over seeds of each trained score; baseline: the best of the three simple ones."""
    folder = Path(os.environ.get("LAYERWISE_DATA_MIRROR", "")) / "adbench"
    files = sorted(folder.glob("*.npz"))
    if not files:
        print(f"anomaly_tables: {folder} has no .npz files, so there are no rows", file=sys.stderr)
    settings = load_params(Path("params.yaml")).section(Anomaly)
    settings = settings if effort.quick else replace(settings, vae_steps=STEPS, rbm_steps=STEPS)
    rows = []
    with Progress(len(files), "anomalies in tables") as progress:
        for done, file in enumerate(files, start=1):
            rows += _rows(file, settings, 1 if effort.quick else SEEDS, effort.accelerator)
            progress.update(done)
    return rows


def _rows(file: Path, settings: Anomaly, seeds: int, accelerator: str) -> list[Row]:
    table, found = load_table(file), dict[str, list[float]]()
    for number in range(seeds):
        seed = derive_seed(SEED, "anomaly table", file.stem, number)
        work = WORK / "anomaly" / f"{file.stem}-{settings.vae_steps}-{number}"
        rating = rate_table(table, settings, seed=seed, accelerator=accelerator, work=work)
        for name, scores in rating.judged.items():
            found.setdefault(name, []).append(compute_auroc(scores, rating.anomalous))
    means = {name: float(np.mean(values)) for name, values in found.items()}
    deviations = {name: float(np.std(values, ddof=1)) if seeds > 1 else 0.0 for name, values in found.items()}
    return [
        Row(
            name=f"{file.stem}, {name}",
            value=means[name],
            unit="AUROC",
            low=means[name] - deviations[name],
            high=means[name] + deviations[name],
            seeds=seeds,
            baseline=None if name in BASELINES else max(means[other] for other in BASELINES),
            better="higher",
        )
        for name in (*TRAINED, *BASELINES)
    ]
