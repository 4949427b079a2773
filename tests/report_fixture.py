"""Fabricates what every stage leaves, small but plausible, so that a report can be made without training anything.

`python -m tests.report_fixture FOLDER` does so and renders FOLDER/report/index.html, to look at.
"""

import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

from pipeline import paths
from pipeline.applications.story import Drawing, Story, Table, TableRow, write_story
from pipeline.artifacts import Json, write_json, write_table
from pipeline.config.load import Params, load_params
from pipeline.data.pictures import class_grid, image_grid, write_png
from pipeline.metrics.classification import Scores, compute_confusion, compute_reliability, compute_scores
from pipeline.metrics.privacy import Check
from pipeline.metrics.result_tables import accuracy_row, collect_metrics, comparison_row, describe_study
from pipeline.metrics.statistics import compare_two_models, estimate_mean
from pipeline.metrics.verdicts import judge_study, say_models
from pipeline.report.content import Content
from pipeline.report.gather import Gatherer
from pipeline.report.html import render
from pipeline.report.reproduction import read_reproduction

ROOT = Path(__file__).parent.parent
BUDGETS = (50, 200, 1000)
NUM_TEST = 400
INPUTS = (paths.PREPARED, paths.EVALUATE, paths.METRICS, paths.PLOTS)
# Gain of each arm over scratch at the three budgets, on a probit scale.
GAINS = {
    "scratch": (0.0, 0.0, 0.0),
    "classical": (0.45, 0.35, 0.25),
    "cdbn": (0.3, 0.12, 0.0),
    "vae": (0.12, 0.0, -0.05),
    "gan": (-0.1, -0.3, -0.3),
    "scratch_probabilistic": (-0.2, -0.05, 0.0),
}
LEVELS = (0.9, 1.6, 2.2)


def fabricate(root: Path, *, seeds: int = 4, generators: tuple[str, ...] = ("vae", "gan")) -> Params:
    """Writes params.yaml, out/, metrics/ and plots/ below `root`; returns the parameters."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", root)
    arms = [arm for arm in GAINS if arm not in ("vae", "gan") or arm in generators]
    overrides = [f"augment.generators=[{','.join(generators)}]", f"study.arms=[{','.join(arms)}]"]
    params = load_params(root / "params.yaml", overrides)
    images, labels = _digits()
    _write_data(root, images, labels)
    for layer in params.layers:
        _write_layer(root / paths.plots(f"pretrain@{layer}"), images)
    for kind in generators:
        _write_generator(root, kind, images, labels)
    _write_sweep(root)
    _write_study(root, arms, seeds)
    _write_application(root, images)
    return params


def make_content(root: Path, params: Params) -> Content:
    return Gatherer(root, params).gather(read_reproduction(root, INPUTS))


def _digits() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    digits = load_digits()
    blown_up = np.kron(digits.images * 255 / 16, np.ones((3, 3)))
    return np.pad(blown_up, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)[:, None], digits.target.astype(np.int64)


def _write_data(root: Path, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    names = [str(label) for label in range(10)]
    manifest = {
        "image_shape": [1, 28, 28],
        "class_names": names,
        "source": {"name": "embedded", "sha256": "ab" * 32},
        "label_budgets": list(BUDGETS),
        "label_draws": 4,
    }
    write_json(root / paths.PREPARED / "manifest.json", manifest)
    counts = {"train": 350, "validation": 50, "test": 100}
    split = {name: {"images": 10 * each, "classes": dict.fromkeys(names, each)} for name, each in counts.items()}
    write_json(root / paths.metrics("prepare"), split)
    write_png(root / paths.plots("prepare") / "samples.png", class_grid(images, labels, 10, 12), magnify=2)


def _write_layer(folder: Path, images: npt.NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    filters = rng.normal(128, 40, (32, 1, 7, 7)).clip(0, 255).astype(np.uint8)
    write_png(folder / "filters.png", image_grid(filters, columns=8), magnify=5)
    blurred = (images[:12] // 2 + 40).astype(np.uint8)
    write_png(folder / "reconstructions.png", image_grid(np.concatenate([images[:12], blurred]), columns=12))
    write_png(folder / "chains.png", image_grid(np.concatenate([images[:35], images[:35] // 3]), columns=7), magnify=2)
    dense = folder.name.endswith("dense")
    rows = [_point(step, score=dense, look=dense and step in (140, 280, 400)) for step in range(20, 401, 20)]
    write_table(folder / "free_energy.csv", rows)
    refused = "" if dense else "log Z is annealed for dense layers of bernoulli units alone"
    write_json(folder.parent.parent / "metrics" / f"{folder.name}.json", {"log_likelihood_refused": refused})


def _point(step: int, *, score: bool, look: bool) -> dict[str, float | None]:
    """A point of a layer's curves; with `look`, a log-likelihood of -90 nats at the end."""
    value = -90 - 0.05 * (400 - step)
    return {
        "step": step,
        "train": -80 - 9 * step**0.4,
        "validation": -79 - 8.8 * step**0.4,
        "gap": 1 + 0.2 * step**0.4,
        "reconstruction_error": 0.5 / step,
        "pseudo_likelihood": -80 - 300 / step if score else None,
        "log_likelihood": value if look else None,
        "log_likelihood_low": value - 2 if look else None,
        "log_likelihood_high": value + 2 if look else None,
        "ess": 70.0 if look else None,
    }


def _write_generator(root: Path, kind: str, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
    def score(value: float, warned: float = 0.0) -> dict[str, float]:
        return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "warned": warned}

    names = ("frechet", "kernel", "precision", "recall", "density", "coverage", "accuracy", "duplicates", "copies")
    rows = {
        "synthetic": dict(zip(names, map(score, (7.3, 0.041, 0.81, 0.62, 0.9, 0.71, 0.88, 0.01, 0.013)), strict=True)),
        "class_ppca": dict(zip(names, map(score, (9.9, 0.062, 0.7, 0.66, 0.6, 0.6, 0.85, 0.0, 0.0)), strict=True)),
        "real": dict(zip(names, map(score, (1.2, 0.0004, 0.93, 0.92, 1.0, 0.96, 0.91, 0.01, 0.01)), strict=True)),
    }
    rows["synthetic"]["frechet"] = score(7.3, warned=1.0)
    sentence = "diverse: coverage 0.71 (real images 0.96), near-duplicates 1%"
    write_json(
        root / paths.synthetic(kind) / "quality.json", {"rows": rows, "verdict": "diverse", "sentence": sentence}
    )
    write_json(root / paths.synthetic(kind) / "card.json", _card(kind))
    picture = class_grid(images[::-1].copy(), labels[::-1].copy(), 10, 12)
    write_png(root / paths.plots(f"augment@{kind}") / "samples.png", picture, magnify=2)


def _write_application(root: Path, images: npt.NDArray[np.uint8]) -> None:
    picture = paths.plots("anomaly") / "maps.png"
    write_png(root / picture, image_grid(images[:40], 10), magnify=2)
    rows = [TableRow("VAE, ELBO", ("96.4 %",)), TableRow("PCA-30 residual", ("95.7 %",), baseline=True)]
    story = Story(
        order=1,
        title="Anomaly detection",
        sentence="The VAE finds more of the odd digits than the residual of a PCA does.",
        tables=[Table("Mean over ten classes.", ("AUROC",), rows)],
        drawings=[Drawing(picture.as_posix(), "Digits beside their anomaly maps.", "Where the score comes from.")],
    )
    write_story(root / paths.application("anomaly"), story)


def _card(kind: str) -> Json:
    """Two audited sets; the GAN's second one was not passed."""

    def entry(draw: int) -> Json:
        auc = 0.71 if kind == "gan" and draw else 0.54
        checks = [
            Check("attack nearest pixels", auc, auc - 0.03, auc + 0.03, 0.6, True, "privacy.max_attack_auc"),
            Check("distance ratio", 0.98, 0.95, 1.01, 0.9, False, "privacy.min_distance_ratio"),
        ]
        verdict = "failed" if auc > 0.6 else "passed"
        rate = {"value": 0.02, "low": 0.01, "high": 0.04, "warning": ""}
        return {
            "draw": draw,
            "model_sha256": "12" * 32,
            "images_sha256": "ab" * 32,
            "verdict": verdict,
            "sentence": f"{verdict}: attack nearest pixels {auc}",
            "checks": [asdict(check) | {"outcome": check.outcome} for check in checks],
            "attacks": {"nearest pixels": {"auc": rate, "tpr_at_1": rate, "tpr_at_10": rate}},
            "counts": {"members": 350, "others": 350, "synthetic": 2000, "train": 3500},
        }

    sets = [entry(0), entry(1)]
    worst = sets[-1]
    return {
        "generator": kind,
        "data": {"train_images_sha256": "cd" * 32, "image_shape": [1, 28, 28]},
        "limits": {"max_attack_auc": 0.6},
        "control": {"nearest pixels": 1.0, "near copies": 0.96},
        "floors": {"exact copies": {"value": 0.0, "low": 0.0, "high": 0.01, "warning": ""}},
        "differential_privacy": {"sentence": "Differentially private training."} if kind == "vae" else None,
        "sets": sets,
        "verdict": worst["verdict"],
        "sentence": f"label draw 1: {worst['sentence']}",
    }


def _write_sweep(root: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [
        {
            "arm": arm,
            "trial": trial,
            "dropout": float(rng.uniform(0, 0.7)),
            "lr": float(10 ** rng.uniform(-3.5, -2)),
            "weight_decay": 0.01,
            "status": "completed" if trial % 3 == 0 else "stopped",
            "reports": 4,
            "validation_nll": float(rng.uniform(0.3, 0.8)),
            "validation_accuracy": 0.9,
        }
        for arm in ("scratch", "cdbn")
        for trial in range(8)
    ]
    write_table(root / paths.TUNE / "trials.csv", rows)
    best = {"lr": 0.0021, "weight_decay": 0.01, "dropout": 0.31, "validation_nll": 0.334}
    write_json(root / paths.TUNE / "best.json", {"scratch": best, "cdbn": best})


def _write_study(root: Path, arms: list[str], seeds: int) -> None:
    rng = np.random.default_rng(2)
    difficulty = rng.normal(size=NUM_TEST)
    correct = {
        (arm, budget): LEVELS[place]
        + GAINS[arm][place]
        + difficulty
        + rng.normal(0, 0.25, (seeds, NUM_TEST))
        + rng.normal(0, 0.06, (seeds, 1))
        > 0
        for arm in arms
        for place, budget in enumerate(BUDGETS)
    }
    rows = judge_study(
        correct, confidence=0.95, negligible=0.005, resamples=1000, make_rng=lambda *_: np.random.default_rng(3)
    )
    write_table(root / paths.EVALUATE / "comparisons.csv", [comparison_row(row) for row in rows])
    told = describe_study(rows, confidence=0.95, negligible=0.005, test_images=NUM_TEST)
    write_json(root / paths.EVALUATE / "verdict.json", told)
    accuracies = {
        key: estimate_mean(matrix, confidence=0.95, resamples=1000, rng=np.random.default_rng(4))
        for key, matrix in correct.items()
    }
    budgets = [accuracy_row(key, estimate) for key, estimate in accuracies.items()]
    write_table(root / paths.plots("evaluate") / "budgets.csv", budgets)
    models = _write_final(root)
    means = {key: Scores(row.value, row.value - 0.002, 2 * (1 - row.value), 0.03) for key, row in accuracies.items()}
    write_json(root / paths.metrics("evaluate"), collect_metrics(models, means, rows))


def _write_final(root: Path) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 10, NUM_TEST)
    scores, reliability, right = {}, [], {}
    for model, sharpness in (("winner", 6.0), ("scratch", 5.2)):
        logits = rng.normal(0, 1.4, (NUM_TEST, 10)) + sharpness * np.eye(10)[labels]
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        found = compute_scores(log_probs, labels)
        scores[model] = vars(found) | {"error": 1 - found.accuracy}
        right[model] = log_probs.argmax(axis=1) == labels
        reliability += [
            {"confidence": row.confidence, "accuracy": row.accuracy, "count": row.count, "model": model}
            for row in compute_reliability(log_probs, labels)
            if row.count
        ]
        if model == "winner":
            confusion = compute_confusion(log_probs.argmax(axis=1), labels, 10)
    write_table(root / paths.plots("evaluate") / "reliability.csv", reliability)
    cells = [
        {"actual": str(row), "predicted": str(column), "count": int(confusion[row, column])}
        for row in range(10)
        for column in range(10)
    ]
    write_table(root / paths.EVALUATE / "confusion.csv", cells)
    difference = compare_two_models(right["winner"], right["scratch"], confidence=0.95)
    accuracy, baseline = scores["winner"]["accuracy"], scores["scratch"]["accuracy"]
    sentence = say_models(
        difference, arm="classical", accuracy=accuracy, baseline=baseline, images=NUM_TEST, confidence=0.95
    )
    told = {"arm": "classical", **scores, "recall": {str(label): 0.97 for label in range(10)}, "sentence": sentence}
    write_json(root / paths.EVALUATE / "finetune.json", told)
    recipe = {"arm": "classical", "lr": 0.002, "weight_decay": 0.01, "dropout": 0.3, "reason": "lowest mean loss"}
    write_json(root / paths.FINETUNE / "recipe.json", recipe)
    return scores


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    page = render(make_content(folder, fabricate(folder)))
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "index.html").write_text(page, encoding="utf-8")
