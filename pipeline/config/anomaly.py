"""Section `anomaly`: detectors that learn from normal images alone, each class the normal one in turn."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_fraction


@dataclass(frozen=True, kw_only=True)
class Anomaly:
    """VAE and GAN are those of the sections `vae` and `gan`, trained without labels for the steps given here."""

    normal_classes: list[int]
    """Classes that are normal, each in turn, all others being anomalies: positions from 0 on; an empty list is all."""
    seeds: int
    """Trainings of every detector for every normal class, >= 1; a deviation needs >= 2, 3..10 to be worth something."""
    false_positive_rate: float
    """Share of normal images that may be flagged, in (0, 1): held-out normal images decide the threshold, and there
    must be at least 1 / rate - 1 of them, else there is none. 0.01..0.1."""
    vae_steps: int
    """Updates of the VAE, >= 1; 150..3,000."""
    num_samples: int
    """Draws of z for an image's bound and reconstruction probability (An & Cho 2015), >= 1; 10..100."""
    gan_steps: int
    """Update pairs of the GAN, >= 1; 150..5,000."""
    encoder_steps: int
    """Updates of f-AnoGAN's encoder on the frozen GAN, >= 1; 100..3,000."""
    kappa: float
    """Weight of the discriminator's features in f-AnoGAN's loss and score, >= 0; 1 (Schlegl et al. 2019)."""
    rbm_hidden: int
    """Hidden units of the RBM that has a free energy, >= 1; 64..500."""
    rbm_steps: int
    """Its updates, >= 1; 200..5,000."""
    conv_steps: int
    """Updates of the convolutional RBM in whose features neighbours are looked for, >= 1; 200..2,000."""
    neighbours: int
    """Of them, whose mean distance is the score, >= 1; 1..10."""
    table: str
    """A table of rows, .npz (X, y) or .csv (last column y), y = 1 for an anomaly, on which VAE and RBM are compared
    with the baselines too. A folder, such as data, for none. A dependency of the stage in any case."""

    def __post_init__(self) -> None:
        low = min(self.normal_classes, default=0)
        require(low >= 0, "anomaly.normal_classes", self.normal_classes, "positions of classes, from 0 on")
        for key in (
            "seeds",
            "vae_steps",
            "num_samples",
            "gan_steps",
            "encoder_steps",
            "rbm_hidden",
            "rbm_steps",
            "conv_steps",
            "neighbours",
        ):
            require_at_least(f"anomaly.{key}", getattr(self, key), 1)
        require_fraction("anomaly.false_positive_rate", self.false_positive_rate)
        require(self.false_positive_rate > 0, "anomaly.false_positive_rate", self.false_positive_rate, "> 0")
        require_at_least("anomaly.kappa", self.kappa, 0)
        require(bool(self.table), "anomaly.table", self.table, "a .npz or .csv file, or a folder for none")
