"""Results as rows of tables and as json: what `evaluate` writes and `report` reads."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.metrics.classification import Scores
from pipeline.metrics.statistics import Estimate
from pipeline.metrics.study_results import Trial
from pipeline.metrics.verdicts import Comparison, Key, say_arm, say_comparison, say_headline


def trial_row(trial: Trial, scores: Scores) -> dict[str, object]:
    return dict[str, object](zip(("arm", "budget", "seed"), trial, strict=True)) | asdict(scores)


def comparison_row(row: Comparison) -> dict[str, object]:
    estimate = row.estimate
    return {
        "arm": row.arm,
        "baseline": row.baseline,
        "budget": row.budget,
        "seeds": estimate.seeds,
        "difference": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "p": estimate.p,
        "adjusted_p": row.adjusted_p,
        "verdict": row.verdict,
    }


def accuracy_row(key: Key, estimate: Estimate) -> dict[str, object]:
    arm, budget = key
    return {"budget": budget, "arm": arm, "accuracy": estimate.value, "low": estimate.low, "high": estimate.high}


def describe_study(
    comparisons: Sequence[Comparison], *, confidence: float, negligible: float, test_images: int
) -> dict[str, Any]:
    """verdict.json: the verdict in words, with what it rests on."""
    pairs = dict.fromkeys((row.arm, row.baseline) for row in comparisons)
    return {
        "headline": say_headline(comparisons, confidence=confidence),
        "arms": [
            {
                "arm": arm,
                "baseline": baseline,
                "verdict": say_arm([row for row in comparisons if (row.arm, row.baseline) == (arm, baseline)]),
            }
            for arm, baseline in pairs
        ],
        "sentences": [say_comparison(row, confidence=confidence, negligible=negligible) for row in comparisons],
        "confidence": confidence,
        "negligible": negligible,
        "comparisons": len(comparisons),
        "seeds": comparisons[0].estimate.seeds if comparisons else 0,
        "test_images": test_images,
    }


def collect_metrics(
    models: Mapping[str, Any], scores: Mapping[Key, Scores], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """metrics/evaluate.json: the two final models, and every arm's mean scores and difference from scratch."""
    arms: dict[str, dict[str, dict[str, float]]] = {}
    for (arm, budget), mean in scores.items():
        arms.setdefault(arm, {})[str(budget)] = asdict(mean)
    for row in comparisons:
        if row.baseline == "scratch":
            values = {"difference": row.estimate.value, "low": row.estimate.low, "high": row.estimate.high}
            arms[row.arm][str(row.budget)] |= {key: value for key, value in values.items() if value is not None}
    return {"winner": models["winner"], "scratch": models["scratch"], "arms": arms}
