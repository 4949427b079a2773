"""Takes noise away by every method, scores what is left, and says who wins."""

# N images, C channels, H height = width

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.applications.denoise_fit import Denoisers
from pipeline.applications.story import Drawing, Story, Table, TableRow
from pipeline.config.denoise import Denoise
from pipeline.metrics.linear_mmse import (
    Moments,
    estimate_from_noise,
    estimate_lost,
    fit_moments,
    salt_and_pepper_variance,
)
from pipeline.metrics.restoration import psnr, ssim
from pipeline.metrics.score import Score
from pipeline.models.corruption import Corruption, Gaussian, Masking, SaltAndPepper, Spoilt, evidence_log_likelihood
from pipeline.models.dense_vae import DenseVAE
from pipeline.models.latent_posterior import fit_posterior, posterior_mean
from pipeline.models.rbm import RBM
from pipeline.models.rbm_denoising import gibbs_posterior_mean, mean_field_posterior
from pipeline.seeding import make_generator, make_numpy_rng

ORDER = 20
RIDGES = (1e-3, 1e-2)
"""Of the linear estimate, chosen on validation images for each kind of noise."""
MEAN_FIELD_ROUNDS = 10
NOISY, LINEAR, AUTOENCODER, DENOISING = "spoilt images", "linear MMSE", "denoising autoencoder", "denoising VAE"
BASELINES = (NOISY, LINEAR, AUTOENCODER)
TITLES = {"gaussian": "Gaussian noise", "salt_and_pepper": "salt and pepper", "masking": "a hole"}


@dataclass(frozen=True)
class Restored:
    """score: PSNR in dB.  similarity: mean SSIM.  images: (N, C, H, H), clipped to [0, 1] unless the spoilt ones."""

    score: Score
    similarity: float
    images: Tensor


def choose_moments(train: Tensor, validation: Tensor, corruption: Corruption, generator: torch.Generator) -> Moments:
    """Moments of the train images, with the ridge by which validation images are restored best."""
    moments, spoilt = fit_moments(train), corruption.spoil(validation, generator)
    candidates = [moments.with_ridge(ridge) for ridge in RIDGES]
    errors = [float((linear_estimate(m, corruption, spoilt) - validation).square().mean()) for m in candidates]
    return candidates[int(np.argmin(errors))]


def linear_estimate(moments: Moments, corruption: Corruption, spoilt: Spoilt) -> Tensor:
    """The best linear estimate of the clean images, (N, C, H, H), clipped to [0, 1]."""
    if isinstance(corruption, Masking):
        return estimate_lost(moments, spoilt.y, spoilt.lost).clamp(0, 1)
    if isinstance(corruption, SaltAndPepper):
        variance = salt_and_pepper_variance(moments, corruption.share)
        gain, offset = 1 - corruption.share, corruption.share / 2
    else:
        assert isinstance(corruption, Gaussian)
        variance, gain, offset = torch.full_like(moments.mean, corruption.sigma**2), 1.0, 0.0
    return estimate_from_noise(moments, spoilt.y, gain=gain, offset=offset, variance=variance).clamp(0, 1)


def restore_by_vae(
    vae: DenseVAE, start: Tensor, evidence: Tensor, settings: Denoise, generator: torch.Generator
) -> Tensor:
    """E[x | y] under a VAE of clean images. start: (N, C, H, H), a guess of them, which the encoder is shown."""

    def log_likelihood(z: Tensor) -> Tensor:
        return evidence_log_likelihood(vae.decode_logits(z), evidence)

    def pixels(z: Tensor) -> Tensor:
        return torch.sigmoid(vae.decode_logits(z) + evidence)

    with torch.no_grad():
        mean, log_variance = vae.encode(start)
    mean, log_variance = fit_posterior(log_likelihood, mean, log_variance, settings.posterior_steps, generator)
    found, _ = posterior_mean(log_likelihood, pixels, mean, log_variance, settings.posterior_samples, generator)
    return found


def restore_by_rbm(rbm: RBM, evidence: Tensor, rounds: int, generator: torch.Generator) -> Tensor:
    rows = evidence.flatten(1)
    return gibbs_posterior_mean(rbm, rows, rounds, generator, burn_in=rounds // 5).view_as(evidence)


def restore_all(
    models: Denoisers, moments: Moments, corruption: Corruption, spoilt: Spoilt, settings: Denoise, seed: int
) -> dict[str, Tensor]:
    """What each method makes of the spoilt images, by its name in tables; simple ones first."""

    def draw(name: str) -> torch.Generator:
        return make_generator(seed, "denoise", "restore", name)

    y, evidence, linear = spoilt.y, corruption.evidence(spoilt), linear_estimate(moments, corruption, spoilt)
    samples = settings.posterior_samples
    with torch.no_grad():
        projected = models.vae.decode(models.vae.encode(y.clamp(0, 1))[0])
    restored = {
        NOISY: y,
        LINEAR: linear,
        AUTOENCODER: models.autoencoder.denoise(y, 1, draw("autoencoder")),
        "RBM, mean field": mean_field_posterior(models.rbm, evidence.flatten(1), MEAN_FIELD_ROUNDS).view_as(y),
        "RBM, Gibbs sampling": restore_by_rbm(models.rbm, evidence, settings.gibbs_rounds, draw("rbm")),
        "VAE, encoded and decoded": projected,
        "VAE, posterior mean": restore_by_vae(models.vae, linear, evidence, settings, draw("vae")),
        DENOISING: models.denoising.denoise(y, samples, draw("denoiser")),
    }
    if isinstance(corruption, Masking):  # what is not lost is known
        restored = {name: torch.where(spoilt.lost, x, y) for name, x in restored.items()}
    return restored


def score_all(clean: Tensor, restored: Mapping[str, Tensor], seed: int) -> dict[str, Restored]:
    return {
        name: Restored(
            psnr(clean, images, make_numpy_rng(seed, "denoise", "interval")), float(ssim(clean, images).mean()), images
        )
        for name, images in restored.items()
    }


def tell(scores: Mapping[str, Mapping[str, Restored]], settings: Denoise, count: int, picture: str) -> Story:
    """scores: by kind of noise, then by method.  count: test images."""
    return Story(
        order=ORDER,
        title="Denoising",
        sentence=" ".join(_verdict(noise, rows) for noise, rows in scores.items()),
        tables=[_table(noise, rows, settings, count) for noise, rows in scores.items()],
        drawings=[
            Drawing(
                path=picture,
                alt="Clean test images, the same spoilt, and what each method makes of them",
                caption=f"Rows, for each kind of noise: clean, {', '.join(next(iter(scores.values())))}.",
            )
        ],
    )


def _verdict(noise: str, rows: Mapping[str, Restored]) -> str:
    """Who wins, by how much over the linear estimate, and where the denoising VAE ends."""
    best, linear = max(rows, key=lambda name: rows[name].score.value), rows[LINEAR].score.value
    if best == LINEAR:
        return f"Against {TITLES[noise]} the linear estimate is best: {linear:.1f} dB."
    told = f"Against {TITLES[noise]} the {best} is best: {rows[best].score.value:.1f} dB, linear MMSE {linear:.1f}"
    return told + ("." if best == DENOISING else f", the denoising VAE {rows[DENOISING].score.value:.1f}.")


def _table(noise: str, rows: Mapping[str, Restored], settings: Denoise, count: int) -> Table:
    amount = {
        "gaussian": f"sigma {settings.sigma:g}, not clipped",
        "salt_and_pepper": f"{100 * settings.flipped:g} % of the pixels replaced",
        "masking": f"{settings.hole} x {settings.hole} pixels lost, the others as they are",
    }[noise]
    values = [TableRow(name, _cells(row), baseline=name in BASELINES) for name, row in rows.items()]
    caption = (
        f"{TITLES[noise].capitalize()}: {amount}. {count} test images, one training seed, 95 % intervals over images."
    )
    return Table(caption, ("PSNR, dB (peak 1, pooled error)", "SSIM"), values)


def _cells(row: Restored) -> Sequence[str]:
    return f"{row.score.value:.2f} [{row.score.low:.2f}, {row.score.high:.2f}]", f"{row.similarity:.3f}"
