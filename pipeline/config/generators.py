"""Sections `vae`, `gan` and `augment`."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction, require_positive


@dataclass(frozen=True, kw_only=True)
class Vae:
    latent_dim: int
    """Size of z, >= 1; 10..64."""
    width: int
    """Channels of the first conv layer, >= 4; 16..64."""
    likelihood: str
    """bernoulli (values in [0, 1] as probabilities), continuous_bernoulli (a density of grey values in [0, 1]) or
    gaussian (one learned variance for all pixels). Their bounds are not comparable."""
    beta: float
    """Weight of the KL term, >= 0; 1 is the evidence lower bound."""
    free_bits: float
    """Least KL, in nats, that a latent dimension is charged for, of its mean over a worker's batch, >= 0; 0 is off,
    0.02..0.5. It keeps dimensions from collapsing to the prior (Kingma et al. 2016)."""
    iw_samples: int
    """Samples k of the importance-weighted bound to train by, >= 1; a step costs k decodings. 1 is the evidence lower
    bound; 5..50 (Burda et al. 2016). More than 1 excludes free_bits."""
    warmup_steps: int
    """Steps over which beta rises from 0, >= 0."""
    steps: int
    """Parameter updates, >= 1."""
    batch_size: int
    """>= 1."""
    lr: float
    """Adam's learning rate, > 0."""

    def __post_init__(self) -> None:
        require_at_least("vae.latent_dim", self.latent_dim, 1)
        require_at_least("vae.width", self.width, 4)
        require_choice("vae.likelihood", self.likelihood, ("bernoulli", "continuous_bernoulli", "gaussian"))
        for key in ("beta", "free_bits", "warmup_steps"):
            require_at_least(f"vae.{key}", getattr(self, key), 0)
        for key in ("iw_samples", "steps", "batch_size"):
            require_at_least(f"vae.{key}", getattr(self, key), 1)
        if self.iw_samples > 1:
            require(self.free_bits == 0, "vae.free_bits", self.free_bits, "0 where vae.iw_samples > 1")
        require_positive("vae.lr", self.lr)


@dataclass(frozen=True, kw_only=True)
class Gan:
    latent_dim: int
    """Size of z, >= 1; 32..128."""
    width: int
    """Channels of the widest-resolution layer, >= 4; 16..64."""
    r1_weight: float
    """Weight of the R1 gradient penalty (Mescheder 2018), >= 0."""
    r1_every: int
    """Steps between R1 penalties (lazy regularisation), >= 1."""
    ema_decay: float
    """Decay of the generator's moving average used for sampling, in [0, 1)."""
    diffaugment: bool
    """Translate and cut out real and generated images before the discriminator sees them (Zhao 2020): for few data."""
    steps: int
    """Discriminator and generator update pairs, >= 1."""
    batch_size: int
    """>= 2."""
    lr: float
    """Adam's learning rate of both networks, > 0."""
    betas: list[float]
    """Adam's two betas, each in [0, 1)."""

    def __post_init__(self) -> None:
        require_at_least("gan.latent_dim", self.latent_dim, 1)
        require_at_least("gan.width", self.width, 4)
        require_at_least("gan.r1_weight", self.r1_weight, 0)
        for key in ("r1_every", "steps"):
            require_at_least(f"gan.{key}", getattr(self, key), 1)
        require_at_least("gan.batch_size", self.batch_size, 2)
        require_fraction("gan.ema_decay", self.ema_decay)
        require_positive("gan.lr", self.lr)
        require_at_least("number of gan.betas", len(self.betas), 2)
        for beta in self.betas:
            require_fraction("gan.betas", beta)


@dataclass(frozen=True, kw_only=True)
class Augment:
    generators: list[str]
    """Which generators make synthetic sets: vae, gan."""
    images_per_class: int
    """Synthetic images of each class in a set, >= 1."""
    quality_images: int
    """At most this many real and synthetic images enter the quality scores, >= 100."""

    def __post_init__(self) -> None:
        require_at_least("number of augment.generators", len(self.generators), 1)
        for name in self.generators:
            require_choice("augment.generators", name, ("vae", "gan"))
        require_at_least("augment.images_per_class", self.images_per_class, 1)
        require_at_least("augment.quality_images", self.quality_images, 100)
