"""Section `documents`: topics and retrieval on word counts."""

from dataclasses import dataclass

from pipeline.config.rules import require, require_at_least, require_fraction, require_positive

EMBEDDED = "data"
"""The value of `texts` that stands for the texts that come with installed packages."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    texts: str
    """A folder with a folder of .txt files for each subject; data takes the docstrings of scipy and scikit-learn."""
    num_words: int
    """Words that are counted, the most frequent that are not everywhere, >= 10; 500..2000."""
    test_fraction: float
    """Share of the documents that is held out to be scored, in (0, 1)."""
    num_topics: int
    """Hidden units, >= 1; 16..128."""
    seeds: int
    """Machines that are trained, each on a split of its own, >= 1; a spread needs >= 2."""
    epochs: int
    """Passes over the documents, >= 1."""
    batch_size: int
    """>= 1."""
    lr: float
    """Adam's learning rate, > 0; falls linearly to zero over the last half of the epochs."""
    gibbs_steps: int
    """k of CD-k, >= 1."""
    ais_documents: int
    """Held-out documents whose perplexity is estimated, each with its own log Z, >= 1."""
    ais_chains: int
    """For each length of a document, >= 2."""
    ais_temperatures: int
    """>= 2; 100..2000."""

    def __post_init__(self) -> None:
        require(bool(self.texts), "documents.texts", self.texts, f"a folder ({EMBEDDED} for those of packages)")
        require_fraction("documents.test_fraction", self.test_fraction)
        require(self.test_fraction > 0, "documents.test_fraction", self.test_fraction, "> 0")
        require_at_least("documents.num_words", self.num_words, 10)
        for key in ("num_topics", "seeds", "epochs", "batch_size", "gibbs_steps", "ais_documents"):
            require_at_least(f"documents.{key}", getattr(self, key), 1)
        for key in ("ais_chains", "ais_temperatures"):
            require_at_least(f"documents.{key}", getattr(self, key), 2)
        require_positive("documents.lr", self.lr)
