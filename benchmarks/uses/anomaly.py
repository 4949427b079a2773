"""One-class anomaly detection on the native splits of MNIST and Fashion-MNIST: mean AUROC over the ten normal classes.

A tenth of a class's training images is held out for thresholds and for the ensemble's scales. Published one-class
methods reach .975 to .9935 on MNIST; a residual of 30 principal components .957. The features of the neighbours were
chosen with other classes' training images as anomalies, for three digits and four kinds of clothes (docs/LOG.md).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.published.digits import SEED, Effort
from benchmarks.record import Row
from pipeline.applications.anomaly import (
    HEADLINE,
    SIMPLE,
    TRAINED,
    Found,
    judge_tasks,
    make_tasks,
    run_tasks,
)
from pipeline.applications.anomaly_fits import BASELINES, FITS, DetectorData
from pipeline.config.anomaly import Anomaly
from pipeline.config.data import Data
from pipeline.config.generators import Gan, Vae
from pipeline.config.load import Params, load_params
from pipeline.data.sources import load_source
from pipeline.data.watcher import Silent
from pipeline.launch.local import LocalLauncher
from pipeline.paths import WORK
from pipeline.progress import Progress
from pipeline.seeding import make_numpy_rng

HELD_OUT = 0.1
FULL: dict[str, Any] = {
    "normal_classes": [],
    "seeds": 1,
    "vae_steps": 800,
    "gan_steps": 600,
    "encoder_steps": 400,
    "rbm_hidden": 256,
    "rbm_steps": 1500,
    "conv_steps": 800,
}
"""Section `anomaly` for these rows: round numbers that were not searched over."""
QUICK_CLASSES = [0, 1]


def measure_mnist(effort: Effort) -> list[Row]:
    """The convolutional RBM's neighbours, and the baselines."""
    return _measure("mnist", "MNIST", effort, bar=0.960, goal=0.985, published_pca=0.957)


def measure_fashion(effort: Effort) -> list[Row]:
    return _measure("fashion_mnist", "Fashion-MNIST", effort, bar=0.925, goal=0.945)


def measure_all(effort: Effort) -> list[Row]:
    """Every detector on MNIST, and their ensemble; slow."""
    return _measure("mnist", "MNIST", effort, bar=0.960, goal=0.985, published_pca=0.957, kinds=(*FITS, BASELINES))


def _measure(
    source: str,
    title: str,
    effort: Effort,
    *,
    bar: float,
    goal: float,
    published_pca: float | None = None,
    kinds: Sequence[str] = ("conv_rbm", BASELINES),
) -> list[Row]:
    params = load_params(Path("params.yaml"), [f"data.source={source}"])
    settings = params.section(Anomaly)
    settings = replace(settings, normal_classes=QUICK_CLASSES) if effort.quick else replace(settings, **FULL)
    found = _find(source, params, settings, effort, kinds)
    names = {each.score for each in found}
    means = {name: _seed_means(found, name) for name in (*TRAINED, *SIMPLE) if name in names}
    rows = [
        Row(
            name=f"{title} one-class, {name}",
            value=float(values.mean()),
            unit="AUROC",
            low=float(values.mean() - values.std(ddof=1)) if len(values) > 1 else None,
            high=float(values.mean() + values.std(ddof=1)) if len(values) > 1 else None,
            seeds=len(values),
            baseline=published_pca if name == "pca" else None,
            bar=effort.bar(bar) if name == HEADLINE else None,
            goal=effort.bar(goal) if name == HEADLINE else None,
            better="higher",
        )
        for name, values in means.items()
    ]
    gain = float((means[HEADLINE] - means["pca"]).mean())
    name = f"{title} one-class, gain over pca"
    return [*rows, Row(name=name, value=gain, unit="AUROC", bar=effort.bar(0.0), better="higher", seeds=settings.seeds)]


def _find(source: str, params: Params, settings: Anomaly, effort: Effort, kinds: Sequence[str]) -> list[Found]:
    """What is finished lies in a folder of its own for each setting, and is read again."""
    raw = load_source(params.section(Data), Silent())
    assert raw.test_images is not None
    assert raw.test_labels is not None
    order = make_numpy_rng(SEED, "held out").permutation(len(raw.images))
    held_out, kept = np.split(order, [int(HELD_OUT * len(order))])
    judged = slice(0, 1000 if effort.quick else None)
    data = DetectorData(
        raw.images[kept], raw.labels[kept], raw.images[held_out], raw.labels[held_out], raw.test_images[judged]
    )
    vae, gan = params.section(Vae), params.section(Gan)
    one_seed = json.dumps([asdict(section) for section in (replace(settings, seeds=1), vae, gan)])
    work = WORK / "anomaly" / f"{source}-{hashlib.sha256(one_seed.encode()).hexdigest()[:8]}"
    tasks = make_tasks(
        settings,
        vae,
        gan,
        raw.class_names,
        seed=SEED,
        accelerator=effort.accelerator,
        precision="32",
        work=work,
        kinds=kinds,
    )
    with Progress(len(tasks), f"anomaly on {source}") as progress:
        results = run_tasks(tasks, data, LocalLauncher(), progress.update)
    return judge_tasks(tasks, results, raw.test_labels[judged])


def _seed_means(found: list[Found], name: str) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """The mean AUROC over classes, one a seed."""
    numbers = sorted({each.number for each in found})
    return np.array(
        [np.mean([each.detection.auroc for each in found if each.score == name and each.number == n]) for n in numbers]
    )
