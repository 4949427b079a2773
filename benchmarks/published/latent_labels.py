"""MNIST with 100 labels by variational autoencoders: M1+M2 of Kingma et al. 2014, and labels spread over M1's codes.

M1 is the VAE of the row vae_bound, trained once on images without labels; M2 and the graph learn from its codes of all
60,000 training images and from 100 labels. Ten draws, numbered 0 to 9 in advance, the few-label rows' own. No label
outside a draw is looked at, and nothing is validated.
"""

# N images of the pool, T test images, S draws

import sys
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from benchmarks.published.digits import SEED, Digits, Effort, as_floats
from benchmarks.published.few_labels import DRAWS, NAMES, label_draws, spread_labels
from benchmarks.published.kept_fits import fit_kept
from benchmarks.published.vae_bound import LATENT, train_vae
from benchmarks.record import Row
from pipeline.data.label_graph import NEIGHBOURS, connect_neighbours, normalise_graph
from pipeline.models.importance_vae import ImportanceVAE
from pipeline.models.losses import UNLABELLED
from pipeline.models.semi_supervised_vae import SemiSupervisedVAE
from pipeline.row_noise import draw_normal
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.plan import FitPlan
from pipeline.training.stream import BatchStream, MixedStream

LABELS = 100
HIDDEN, LATENT_2 = (500,), 50
EPOCHS = 20
LABELLED_BATCH, UNLABELLED_BATCH = 100, 200
LR = 1e-3
CLASSIFICATION_WEIGHT = 0.1
BAR, GOAL, BASELINE = 3.0, 0.9, 3.33
QUICK_IMAGES, QUICK_DRAWS = 6_000, 2
CHUNK = 5_000

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Codes:
    """M1's posteriors: means and log variances side by side, (N, 2 Z) of the pool and (T, 2 Z) of the test images.

    labels: (N,), for the draws to look theirs up, and for nothing else.
    """

    pool: Tensor
    labels: Labels
    test: Tensor


def measure_semi_supervised(digits: Digits, effort: Effort) -> list[Row]:
    """Mean test error over draws, and one standard deviation of the draws to either side."""
    codes = encode_pool(digits, effort)
    draws = range(QUICK_DRAWS if effort.quick else DRAWS)
    labelled = label_draws(codes.labels, SEED)[:, :LABELS]
    wrong = {
        "M1+M2": [classify_by_m2(codes, labelled[draw], draw, effort) for draw in draws],
        "M1 and a graph of its codes": classify_by_graph(codes, labelled[draws.start : draws.stop]),
    }
    rows = []
    for name, predicted in wrong.items():
        errors_S = np.array([100 * (each != digits.test_labels).mean() for each in predicted])
        print(f"{name}: test errors of the draws {np.round(errors_S, 2).tolist()} %", file=sys.stderr, flush=True)
        mean, deviation, own = float(errors_S.mean()), float(errors_S.std(ddof=1)), name == "M1+M2"
        rows.append(
            Row(
                name=f"{name}, {LABELS} labels",
                value=mean,
                unit="%",
                low=mean - deviation,
                high=mean + deviation,
                seeds=len(errors_S),
                baseline=BASELINE if own else None,
                bar=effort.bar(BAR) if own else None,
                goal=effort.bar(GOAL) if own else None,
            )
        )
    return rows


def encode_pool(digits: Digits, effort: Effort) -> Codes:
    """Trains M1 or takes it from where it is kept, and encodes all training and test images."""
    m1, _ = train_vae(digits, effort)
    images = np.concatenate([digits.data.images, digits.data.validation])
    labels = np.concatenate([digits.labels, digits.validation_labels])
    if effort.quick:
        images, labels = images[:QUICK_IMAGES], labels[:QUICK_IMAGES]
    return Codes(posteriors(m1, as_floats(images)), labels, posteriors(m1, as_floats(digits.test_images)))


@torch.no_grad()
def posteriors(m1: ImportanceVAE, images: Tensor) -> Tensor:
    """Means and log variances: (N, ...) -> (N, 2 Z)."""
    return torch.cat([torch.cat(m1.encode(part), dim=1) for part in images.split(CHUNK)])


def draw_codes(posteriors_B2Z: Tensor, generator: torch.Generator) -> Tensor:
    """z ~ N(mean, exp(log variance)): (B, 2 Z) -> (B, Z)."""
    mean, log_variance = posteriors_B2Z.chunk(2, dim=1)
    return mean + draw_normal(mean.shape, generator, mean) * (0.5 * log_variance).exp()


def classify_by_m2(codes: Codes, labelled: Labels, draw: int, effort: Effort) -> Labels:
    """(T,): what M2 calls the test images' mean codes, having learned from new draws of codes at every update."""
    known = torch.from_numpy(codes.labels[labelled])
    unknown = torch.full((len(codes.pool),), UNLABELLED)
    seeds = [derive_seed(SEED, "M2", part, draw) for part in ("labelled", "unlabelled", "fit")]
    stream = MixedStream(
        BatchStream(codes.pool[labelled], known, batch_size=LABELLED_BATCH, seed=seeds[0], transform=draw_codes),
        BatchStream(codes.pool, unknown, batch_size=UNLABELLED_BATCH, seed=seeds[1], transform=draw_codes),
    )
    model = SemiSupervisedVAE(
        LATENT,
        len(NAMES),
        HIDDEN,
        LATENT_2,
        visible="gaussian",
        classification_weight=CLASSIFICATION_WEIGHT,
        generator=make_generator(SEED, "M2", "weights", draw),
    )
    steps = effort.steps(EPOCHS, len(codes.pool), UNLABELLED_BATCH)
    plan = FitPlan(
        steps=steps,
        steps_per_epoch=-(-steps // 4),
        lr=LR,
        schedule="linear_tail",
        seed=seeds[2],
        accelerator=effort.accelerator,
    )
    fit_kept(model, stream, plan, effort, name=f"m2-{draw}")
    return model.predict_log_probabilities(codes.test[:, :LATENT]).argmax(1).numpy()


def classify_by_graph(codes: Codes, labelled_SL: npt.NDArray[np.int64]) -> list[Labels]:
    """(T,) a draw: labels spread over neighbours among the pool's mean codes; those nearest to a test code vote."""
    pool, test = codes.pool[:, :LATENT].numpy(), codes.test[:, :LATENT].numpy()
    graph = normalise_graph(connect_neighbours(pool))
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(pool).kneighbors(test, return_distance=False)
    shares = [spread_labels(graph, labelled, codes.labels[labelled]) for labelled in labelled_SL]
    return [each[nearest].mean(axis=1).argmax(1) for each in shares]
