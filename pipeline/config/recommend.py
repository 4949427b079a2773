"""Section `recommend`: who rates what, and how much."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction, require_positive

OFF = "data"
"""The value of `ratings` that switches the application off: no package ships ratings to start with."""


@dataclass(frozen=True, kw_only=True)
class Recommend:
    ratings: str
    """A csv file (user,item,rating[,timestamp]) or a MovieLens folder (latest, 100k, 1M); data switches it off."""
    split: str
    """random, or time: the latest ratings of every user are held out."""
    test_fraction: float
    """Share of the ratings that is held out to be scored, in (0, 1)."""
    splits: int
    """Independent splits (by time: seeds of the models), >= 1; a spread needs >= 2."""
    sides: list[str]
    """item: an example for each item, with the users' ratings for its visible units; user: the other way round. Both
    are compared where both are given; the first one is kept for use. Many examples with few visible units do best."""
    num_hidden: int
    """Hidden units, >= 1; 50..200."""
    epochs: int
    """Passes over the examples, >= 1; 10..30."""
    batch_size: int
    """Examples per update, >= 1; an update holds ratings x values x num_hidden numbers in memory."""
    lr: float
    """Adam's learning rate, > 0; falls linearly to zero over the last half of the epochs."""
    weight_decay: float
    """On the weights, >= 0."""
    rank_hidden: int
    """Hidden units of the machine that ranks items, >= 1."""
    rank_epochs: int
    """Its passes over the users, >= 1."""
    rank_lr: float
    """Its learning rate, > 0."""
    relevant: float
    """A held-out rating from here on is a hit, in the scale of the ratings."""

    def __post_init__(self) -> None:
        require(bool(self.ratings), "recommend.ratings", self.ratings, f"a file or folder ({OFF} switches it off)")
        require_choice("recommend.split", self.split, ("random", "time"))
        require_fraction("recommend.test_fraction", self.test_fraction)
        require(self.test_fraction > 0, "recommend.test_fraction", self.test_fraction, "> 0")
        require_at_least("number of recommend.sides", len(self.sides), 1)
        for side in self.sides:
            require_choice("recommend.sides", side, ("item", "user"))
        for key in ("splits", "num_hidden", "epochs", "batch_size", "rank_hidden", "rank_epochs"):
            require_at_least(f"recommend.{key}", getattr(self, key), 1)
        for key in ("lr", "rank_lr"):
            require_positive(f"recommend.{key}", getattr(self, key))
        require_at_least("recommend.weight_decay", self.weight_decay, 0)
