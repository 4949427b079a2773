"""Does a generator make the same images again and again? Coverage and near-duplicates against real images, named."""

# N images a set, P pixels

from dataclasses import dataclass

import numpy as np

from pipeline.metrics.neighbours import duplicate_rate, duplicate_threshold, precision_recall_density_coverage
from pipeline.metrics.score import Floats

COLLAPSED = "collapsed"


@dataclass(frozen=True)
class Verdict:
    """name: diverse, narrow, collapsed or off_the_data.  sentence: the name with its numbers, for people."""

    name: str
    sentence: str


def name_verdict(*, coverage: float, real_coverage: float, duplicates: float, real_duplicates: float) -> Verdict:
    """What shares in [0, 1] of made images say, beside those of real ones; real_duplicates: its upper limit.

    collapsed: half of the images or more have a near-duplicate, or coverage is under a fifth of the real one and
    duplicates are above theirs; off_the_data: such a coverage without the duplicates; narrow: coverage under half of
    the real one.
    """
    numbers = f"coverage {coverage:.2f} (real images {real_coverage:.2f}), near-duplicates {duplicates:.0%}"
    repeats = duplicates > max(real_duplicates, 0.05)
    if duplicates >= 0.5 or (coverage < 0.2 * real_coverage and repeats):
        return Verdict(COLLAPSED, f"collapsed, the same images again and again: {numbers}")
    if coverage < 0.2 * real_coverage:
        return Verdict("off_the_data", f"off the data, not like the real images: {numbers}")
    if coverage < 0.5 * real_coverage:
        return Verdict("narrow", f"narrow, whole kinds of images are missing: {numbers}")
    return Verdict("diverse", f"diverse: {numbers}")


class Reference:
    """Real images that made ones are held against, pixel by pixel: cheap enough for a look in training.

    real, others: (N, P) each, disjoint sets of real images; others stand where made ones will, for the scale.
    """

    def __init__(self, real: Floats, others: Floats) -> None:
        self._real, self._near = real, duplicate_threshold(real)
        self._coverage = self._cover(others)
        self._duplicates = duplicate_rate(others, self._near).high

    def look(self, made: Floats) -> dict[str, float]:
        """The arguments of `name_verdict`.  made: (N, P), as many rows as the others."""
        return {
            "coverage": self._cover(made),
            "real_coverage": self._coverage,
            "duplicates": duplicate_rate(made, self._near).value,
            "real_duplicates": self._duplicates,
        }

    def _cover(self, rows: Floats) -> float:
        rng = np.random.default_rng(0)  # of intervals that are not looked at
        return precision_recall_density_coverage(self._real, rows, rng)["coverage"].value
