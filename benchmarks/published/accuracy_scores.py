"""Classifiers that learn from a conditional VAE's samples and are tested on real images (Ravuri & Vinyals 2019).

1-NN on 10,000 samples of MNIST and of Fashion-MNIST, a CNN on 60,000 of MNIST; beside them the same on real images, and
1-NN on samples of a Gaussian for each class (20 principal components; .909 and .780). Samples are the decoder's means.
The VAE, with the settings of params.yaml, learns from all labelled training images but those held out.
"""

# N images

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.published.digits import SEED, Digits, Effort, as_floats, load_digits
from benchmarks.published.kept_fits import REPORTS, fit_kept
from benchmarks.record import Row
from pipeline.config.generators import Vae
from pipeline.config.load import load_params
from pipeline.metrics.generative import as_rows
from pipeline.metrics.neighbours import nearest_neighbour_accuracy
from pipeline.metrics.ppca import class_ppca_samples
from pipeline.metrics.score import Score, score_rate
from pipeline.models.cnn import ConvNet
from pipeline.models.vae import ConditionalVAE
from pipeline.seeding import derive_seed, make_generator, make_numpy_rng
from pipeline.training.generators import sample_images
from pipeline.training.plan import FitPlan
from pipeline.training.stream import BatchStream, as_tensor, in_batches

CLASSES = 10
VAE_EPOCHS = 14
NEIGHBOURS_AMONG, CNN_IMAGES, QUICK_IMAGES = 10_000, 60_000, 2_000
NEIGHBOUR_BARS = {"mnist": (0.92, 0.909), "fashion_mnist": (0.785, 0.780)}
"""The bar and the published score of class-wise probabilistic PCA."""
CNN_EPOCHS, CNN_BATCH, CNN_LR = 3, 64, 1e-3
CNN_BAR, CNN_GOAL = 3.0, 1.0

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def measure_neighbours(digits: Digits, effort: Effort) -> list[Row]:
    """1-NN accuracy on the test images from VAE samples, from class-wise PPCA's, and from real images."""
    rows = []
    for source, (bar, baseline) in NEIGHBOUR_BARS.items():
        data = digits if source == "mnist" else load_digits(source)
        labels = even_labels(QUICK_IMAGES if effort.quick else NEIGHBOURS_AMONG)
        made = sample_images(train_vae(data, effort, source), torch.from_numpy(labels), make_generator(SEED, "samples"))
        real = slice(len(labels))
        sets = {
            "VAE samples": (as_rows(made), labels),
            "class-wise PPCA": (ppca_rows(data, labels), labels),
            "real images": (as_rows(data.data.images[real]), data.labels[real]),
        }
        goal = neighbour_score(*sets["real images"], data).value - 0.01
        for name, (images, their_labels) in sets.items():
            score = neighbour_score(images, their_labels, data)
            own = name == "VAE samples"
            rows.append(
                Row(
                    name=f"1-NN accuracy, {source}, {name}",
                    value=score.value,
                    unit="",
                    low=score.low,
                    high=score.high,
                    seeds=1,
                    baseline=baseline if own else None,
                    bar=effort.bar(bar) if own else None,
                    goal=effort.bar(goal) if own else None,
                    better="higher",
                )
            )
    return rows


def measure_cnn(digits: Digits, effort: Effort) -> list[Row]:
    """Test accuracy of one CNN trained on real images and on as many updates with samples, and the gap."""
    labels = even_labels(QUICK_IMAGES if effort.quick else CNN_IMAGES)
    made = sample_images(
        train_vae(digits, effort, "mnist"), torch.from_numpy(labels), make_generator(SEED, "samples for a CNN")
    )
    sets = {"real images": (digits.data.images, digits.labels), "VAE samples": (made, labels)}
    right = {name: classify_test(digits, effort, name, *images) for name, images in sets.items()}
    rows = []
    for name, hits in right.items():
        rate = score_rate(hits)
        rows.append(
            Row(
                name=f"CNN accuracy, mnist, {name}",
                value=100 * rate.value,
                unit="%",
                low=100 * rate.low,
                high=100 * rate.high,
                seeds=1,
                better="higher",
            )
        )
    gap = rows[0].value - rows[1].value
    bar, goal = effort.bar(CNN_BAR), effort.bar(CNN_GOAL)
    return [*rows, Row(name="CNN accuracy, real less samples", value=gap, unit="points", seeds=1, bar=bar, goal=goal)]


def train_vae(data: Digits, effort: Effort, source: str) -> ConditionalVAE:
    """The pipeline's own VAE, trained longer, on the labels of all training images but those held out."""
    count = len(data.data.images)
    config = load_params(Path("params.yaml")).section(Vae)
    steps, batch_size = effort.steps(VAE_EPOCHS, count, config.batch_size), config.batch_size
    config = replace(config, steps=steps)
    weights = make_generator(SEED, "conditional VAE", "weights")
    model = ConditionalVAE((1, 28, 28), CLASSES, config=config, generator=weights)
    stream = BatchStream(
        as_tensor(data.data.images),
        as_tensor(data.labels),
        batch_size=batch_size,
        seed=derive_seed(SEED, "conditional VAE", "batches"),
    )
    plan = FitPlan(
        steps=steps,
        steps_per_epoch=-(-steps // REPORTS),
        lr=config.lr,
        schedule="linear_tail",
        seed=derive_seed(SEED, "conditional VAE", "fit"),
        accelerator=effort.accelerator,
    )
    held_out = in_batches(as_tensor(data.data.validation[:500]), as_tensor(data.validation_labels[:500]), batch_size)
    fit_kept(model, stream, plan, effort, name="conditional_vae", data=source, validation=held_out)
    return model


def classify_test(digits: Digits, effort: Effort, name: str, images: Images, labels: Labels) -> npt.NDArray[np.bool_]:
    """(test images,): where a CNN that learned from these images is right."""
    layers = list(load_params(Path("params.yaml")).layers.values())
    model = ConvNet(layers, (1, 28, 28), CLASSES)
    model.init_random(make_generator(SEED, "accuracy CNN", "weights"))
    seed = derive_seed(SEED, "accuracy CNN", "batches")
    stream = BatchStream(as_tensor(images), as_tensor(labels), batch_size=CNN_BATCH, seed=seed)
    steps = effort.steps(CNN_EPOCHS, CNN_IMAGES, CNN_BATCH)
    plan = FitPlan(
        steps=steps,
        steps_per_epoch=-(-steps // REPORTS),
        lr=CNN_LR,
        schedule="cosine",
        seed=derive_seed(SEED, "accuracy CNN", "fit"),
        accelerator=effort.accelerator,
    )
    fit_kept(model, stream, plan, effort, name="accuracy_cnn", data=name)
    predicted = [model.predict_log_probabilities(part).argmax(1) for part in as_floats(digits.test_images).split(1000)]
    hits: npt.NDArray[np.bool_] = torch.cat(predicted).numpy() == digits.test_labels
    return hits


def neighbour_score(images: npt.NDArray[np.floating], labels: Labels, data: Digits) -> Score:
    return nearest_neighbour_accuracy(images, labels, as_rows(data.test_images), data.test_labels)


def ppca_rows(data: Digits, labels: Labels) -> npt.NDArray[np.floating]:
    """One row of pixels per label, from that class's Gaussian, fitted on what the VAE learned from."""
    rng = make_numpy_rng(SEED, "class-wise PPCA")
    return class_ppca_samples(as_rows(data.data.images), data.labels, labels, rng)


def even_labels(count: int) -> Labels:
    """(count,): all classes in turn."""
    return np.arange(count) % CLASSES
