"""The test bound of a VAE with one stochastic layer on binary MNIST, with 5,000 importance samples.

Images are binarised anew for every batch, as in Burda et al. 2016 (table 1: -86.76 for the VAE, -85.54 and -84.78
trained with 5 and 50 samples); the test images once. 784-200-200-50 is theirs; nothing was chosen on test images.
"""

import time

import torch

from benchmarks.published.digits import BATCH, SEED, Digits, Effort, as_floats
from benchmarks.published.kept_fits import REPORTS, fit_kept
from benchmarks.record import Row
from pipeline.metrics.importance import bound_by_importance
from pipeline.models.importance_vae import ImportanceVAE
from pipeline.models.losses import UNLABELLED
from pipeline.models.sampling import sample_bernoulli
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.plan import FitPlan
from pipeline.training.stream import BatchStream, as_tensor, in_batches

HIDDEN, LATENT = (200, 200), 50
EPOCHS = 150
TRAINING_SAMPLES = 5
LR = 1e-3
SAMPLES, QUICK_SAMPLES, QUICK_IMAGES = 5_000, 100, 1_000
WATCHED_IMAGES = 1_000
"""Of the held-out ones: they are shown, and decide nothing."""
TIME_BAR_S = 1_800.0


def measure_bound(digits: Digits, effort: Effort) -> list[Row]:
    """The bound, and the time from images in memory to it where one run did it all."""
    began = time.perf_counter()
    model, seconds = train_vae(digits, effort)
    test = digits.binary_test_images[: QUICK_IMAGES if effort.quick else None]
    unlabelled = torch.full((len(test),), UNLABELLED)
    samples = QUICK_SAMPLES if effort.quick else SAMPLES
    bound = bound_by_importance(model, test, unlabelled, k=samples, seed=derive_seed(SEED, "test bound"))
    row = Row(
        name=f"VAE 784-200-200-50, test bound, k={samples}",
        value=bound.value,
        unit="nats",
        low=bound.low,
        high=bound.high,
        seeds=1,
        baseline=-84.78,
        bar=effort.bar(-88.0),
        goal=effort.bar(-84.5),
        better="higher",
    )
    if seconds is None:
        return [row]
    seconds = time.perf_counter() - began
    return [row, Row(name="its training and scoring", value=seconds, unit="s", bar=effort.bar(TIME_BAR_S))]


def train_vae(digits: Digits, effort: Effort) -> tuple[ImportanceVAE, float | None]:
    """The model, and what `fit_kept` returns."""
    model = ImportanceVAE(
        784, HIDDEN, LATENT, iw_samples=TRAINING_SAMPLES, generator=make_generator(SEED, "dense VAE", "weights")
    )
    images = as_tensor(digits.data.images)
    model.start_at_means(as_floats(digits.data.images))
    stream = BatchStream(
        images,
        torch.full((len(images),), UNLABELLED),
        batch_size=BATCH,
        seed=derive_seed(SEED, "dense VAE", "batches"),
        transform=sample_bernoulli,
    )
    held_out = sample_bernoulli(as_floats(digits.data.validation[:WATCHED_IMAGES]), make_generator(SEED, "held out"))
    steps = effort.steps(EPOCHS, len(images))
    plan = FitPlan(
        steps=steps,
        steps_per_epoch=-(-steps // REPORTS),
        lr=LR,
        schedule="linear_tail",
        seed=derive_seed(SEED, "dense VAE", "fit"),
        accelerator=effort.accelerator,
    )
    validation = in_batches(held_out, torch.full((len(held_out),), UNLABELLED), len(held_out))
    return model, fit_kept(model, stream, plan, effort, name="vae_bound", validation=validation)
