"""Ten numbers an MNIST image, learnt without labels by a VAE: clusters and neighbours on the 10,000 test images.

The number of clusters, ten, is the only thing that was told. No setting was chosen by an accuracy.
"""

import math
from dataclasses import replace

import numpy as np

from benchmarks.published.digits import SEED, Digits, Effort, as_floats, load_digits
from benchmarks.record import Row
from pipeline.applications.image_fit import FitSettings
from pipeline.applications.represent_fit import encode_images, fit_representation
from pipeline.config.represent import Represent
from pipeline.metrics.clustering import cluster_scores
from pipeline.metrics.probes import Codes, fit_mixture, neighbour_accuracy, pca_codes
from pipeline.metrics.score import Floats
from pipeline.models.mixture_vae import MixtureVAE
from pipeline.seeding import derive_seed
from pipeline.training.stream import as_tensor

CLUSTERS = 10
SEEDS = 3
EPOCHS, MIXTURE_EPOCHS = 40, 40
BATCH = 128
PCA = 30


def measure_represent(effort: Effort) -> list[Row]:
    """Both priors, and 30 principal components."""
    digits = load_digits()
    count = len(digits.data.images)
    standard = Represent(
        prior="standard",
        hidden_sizes=[512, 256],
        latent_dim=10,
        beta=1.0,
        steps=effort.steps(EPOCHS, count, BATCH),
        mixture_steps=effort.steps(MIXTURE_EPOCHS, count, BATCH),
        batch_size=BATCH,
        lr=1e-3,
        seeds=SEEDS,
        map_images=50,
    )
    rows = []
    for settings in (standard, replace(standard, prior="mixture")):
        found = [_measure(digits, settings, effort, number) for number in range(SEEDS)]
        mixture = settings.prior == "mixture"
        name = "10-d codes, mixture prior" if mixture else "10-d codes"
        rows.append(_row(f"MNIST, {name}, 3-NN", [nn for nn, _ in found], bar=effort.bar(97.6), goal=effort.bar(98.0)))
        rows.append(_row(f"MNIST, {name}, GMM", [acc for _, acc in found], bar=effort.bar(75.0), goal=effort.bar(95.0)))
    pca = _codes(digits, *pca_codes(_rows(digits.data.images), _rows(digits.test_images), PCA))
    clusters = fit_mixture(pca.train, CLUSTERS, SEED).predict(pca.test)
    rows.append(_row("MNIST, PCA-30, 3-NN", [neighbour_accuracy(pca, 3)]))
    return [*rows, _row("MNIST, PCA-30, GMM", [cluster_scores(clusters, pca.test_labels)["acc"]])]


def _measure(digits: Digits, settings: Represent, effort: Effort, number: int) -> tuple[float, float]:
    """Accuracy of 3-NN, and of the clusters: of the prior itself where it is a mixture."""
    how = FitSettings(seed=SEED, accelerator=effort.accelerator, precision="32", work=None)
    model = fit_representation(settings, digits.data.images, digits.data.validation, CLUSTERS, how, number).model
    codes = _codes(digits, encode_images(model, digits.data.images), encode_images(model, digits.test_images))
    if isinstance(model, MixtureVAE):
        clusters = model.assign(as_tensor(codes.test)).numpy()
    else:
        clusters = fit_mixture(codes.train, CLUSTERS, derive_seed(SEED, "gmm", number) % 2**32).predict(codes.test)
    return neighbour_accuracy(codes, 3), cluster_scores(clusters, codes.test_labels)["acc"]


def _codes(digits: Digits, train: Floats, test: Floats) -> Codes:
    return Codes(train, digits.labels, test, digits.test_labels)


def _rows(images: np.ndarray) -> np.ndarray:
    return as_floats(images).flatten(1).numpy()


def _row(name: str, shares: list[float], bar: float | None = None, goal: float | None = None) -> Row:
    """In %; the interval is two standard errors over seeds, none for one of them."""
    values = 100 * np.array(shares)
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None
    mean = float(values.mean())
    low, high = (None, None) if error is None else (mean - 2 * error, mean + 2 * error)
    return Row(
        name=name,
        value=mean,
        unit="%",
        low=low,
        high=high,
        seeds=len(values),
        bar=bar,
        goal=goal,
        better="higher",
    )
