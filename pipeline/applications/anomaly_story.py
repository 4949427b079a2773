"""What anomaly detection tells the report: who finds them best, every score beside the baselines, class by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.applications.anomaly import SIMPLE, TRAINED, Found
from pipeline.applications.story import Drawing, Story, Table, TableRow
from pipeline.config.anomaly import Anomaly
from pipeline.metrics.detection import Detection

ORDER = 10
NAMES = {
    "ensemble": "ensemble (mean of one score a model)",
    "f_anogan": "f-AnoGAN",
    "vae_elbo": "VAE, -ELBO",
    "vae_reconstruction": "VAE, reconstruction probability",
    "rbm_free_energy": "RBM, free energy",
    "conv_rbm_neighbours": "convolutional RBM, neighbours in its features",
    "nearest_neighbour": "1-NN",
    "pca": "residual of principal components",
    "isolation_forest": "isolation forest",
}
COLUMNS = ("auroc", "auprc", "false_positives", "true_positives")


@dataclass(frozen=True)
class Mean:
    """Over classes, then over seeds. deviation: of the seeds, None with one; value: None where there is none."""

    value: float | None
    deviation: float | None

    def __str__(self) -> str:
        if self.value is None:
            return "-"
        return f"{self.value:.3f}" + ("" if self.deviation is None else f" +- {self.deviation:.3f}")


def summarise(found: Sequence[Found]) -> dict[str, dict[str, Mean]]:
    """By score and column of `Detection`."""
    names = [name for name in (*TRAINED, *SIMPLE) if any(each.score == name for each in found)]
    return {name: {column: _mean(found, name, column) for column in COLUMNS} for name in names}


def tell(
    found: Sequence[Found],
    on_table: Sequence[Found],
    class_names: Sequence[str],
    settings: Anomaly,
    *,
    num_judged: int,
    table_name: str,
    drawings: Sequence[Drawing],
) -> Story:
    """on_table: of the table of rows, empty without one."""
    classes = sorted({each.normal_class for each in found})
    names = ", ".join(class_names[number] for number in classes)
    plan = f"{settings.seeds} seed{'s' if settings.seeds > 1 else ''}"
    spread = "; +- is the deviation of the seeds" if settings.seeds > 1 else ""
    rate = settings.false_positive_rate
    caption = (
        f"Means over normal classes ({names}; all other classes are anomalies), n = {num_judged} test images, "
        f"{plan}{spread}; 30 principal components. Flagged: share of normal images and of anomalies above a threshold "
        f"set by held-out normal images for a false-positive rate of {rate:g}."
    )
    tables = [_rates(caption, summarise(found)), _by_class(found, classes, class_names)]
    if on_table:
        rows = (
            f"{table_name}: learned from half of the normal rows, judged on the other half and all anomalies, "
            f"{plan}{spread}; principal components with 90 % of the variance. Flagged as above."
        )
        tables.append(_rates(rows, summarise(on_table)))
    title = "Anomalies: what does not look like the normal class"
    return Story(ORDER, title, say_winner(summarise(found), len(classes), settings.seeds), tables, drawings)


def say_winner(means: Mapping[str, Mapping[str, Mean]], num_classes: int, seeds: int) -> str:
    """The highest mean AUROC among the trained scores and among the baselines, and which of both is better."""

    def best(names: Sequence[str]) -> tuple[str, float]:
        values = {name: float(means[name]["auroc"].value or 0) for name in names if name in means}
        name = max(values, key=lambda key: values[key])
        return NAMES[name], values[name]

    (model, high), (baseline, simple) = best(TRAINED), best(SIMPLE)
    over = f"AUROC, mean over {num_classes} normal class{'es' if num_classes > 1 else ''} and {seeds} seed" + (
        "s" if seeds > 1 else ""
    )
    ranking = f"{model} {high:.3f}, {baseline} {simple:.3f} ({over})"
    if round(high, 3) > round(simple, 3):
        return f"The highest trained score is above the best baseline: {ranking}."
    verdict = "no trained score is better than" if round(high, 3) == round(simple, 3) else "a simple method wins with"
    return f"Here {verdict} the {baseline}: {ranking}."


def as_metrics(means: Mapping[str, Mapping[str, Mean]]) -> dict[str, Any]:
    """Numbers by score, those that are there."""
    return {
        name: {column: mean.value for column, mean in columns.items() if mean.value is not None}
        for name, columns in means.items()
    }


def as_rows(found: Sequence[Found], class_names: Sequence[str]) -> list[dict[str, object]]:
    """One for every normal class, seed and score, for a csv."""
    return [
        {"normal": class_names[each.normal_class], "seed": each.number, "score": each.score} | vars(each.detection)
        for each in found
    ]


def _mean(found: Sequence[Found], name: str, column: str) -> Mean:
    by_seed: dict[int, list[float]] = {}
    for each in found:
        value = _value(each.detection, column)
        if each.score == name and value is not None:
            by_seed.setdefault(each.number, []).append(value)
    means = [float(np.mean(values)) for values in by_seed.values()]
    if not means:
        return Mean(None, None)
    return Mean(float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else None)


def _value(detection: Detection, column: str) -> float | None:
    value: float | None = getattr(detection, column)
    return value


def _rates(caption: str, means: Mapping[str, Mapping[str, Mean]]) -> Table:
    rows = [
        TableRow(NAMES[name], [str(columns[column]) for column in COLUMNS], baseline=name in SIMPLE)
        for name, columns in means.items()
    ]
    return Table(caption, ["AUROC", "AUPRC", "normal flagged", "anomalies flagged"], rows)


def _by_class(found: Sequence[Found], classes: Sequence[int], class_names: Sequence[str]) -> Table:
    rows = [
        TableRow(
            NAMES[name],
            [str(_mean([each for each in found if each.normal_class == number], name, "auroc")) for number in classes],
            baseline=name in SIMPLE,
        )
        for name in summarise(found)
    ]
    return Table("AUROC by normal class, means over seeds.", [class_names[number] for number in classes], rows)
