"""The quality scores of a synthetic set as a table of text: what each is called and which way is better."""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.artifacts import Json
from pipeline.report.content import QualityScore

QUALITY_ROWS = {"synthetic": "this generator", "class_ppca": "class-wise PCA", "real": "real images"}
QUALITY_SCORES = {
    "frechet": ("Fréchet distance", "lower"),
    "kernel": ("kernel distance", "lower"),
    "precision": ("precision", "higher"),
    "recall": ("recall", "higher"),
    "density": ("density", "higher"),
    "coverage": ("coverage", "higher"),
    "accuracy": ("1-NN accuracy", "higher"),
    "duplicates": ("near-duplicates", "lower"),
    "copies": ("near-copies", "lower"),
}


def quality_scores(rows: Mapping[str, Json]) -> list[QualityScore]:
    """The table of quality.json with scores as rows, known ones first and in a fixed order."""
    found = []
    for key in in_order({key for scores in rows.values() for key in scores}, QUALITY_SCORES):
        name, better = QUALITY_SCORES.get(key, (key, ""))
        shown = [row for row in in_order(rows, QUALITY_ROWS) if key in rows[row]]
        values = {QUALITY_ROWS.get(row, row): _show(rows[row][key]) for row in shown}
        found.append(QualityScore(name, better, values))
    return found


def in_order(keys: Iterable[str], known: Iterable[str]) -> list[str]:
    """json comes back sorted by name: `keys` in the order of `known`, then the rest by name."""
    present = set(keys)
    first = [key for key in known if key in present]
    return [*first, *sorted(present - set(first))]


def _show(score: Mapping[str, Any]) -> str:
    """Three significant digits; a star where the score should be read with care."""
    return f"{score['value']:.3g}{'*' if score.get('warned') else ''}"
