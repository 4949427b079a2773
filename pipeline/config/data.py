"""Section `data`: where images come from and how they are split."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction

SOURCES = ("embedded", "mnist", "fashion_mnist", "kmnist", "npz", "idx", "image_folder")


@dataclass(frozen=True, kw_only=True)
class Data:
    source: str
    """embedded (5,000 MNIST digits), mnist, fashion_mnist, kmnist, npz, idx or image_folder."""
    path: str
    """File (npz) or folder (idx, image_folder) of your own images; a dependency of `prepare` whatever the source."""
    image_size: int | None
    """Side in pixels to which images of a folder are resized, a multiple of 4 in 28..64; null keeps their size."""
    channels: int | None
    """1 (grey) or 3 (RGB) for image_folder; null keeps what the files have."""
    validation_fraction: float
    """Share of all images (of the training images where the source has a test set) held out for choices, (0, 1)."""
    test_fraction: float
    """Share of all images held out for `evaluate`, (0, 1); ignored where the source has its own test set."""
    label_budgets: list[int]
    """How many labelled images an arm may see, rising; stratified, so at least the number of classes."""
    label_draws: int
    """Independent draws of the nested label subsets, one per study seed, >= 1; intervals need >= 3."""

    def __post_init__(self) -> None:
        require_choice("data.source", self.source, SOURCES)
        require(bool(self.path), "data.path", self.path, "a file or folder (data/ when the source needs none)")
        if self.image_size is not None:
            in_range = 28 <= self.image_size <= 64 and self.image_size % 4 == 0
            require(in_range, "data.image_size", self.image_size, "a multiple of 4 in 28..64, or null")
        require(self.channels in (None, 1, 3), "data.channels", self.channels, "1, 3 or null")
        for key in ("validation_fraction", "test_fraction"):
            value = getattr(self, key)
            require_fraction(f"data.{key}", value)
            require(value > 0, f"data.{key}", value, "> 0")
        total = self.validation_fraction + self.test_fraction
        require(total < 1, "data.validation_fraction + data.test_fraction", total, "< 1")
        require(len(self.label_budgets) > 0, "data.label_budgets", self.label_budgets, "a list with at least one count")
        rising = self.label_budgets == sorted(set(self.label_budgets)) and self.label_budgets[0] >= 1
        require(rising, "data.label_budgets", self.label_budgets, "rising counts >= 1")
        require_at_least("data.label_draws", self.label_draws, 1)
