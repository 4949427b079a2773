"""Section `represent`: a VAE's codes of the images, and what they know about the classes."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_choice, require_positive


@dataclass(frozen=True, kw_only=True)
class Represent:
    prior: str
    """standard (N(0, I)) or mixture, a Gaussian for each class, which is trained after the standard one (VaDE)."""
    hidden_sizes: list[int]
    """Widths of the encoder's hidden layers, bottom first; the decoder mirrors them."""
    latent_dim: int
    """Size of the codes, >= 1; 10 for ten classes of digits."""
    beta: float
    """Weight of the KL term, >= 0, of the standard prior; 1 is the evidence lower bound."""
    steps: int
    """Parameter updates of each VAE, >= 1."""
    mixture_steps: int
    """Further updates under the mixture prior, >= 1."""
    batch_size: int
    """>= 1."""
    lr: float
    """Adam's learning rate, > 0."""
    seeds: int
    """VAEs that are trained, >= 1: tables have means and deviations over them."""
    map_images: int
    """Test images on the map of the codes (t-SNE), >= 50."""

    def __post_init__(self) -> None:
        require_choice("represent.prior", self.prior, ("standard", "mixture"))
        require_at_least("number of represent.hidden_sizes", len(self.hidden_sizes), 1)
        require(min(self.hidden_sizes) >= 1, "represent.hidden_sizes", self.hidden_sizes, ">= 1, each")
        require_at_least("represent.beta", self.beta, 0)
        for key in ("latent_dim", "steps", "mixture_steps", "batch_size", "seeds"):
            require_at_least(f"represent.{key}", getattr(self, key), 1)
        require_positive("represent.lr", self.lr)
        require_at_least("represent.map_images", self.map_images, 50)
