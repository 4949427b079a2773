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


GAN_CHOICES = {
    "backbone": ("dcgan", "residual"),
    "conditioning": ("projection", "auxiliary"),
    "loss": ("nonsaturating", "hinge", "wasserstein"),
    "augmentation": ("none", "diffaugment", "adaptive"),
    "on_collapse": ("stop", "warn"),
}


@dataclass(frozen=True, kw_only=True)
class Gan:
    latent_dim: int
    """Size of z, >= 1; 32..128."""
    width: int
    """Channels of the widest-resolution layer, >= 4; 16..64."""
    backbone: str
    """dcgan (Radford 2016) or residual (blocks of two convolutions and a shortcut; some four times the time)."""
    conditioning: str
    """How the discriminator knows the label: projection (Miyato & Koyama 2018), or auxiliary, a second output that
    classifies real and generated images (Odena 2017)."""
    loss: str
    """nonsaturating (Goodfellow 2014), hinge (Miyato 2018) or wasserstein (Arjovsky 2017); the last needs
    gradient_penalty or spectral_norm."""
    spectral_norm: bool
    """Divides each weight of the discriminator by its largest singular value (Miyato 2018)."""
    r1_weight: float
    """Weight of the R1 gradient penalty (Mescheder 2018), >= 0."""
    r1_every: int
    """Discriminator steps between R1 penalties (lazy regularisation), >= 1."""
    gradient_penalty: float
    """Weight of the penalty on slopes other than 1 between real and generated images (Gulrajani 2017), >= 0; 10 with
    loss wasserstein. It excludes r1_weight, which pulls slopes to 0."""
    discriminator_steps: int
    """Discriminator updates before each generator update, each on a batch of its own, >= 1; 5 with loss wasserstein."""
    ema_decay: float
    """Decay of the generator's moving average used for sampling, in [0, 1)."""
    augmentation: str
    """What the discriminator sees of real and generated images, for few data: none, diffaugment (translated and cut
    out, Zhao 2020), or adaptive (each of these with a probability that is steered, Karras 2020)."""
    ada_target: float
    """Of augmentation adaptive: the mean sign of the discriminator's logits of real images to steer for, in [0, 1)."""
    ada_images: int
    """Of augmentation adaptive: real images over which the probability can rise by 1, >= 1; 500,000 in the paper."""
    on_collapse: str
    """stop ends a run that is found to make the same images again and again, warn only says so."""
    steps: int
    """Generator updates, >= 1."""
    batch_size: int
    """>= 2."""
    lr: float
    """Adam's learning rate of both networks, > 0."""
    betas: list[float]
    """Adam's two betas, each in [0, 1)."""

    def __post_init__(self) -> None:
        require_at_least("gan.latent_dim", self.latent_dim, 1)
        require_at_least("gan.width", self.width, 4)
        for key, choices in GAN_CHOICES.items():
            require_choice(f"gan.{key}", getattr(self, key), choices)
        for key in ("r1_weight", "gradient_penalty"):
            require_at_least(f"gan.{key}", getattr(self, key), 0)
        for key in ("r1_every", "discriminator_steps", "ada_images", "steps"):
            require_at_least(f"gan.{key}", getattr(self, key), 1)
        require_at_least("gan.batch_size", self.batch_size, 2)
        for key in ("ema_decay", "ada_target"):
            require_fraction(f"gan.{key}", getattr(self, key))
        require_positive("gan.lr", self.lr)
        require_at_least("number of gan.betas", len(self.betas), 2)
        for beta in self.betas:
            require_fraction("gan.betas", beta)
        self._check_together()

    def _check_together(self) -> None:
        """What would train, and mean nothing."""
        if self.gradient_penalty > 0:
            require(self.r1_weight == 0, "gan.r1_weight", self.r1_weight, "0 where gan.gradient_penalty > 0")
        if self.loss == "wasserstein":
            bounded = self.gradient_penalty > 0 or self.spectral_norm
            rule = "> 0 where gan.loss is wasserstein, unless gan.spectral_norm is true: it needs a bounded slope"
            require(bounded, "gan.gradient_penalty", self.gradient_penalty, rule)
            rule = "none or diffaugment where gan.loss is wasserstein: its logits have no sign to steer by"
            require(self.augmentation != "adaptive", "gan.augmentation", self.augmentation, rule)


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
