"""Section `denoise`: three kinds of noise, and the models that take it away."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction, require_positive

NOISES = ("gaussian", "salt_and_pepper", "masking")


@dataclass(frozen=True, kw_only=True)
class Denoise:
    noises: list[str]
    """Of gaussian, salt_and_pepper and masking: one network learns to take all of these away."""
    sigma: float
    """Standard deviation of Gaussian noise, > 0, of pixels in [0, 1]; the sum is not clipped. 0.1..1."""
    flipped: float
    """Share of pixels that salt and pepper replaces by 0 or 1, in (0, 1)."""
    hole: int
    """Side of the square that masking cuts out, in pixels, >= 1 and below the image's side."""
    hidden_sizes: list[int]
    """Widths of the hidden layers of encoders, bottom first; decoders mirror them."""
    latent_dim: int
    """Size of z, >= 1; 16..64."""
    beta: float
    """Weight of the denoising VAE's KL term, >= 0; below 1 it keeps more of the image it sees."""
    steps: int
    """Parameter updates of each network, >= 1."""
    batch_size: int
    """>= 1."""
    lr: float
    """Adam's learning rate, > 0."""
    rbm_hidden: int
    """Hidden units of the RBM, >= 1."""
    rbm_steps: int
    """Its updates, >= 1."""
    gibbs_rounds: int
    """Rounds of Gibbs sampling that an RBM's answer is the mean of, >= 1; a fifth as many go before."""
    posterior_steps: int
    """Gradient steps by which q(z | y) of a VAE is fitted to an image, >= 1."""
    posterior_samples: int
    """Draws of z that a VAE's answer is the mean of, >= 1."""
    images: int
    """At most this many test images are spoilt and restored, >= 10."""

    def __post_init__(self) -> None:
        require_at_least("number of denoise.noises", len(self.noises), 1)
        for noise in self.noises:
            require_choice("denoise.noises", noise, NOISES)
        require_positive("denoise.sigma", self.sigma)
        require_positive("denoise.flipped", self.flipped)
        require_fraction("denoise.flipped", self.flipped)
        require_at_least("number of denoise.hidden_sizes", len(self.hidden_sizes), 1)
        require(min(self.hidden_sizes) >= 1, "denoise.hidden_sizes", self.hidden_sizes, ">= 1, each")
        require_at_least("denoise.beta", self.beta, 0)
        for key in ("hole", "latent_dim", "steps", "batch_size", "rbm_hidden", "rbm_steps", "gibbs_rounds"):
            require_at_least(f"denoise.{key}", getattr(self, key), 1)
        for key in ("posterior_steps", "posterior_samples"):
            require_at_least(f"denoise.{key}", getattr(self, key), 1)
        require_positive("denoise.lr", self.lr)
        require_at_least("denoise.images", self.images, 10)
