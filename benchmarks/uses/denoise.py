"""MNIST under Gaussian noise of deviation 0.5, which is not clipped: PSNR of 10,000 test images, peak 1, pooled error.

No setting was chosen on test images; those of the networks were not tuned on MNIST at all.
"""

from torch import Tensor

from benchmarks.published.digits import SEED, Digits, Effort, as_floats, load_digits
from benchmarks.record import Row
from pipeline.applications.denoise import choose_moments, linear_estimate
from pipeline.applications.denoise_fit import fit_denoiser
from pipeline.applications.image_fit import FitSettings
from pipeline.config.denoise import Denoise
from pipeline.metrics.restoration import psnr
from pipeline.models.corruption import Gaussian, Spoilt
from pipeline.seeding import make_generator, make_numpy_rng

NOISE = Gaussian(0.5)
LINEAR_DB = 17.5
EPOCHS = 40
BATCH = 128
SAMPLES = 20


def measure_denoise(effort: Effort) -> list[Row]:
    """The denoising VAE, the linear estimate and the noisy images."""
    digits = load_digits()
    clean, spoilt = _test_images(digits)
    linear = _row("linear MMSE", clean, _linear(digits, spoilt), baseline=LINEAR_DB)
    restored = _restore(digits, spoilt, effort, variational=True)
    ours = _row("denoising VAE", clean, restored, baseline=linear.value, bar=effort.bar(19.0), goal=effort.bar(21.5))
    return [_row("noisy", clean, spoilt.y), linear, ours]


def measure_autoencoder(effort: Effort) -> list[Row]:
    """The denoising autoencoder of the same size, trained alike."""
    digits = load_digits()
    clean, spoilt = _test_images(digits)
    return [_row("autoencoder", clean, _restore(digits, spoilt, effort, variational=False))]


def _test_images(digits: Digits) -> tuple[Tensor, Spoilt]:
    clean = as_floats(digits.test_images)
    return clean, NOISE.spoil(clean, make_generator(SEED, "denoise", "test"))


def _restore(digits: Digits, spoilt: Spoilt, effort: Effort, *, variational: bool) -> Tensor:
    images = digits.data.images
    settings = _settings(effort, len(images))
    how = FitSettings(seed=SEED, accelerator=effort.accelerator, precision="32", work=None)
    model = fit_denoiser(settings, images, {"gaussian": NOISE}, how, variational=variational)
    return model.denoise(spoilt.y, SAMPLES, make_generator(SEED, "denoise", "restore"))


def _settings(effort: Effort, count: int) -> Denoise:
    return Denoise(
        noises=["gaussian"],
        sigma=NOISE.sigma,
        flipped=0.4,
        hole=12,
        hidden_sizes=[1024],
        latent_dim=64,
        beta=0.1,
        steps=effort.steps(EPOCHS, count, BATCH),
        batch_size=BATCH,
        lr=1e-3,
        rbm_hidden=1,
        rbm_steps=1,
        gibbs_rounds=1,
        posterior_steps=1,
        posterior_samples=SAMPLES,
        images=10,
    )


def _linear(digits: Digits, spoilt: Spoilt) -> Tensor:
    train, validation = as_floats(digits.data.images), as_floats(digits.data.validation)
    moments = choose_moments(train, validation, NOISE, make_generator(SEED, "denoise", "validation"))
    return linear_estimate(moments, NOISE, spoilt)


def _row(
    name: str,
    clean: Tensor,
    restored: Tensor,
    *,
    baseline: float | None = None,
    bar: float | None = None,
    goal: float | None = None,
) -> Row:
    score = psnr(clean, restored, make_numpy_rng(SEED, "denoise", "interval"))
    return Row(
        name=f"MNIST, sigma 0.5, {name}",
        value=score.value,
        unit="dB",
        low=score.low,
        high=score.high,
        seeds=1,
        better="higher",
        baseline=baseline,
        bar=bar,
        goal=goal,
    )
