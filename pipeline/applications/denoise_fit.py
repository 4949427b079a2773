"""Trains what `denoise` compares: a denoising VAE, an autoencoder of its size, a VAE and an RBM of clean images."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.applications.image_fit import EPOCHS, Effort, FitSettings, fit_images, image_shape
from pipeline.config.denoise import Denoise
from pipeline.config.pretrain import DenseLayer
from pipeline.data.arrays import Images
from pipeline.models.corruption import Corruption, Gaussian, Masking, SaltAndPepper
from pipeline.models.dbn import DBN
from pipeline.models.denoiser import Denoiser
from pipeline.models.dense_vae import DenseVAE
from pipeline.models.rbm import RBM
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.greedy import LayerData, LayerTask, fit_layer

RBM_LR, RBM_MOMENTUM = 0.05, 0.5


@dataclass(frozen=True)
class Denoisers:
    """denoising and autoencoder have seen spoilt images; vae and rbm clean ones alone."""

    denoising: Denoiser
    autoencoder: Denoiser
    vae: DenseVAE
    rbm: RBM


def make_corruptions(settings: Denoise) -> dict[str, Corruption]:
    """The kinds of noise of the section, by name."""
    known: dict[str, Corruption] = {
        "gaussian": Gaussian(settings.sigma),
        "salt_and_pepper": SaltAndPepper(settings.flipped),
        "masking": Masking(settings.hole),
    }
    return {name: known[name] for name in settings.noises}


def fit_denoisers(settings: Denoise, images: Images, how: FitSettings) -> Denoisers:
    """Trains all four on uint8 images (N, C, H, W). Raises ValueError when a loss is not finite."""
    corruptions = make_corruptions(settings)
    return Denoisers(
        fit_denoiser(settings, images, corruptions, how, variational=True),
        fit_denoiser(settings, images, corruptions, how, variational=False),
        fit_clean_vae(settings, images, how),
        fit_rbm(settings, images, how),
    )


def fit_denoiser(
    settings: Denoise, images: Images, corruptions: Mapping[str, Corruption], how: FitSettings, *, variational: bool
) -> Denoiser:
    """The denoising VAE, or the autoencoder of its size; both start from the same weights."""
    model = Denoiser(
        image_shape(images),
        hidden_sizes=settings.hidden_sizes,
        latent_dim=settings.latent_dim,
        beta=settings.beta,
        warmup_steps=settings.steps // 3,
        variational=variational,
        generator=make_generator(how.seed, "denoise", "weights"),
    )
    model.corruptions = corruptions
    fit_images(model, images, _effort(settings), how, "denoiser" if variational else "autoencoder")
    return model


def fit_clean_vae(settings: Denoise, images: Images, how: FitSettings) -> DenseVAE:
    """A VAE of the clean images: it has the sizes of the denoiser and the whole KL term."""
    model = DenseVAE(
        image_shape(images),
        hidden_sizes=settings.hidden_sizes,
        latent_dim=settings.latent_dim,
        warmup_steps=settings.steps // 3,
        generator=make_generator(how.seed, "denoise", "vae weights"),
    )
    fit_images(model, images, _effort(settings), how, "vae")
    return model


def fit_rbm(settings: Denoise, images: Images, how: FitSettings) -> RBM:
    """By PCD-1, on binary draws of the images."""
    layer = DenseLayer(
        below="prepare",
        kind="dense",
        num_hidden=settings.rbm_hidden,
        visible="bernoulli",
        hidden="bernoulli",
        steps=settings.rbm_steps,
        batch_size=settings.batch_size,
        lr=RBM_LR,
        schedule="linear_tail",
        momentum=RBM_MOMENTUM,
        weight_decay=0.0,
        gibbs_steps=1,
        persistent=True,
        num_temperatures=1,
        centred=False,
        sparsity_target=0.1,
        sparsity_cost=0.0,
    )
    task = LayerTask(
        name="denoise",
        below=DBN([], image_shape(images)),
        layer=layer,
        seed=derive_seed(how.seed, "denoise", "rbm"),
        accelerator=how.accelerator,
        precision=how.precision,
        checkpoint=how.checkpoint("rbm"),
        epochs=EPOCHS,
        sampled=True,
    )
    dbn, _ = fit_layer(task, LayerData(images, images[:1]), lambda *_: None)
    (rbm,) = dbn.rbms()
    assert isinstance(rbm, RBM)
    return rbm


def _effort(settings: Denoise) -> Effort:
    return Effort(steps=settings.steps, batch_size=settings.batch_size, lr=settings.lr)
