"""Scores the codes of several VAEs beside principal components and pixels, and says who wins."""

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.applications.represent_fit import Representation, encode_images
from pipeline.applications.story import Drawing, Story, Table, TableRow
from pipeline.config.represent import Represent
from pipeline.data.prepared import Split
from pipeline.metrics.clustering import cluster_scores
from pipeline.metrics.probes import Codes, classify, cluster, pca_codes
from pipeline.models.mixture_vae import MixtureVAE
from pipeline.seeding import derive_seed
from pipeline.training.stream import as_tensor

ORDER = 30
PCA_SIZE = 30
OURS, PCA, PIXELS = "VAE codes", "PCA", "pixels"
COLUMNS = {
    "linear": "linear probe",
    "nn1": "1-NN",
    "nn3": "3-NN",
    "kmeans_acc": "k-means ACC",
    "kmeans_nmi": "NMI",
    "kmeans_ari": "ARI",
    "gmm_acc": "GMM ACC",
    "gmm_nmi": "NMI",
    "gmm_ari": "ARI",
}
SHOWN = {"linear": "a linear probe", "nn3": "3-NN", "gmm_acc": "clusters of a Gaussian mixture"}
"""Of the scores those that the sentence names."""

Scores = dict[str, list[float]]
"""By name, one value a seed."""


def score_all(
    found: Sequence[Representation], train: Split, test: Split, num_clusters: int, seed: int
) -> dict[str, Scores]:
    """Of the VAEs, PCA and pixels; for these the seeds are those of k-means and the mixture."""
    ours = [_encode(one, train, test) for one in found]
    pixels = _codes(_rows(train.images), _rows(test.images), train, test)
    size = min(PCA_SIZE, *pixels.train.shape)
    pca = _codes(*pca_codes(pixels.train, pixels.test, size), train, test)
    draws = {OURS: [classify(codes) for codes in ours]}
    draws |= {name: [classify(codes)] * len(found) for name, codes in ((f"{PCA}-{size}", pca), (PIXELS, pixels))}
    sets = dict(zip(draws, (ours, [pca] * len(found), [pixels] * len(found)), strict=True))
    for name, rows in draws.items():
        for number, codes in enumerate(sets[name]):
            clusters = cluster(codes, num_clusters, derive_seed(seed, "represent", "clusters", number) % 2**32)
            model = found[number].model
            if name == OURS and isinstance(model, MixtureVAE):  # the clusters of a mixture prior are its components
                own = cluster_scores(model.assign(as_tensor(codes.test)).numpy(), codes.test_labels)
                clusters |= {f"gmm_{key}": value for key, value in own.items()}
            rows[number] = rows[number] | clusters
    return {name: {key: [row[key] for row in rows] for key in rows[0]} for name, rows in draws.items()}


def best_by_elbo(found: Sequence[Representation]) -> int:
    """Number of the VAE with the highest bound on validation images."""
    return int(np.argmax([one.elbo for one in found]))


def tell(
    scores: Mapping[str, Scores],
    found: Sequence[Representation],
    settings: Represent,
    counts: tuple[int, int],
    path: str,
) -> Story:
    """counts: train and test images.  path: of the map."""
    rows = [
        TableRow(name, [_cell(values.get(key)) for key in COLUMNS], baseline=name != OURS)
        for name, values in scores.items()
    ]
    elbos = np.array([one.elbo for one in found])
    train, test = counts
    caption = (
        f"Percent of {test} test images, mean +- sd over {len(found)} seeds; {train} train images. Clusters are found "
        f"without labels, as many as classes. Codes of {settings.latent_dim} numbers, {settings.prior} prior; "
        f"validation ELBO {elbos.mean():.1f} +- {_sd(elbos):.1f} nats."
    )
    drawing = Drawing(
        path=path,
        alt="Test images at the places that t-SNE gives their codes, coloured by class",
        caption="t-SNE of the codes of test images, of the VAE with the highest validation ELBO. Colours are classes.",
    )
    table = Table(caption, list(COLUMNS.values()), rows)
    return Story(ORDER, "Representations", " ".join(_verdicts(scores)), [table], [drawing])


def _verdicts(scores: Mapping[str, Scores]) -> list[str]:
    told = []
    for key, what in SHOWN.items():
        means = {name: float(np.mean(values[key])) for name, values in scores.items() if key in values}
        best = max(means, key=lambda name: means[name])
        ours = "" if best == OURS else f", {OURS} {100 * means[OURS]:.1f} %"
        told.append(f"For {what} {best} are best: {100 * means[best]:.1f} %{ours}.".replace("PCA-30 are", "PCA-30 is"))
    return told


def _encode(one: Representation, train: Split, test: Split) -> Codes:
    return _codes(encode_images(one.model, train.images), encode_images(one.model, test.images), train, test)


def _codes(train_rows: np.ndarray, test_rows: np.ndarray, train: Split, test: Split) -> Codes:
    return Codes(train_rows, train.labels, test_rows, test.labels)


def _rows(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def _cell(values: Sequence[float] | None) -> str:
    if values is None:
        return "not fitted"
    shares = 100 * np.array(values)
    return f"{shares.mean():.1f} +- {_sd(shares):.1f}"


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
