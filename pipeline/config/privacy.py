"""Section `privacy`: what the audit of a synthetic set must find before the set may be used or leave the house."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction


@dataclass(frozen=True, kw_only=True)
class Privacy:
    gate: str
    """block (study and fine-tuning refuse a set whose audit was not passed) or warn. Exports are always blocked."""
    max_attack_auc: float
    """Largest area under the ROC curve of any membership attack, in (0.5, 1]; 0.5 is guessing. 0.55..0.65."""
    max_copy_rate: float
    """Largest share of synthetic images that are a training image exactly, or nearly beyond the share of held out
    images that are, in (0, 1]; 0.005..0.05."""
    min_distance_ratio: float
    """Least ratio of the mean distance from a synthetic image to the nearest training image to that to the nearest
    image held out, in [0, 1); 1 is no difference. 0.9..0.97."""
    audit_images: int
    """At most this many training images, and as many held out, are attacked, >= 100."""

    def __post_init__(self) -> None:
        require_choice("privacy.gate", self.gate, ("block", "warn"))
        auc = self.max_attack_auc
        require(0.5 < auc <= 1, "privacy.max_attack_auc", auc, "in (0.5, 1]")
        require(0 < self.max_copy_rate <= 1, "privacy.max_copy_rate", self.max_copy_rate, "in (0, 1]")
        require_fraction("privacy.min_distance_ratio", self.min_distance_ratio)
        require_at_least("privacy.audit_images", self.audit_images, 100)
