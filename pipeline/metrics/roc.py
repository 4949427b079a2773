"""How well a score tells two groups apart: the area under the ROC curve with DeLong's interval, and its steep start."""

# P positives, N negatives, R resamples

import numpy as np

from pipeline.metrics.score import RESAMPLES, Z_95, Floats, Score


def area_under_curve(positives: Floats, negatives: Floats) -> Score:
    """P(a positive scores higher than a negative) + 1/2 P(equal), with the interval of DeLong et al. (1988).

    positives: (P,), negatives: (N,); higher scores mean positive.  The standard error is at least 1 / (2 min(P, N)),
    half of what one image ranked last instead of first would change: perfect separation of few images proves little.
    """
    _check(positives, negatives)
    of_positives, of_negatives = _placements(positives, negatives)
    variance = of_positives.var(ddof=1) / len(positives) + of_negatives.var(ddof=1) / len(negatives)
    spread = Z_95 * max(float(variance) ** 0.5, 0.5 / min(len(positives), len(negatives)))
    value = float(of_positives.mean())
    return Score(value=value, low=max(0.0, value - spread), high=min(1.0, value + spread))


def _placements(positives: Floats, negatives: Floats) -> tuple[Floats, Floats]:
    """(P,), for each positive the share of negatives below it, ties half; (N,), for each negative that of positives
    above it: DeLong's structural components.
    """

    def share_below(rows: Floats, others: Floats) -> Floats:
        ordered = np.sort(others)
        left, right = (np.searchsorted(ordered, rows, side) for side in ("left", "right"))
        return np.asarray((left + right) / (2 * len(others)))

    return share_below(positives, negatives), 1 - share_below(negatives, positives)


def rate_at_false_alarms(positives: Floats, negatives: Floats, share: float, rng: np.random.Generator) -> Score:
    """The largest share of positives found while at most `share` of the negatives are taken for positives.

    What counts for privacy is this at 1 %, not the area (Carlini et al. 2022).  The interval is a percentile bootstrap
    over both groups.  Warned where `share` is less than five negatives.
    """
    _check(positives, negatives)

    place = len(negatives) - 1 - int(share * len(negatives) + 1e-9)

    def rates(positives_RP: Floats, negatives_RN: Floats) -> Floats:
        threshold_R1 = np.partition(negatives_RN, place, axis=1)[:, place : place + 1]
        return np.asarray((positives_RP > threshold_R1).mean(axis=1))

    def resample(scores: Floats) -> Floats:
        return scores[rng.integers(0, len(scores), (RESAMPLES, len(scores)))]

    value = float(rates(positives[None], negatives[None])[0])
    low, high = np.quantile(rates(resample(positives), resample(negatives)), (0.025, 0.975))
    few = f"{share:.0%} of {len(negatives)} images: coarse" if share * len(negatives) < 5 else ""
    return Score(value=value, low=float(low), high=float(high), warning=few)


def _check(positives: Floats, negatives: Floats) -> None:
    for name, scores in (("positives", positives), ("negatives", negatives)):
        if scores.ndim != 1 or len(scores) < 2:
            raise ValueError(f"{name} must be at least 2 scores, got shape {scores.shape}: give more images")
        if not np.isfinite(scores).all():
            raise ValueError(f"{name} has scores that are not finite: the model that gave them has diverged")
