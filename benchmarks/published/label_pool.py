"""The 60,000 training images of MNIST without their labels: a CDBN trained on them, and graphs of their neighbours."""

# N images, F filters

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import load_npz, save_npz
from sklearn.decomposition import PCA
from sklearn.neighbors import NearestNeighbors

from benchmarks.published.digits import QUICK_STEPS, SEED, Digits, Effort, as_floats
from pipeline.artifacts import atomic_path, read_array, write_array
from pipeline.config.load import load_params
from pipeline.data.arrays import Images, Labels
from pipeline.data.label_graph import NEIGHBOURS, Floats, connect_neighbours, normalise_graph
from pipeline.models.dbn import DBN, GreedyLayer
from pipeline.models.detectors import pooled_features
from pipeline.models.losses import UNLABELLED
from pipeline.paths import WORK
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.greedy import START_IMAGES, LayerData, LayerTask, fit_layer
from pipeline.training.stream import as_batch, as_tensor
from pipeline.weights import load_weights, save_weights

FOLDER = WORK / "few_labels"
QUICK_IMAGES = 6_000
PRETRAINING_STEPS = 3_000
WATCHED_IMAGES = 500
"""Of the pool itself, for the curves of free energy: they decide nothing."""
COMPONENTS = {"cdbn": (120, 0.5), "untrained": (120, 0.5), "pixels": (40, 0.0)}
"""Principal components that distances are measured in, and their whitening: at 1 all components weigh the same."""
FITTED_IMAGES = 10_000
CHUNK = 1000


@dataclass(frozen=True)
class Pool:
    """images: (N, 1, 28, 28), all there are.  labels: (N,), for the draws to look theirs up, and for nothing else.

    graphs: neighbours by features of the `cdbn`, of the same one `untrained`, and by `pixels`, (N, N), normalised.
    neighbours: (T, 7) positions of those images of the pool whose CDBN features are nearest to each test image's.
    """

    images: Images
    labels: Labels
    dbn: DBN
    graphs: dict[str, Any]
    neighbours: npt.NDArray[np.int64]


def load_pool(digits: Digits, effort: Effort) -> Pool:
    """What the arms share. CDBN and graphs are made once and kept."""
    images = np.concatenate([digits.data.images, digits.data.validation])
    labels = np.concatenate([digits.labels, digits.validation_labels])
    if effort.quick:
        images, labels = images[:QUICK_IMAGES], labels[:QUICK_IMAGES]
    folder = FOLDER / ("quick" if effort.quick else "full")
    dbn = _keep_dbn(folder / "cdbn.safetensors", images, effort)
    makers = {"cdbn": dbn, "untrained": _untrained_dbn(images), "pixels": dbn}
    graphs = {kind: _keep_graph(folder / f"{kind}.npz", kind, maker, images) for kind, maker in makers.items()}
    return Pool(
        images, labels, dbn, graphs, _keep_neighbours(folder / "neighbours.npy", dbn, images, digits.test_images)
    )


def _keep_dbn(file: Path, images: Images, effort: Effort) -> DBN:
    """The two convolutional layers of params.yaml, trained longer."""
    if file.is_file():
        state, config = load_weights(file, kind="DBN")
        dbn = DBN.from_config(config)
        dbn.load_state_dict(state)
        return dbn.eval()
    dbn = DBN([], (1, 28, 28))
    layers = load_params(Path("params.yaml")).layers
    for name in ("conv1", "conv2"):
        layer = replace(layers[name], steps=QUICK_STEPS if effort.quick else PRETRAINING_STEPS)
        task = LayerTask(
            name=name,
            below=dbn,
            layer=layer,
            seed=SEED,
            accelerator=effort.accelerator,
            precision="32",
            checkpoint=None,
        )
        dbn, _ = fit_layer(task, LayerData(images, images[:WATCHED_IMAGES]), lambda *_: None)
    save_weights(file, dbn.state_dict(), kind="DBN", config=dbn.to_config())
    return dbn


def _untrained_dbn(images: Images) -> DBN:
    """The CDBN's first layer before its first update: what its geometry alone is worth."""
    dbn = DBN([], (1, 28, 28)).extended(load_params(Path("params.yaml")).layers["conv1"])
    start = images[:START_IMAGES]
    GreedyLayer(dbn).initialise(
        as_batch(as_tensor(start), torch.full((len(start),), UNLABELLED)), make_generator(SEED, "untrained CDBN")
    )
    return dbn.eval()


def _keep_graph(file: Path, kind: str, dbn: DBN, images: Images) -> Any:
    if not file.is_file():
        features = describe(kind, dbn, images)
        weights = connect_neighbours(project(features, features, *COMPONENTS[kind]))
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            save_npz(stream, normalise_graph(weights))
    return load_npz(file)


def _keep_neighbours(file: Path, dbn: DBN, images: Images, test_images: Images) -> npt.NDArray[np.int64]:
    """Each test image is looked at by itself: it joins neither the graph nor the principal components."""
    if not file.is_file():
        features, test_features = (describe("cdbn", dbn, each) for each in (images, test_images))
        pool, test = (project(each, features, *COMPONENTS["cdbn"]) for each in (features, test_features))
        nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(pool).kneighbors(test, return_distance=False)
        write_array(file, nearest.astype(np.int64))
    return read_array(file)


@torch.no_grad()
def describe(kind: str, dbn: DBN, images: Images) -> Floats:
    """(N, D): the pixels in [0, 1], or `pooled_features` of the CDBN."""
    chunks = (as_floats(images[at : at + CHUNK]) for at in range(0, len(images), CHUNK))
    make = (lambda chunk: chunk.flatten(1)) if kind == "pixels" else (lambda chunk: pooled_features(dbn, chunk))
    return torch.cat([make(chunk) for chunk in chunks]).numpy()


def project(features: Floats, fitted_on: Floats, count: int, whitening: float) -> Floats:
    """The `count` leading principal components of `fitted_on`, each over its standard deviation ** whitening."""
    pca = PCA(min(count, *fitted_on.shape), svd_solver="randomized", random_state=derive_seed(SEED, "pca") % 2**32)
    pca.fit(fitted_on[:FITTED_IMAGES])
    return np.asarray(pca.transform(features) / pca.explained_variance_ ** (whitening / 2), np.float32)
