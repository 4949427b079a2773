"""Scores every trained classifier on the test split, which no choice has seen, and says which arms help.

Writes out/evaluate: trials.csv (scores of every model), comparisons.csv (paired differences), verdict.json (the same in
words), finetune.json (the two models trained on all labels), confusion.csv (counts of the better recipe's model).
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pipeline import paths
from pipeline.artifacts import Json, read_array, read_json, read_table, write_array, write_json, write_table
from pipeline.config.classifier import Evaluate
from pipeline.data.prepared import Split, load_manifest
from pipeline.data.test_split import load_test
from pipeline.device import set_threads
from pipeline.metrics.classification import compute_confusion, compute_recall, compute_reliability, compute_scores
from pipeline.metrics.prediction import predict_split
from pipeline.metrics.result_tables import accuracy_row, collect_metrics, comparison_row, describe_study, trial_row
from pipeline.metrics.statistics import Correct, compare_two_models, estimate_mean
from pipeline.metrics.study_results import list_trials, mean_scores, stack_correct
from pipeline.metrics.verdict_table import format_verdict
from pipeline.metrics.verdicts import judge_study, say_models
from pipeline.models.cnn import ConvNet
from pipeline.seeding import make_numpy_rng
from pipeline.stage import Stage, StageSpec, run_stage
from pipeline.weights import load_weights

SPEC = StageSpec(
    "evaluate",
    params=("run.seed", "run.threads", "evaluate"),
    inputs=(paths.TEST, paths.STUDY, paths.FINETUNE),
    outputs=(paths.EVALUATE, paths.plots("evaluate")),
)

LogProbs = npt.NDArray[np.float32]


def evaluate(stage: Stage) -> None:
    settings, seed = stage.section(Evaluate), stage.run.seed
    set_threads(stage.run.threads)
    test, names = load_test(paths.TEST), load_manifest(paths.TEST)["class_names"]
    trials = list_trials(read_table(paths.STUDY / "trials.csv"))
    files = [paths.STUDY / "models" / f"{arm}-{budget}-{seed}.safetensors" for arm, budget, seed in trials]
    files += [paths.FINETUNE / "winner.safetensors", paths.FINETUNE / "scratch.safetensors"]
    *predictions, winner, scratch = predict_all(stage, files, test)

    def rng(*identity: str | int) -> np.random.Generator:
        return make_numpy_rng(seed, "evaluate", *identity)

    scores = {trial: compute_scores(p, test.labels) for trial, p in zip(trials, predictions, strict=True)}
    correct = stack_correct({trial: is_right(p, test) for trial, p in zip(trials, predictions, strict=True)})
    confidence, resamples, negligible = settings.confidence, settings.resamples, settings.negligible
    accuracies = {
        key: estimate_mean(rows, confidence=confidence, resamples=resamples, rng=rng("accuracy", *key))
        for key, rows in correct.items()
    }
    comparisons = judge_study(correct, confidence=confidence, negligible=negligible, resamples=resamples, make_rng=rng)
    study = describe_study(comparisons, confidence=confidence, negligible=negligible, test_images=len(test.labels))
    models = judge_models(winner, scratch, test, names, confidence)

    folder, plots = stage.output(paths.EVALUATE), stage.output(paths.plots(stage.name))
    write_table(folder / "trials.csv", [trial_row(trial, row) for trial, row in scores.items()])
    write_table(folder / "comparisons.csv", [comparison_row(row) for row in comparisons])
    write_json(folder / "verdict.json", study)
    write_json(folder / "finetune.json", models)
    write_table(plots / "budgets.csv", [accuracy_row(key, estimate) for key, estimate in accuracies.items()])
    write_winner(folder, plots, {"winner": winner, "scratch": scratch}, test, names)
    stage.write_metrics(collect_metrics(models, mean_scores(scores), comparisons))
    stage.say(
        format_verdict(
            study["headline"],
            comparisons,
            {key: estimate.value for key, estimate in accuracies.items()},
            confidence=confidence,
            test_images=len(test.labels),
            closing=[models["sentence"]],
        )
    )


def predict_all(stage: Stage, files: Sequence[Path], test: Split) -> list[LogProbs]:
    """Log probabilities (N, K) of every model for the test images; what the resume folder holds is not done again."""
    found = []
    with stage.progress(len(files), stage.name) as progress:
        for done, file in enumerate(files, start=1):
            kept = stage.work / f"{file.parent.name}-{file.stem}.npy"
            if not kept.is_file():
                write_array(kept, predict_split(load_classifier(file), test.images))
            found.append(np.array(read_array(kept)))
            progress.update(done)
    return found


def load_classifier(file: Path) -> ConvNet:
    state, config = load_weights(file, kind="classifier")
    model = ConvNet.from_config(config)
    model.load_state_dict(state)
    return model.eval()


def is_right(log_probs: LogProbs, test: Split) -> Correct:
    return np.asarray(log_probs.argmax(axis=1) == test.labels)


def judge_models(winner: LogProbs, scratch: LogProbs, test: Split, names: Sequence[str], confidence: float) -> Json:
    """finetune.json: scores of the two models trained on all labels, and how they differ on the same images."""
    arm = read_json(paths.FINETUNE / "recipe.json")["arm"]
    scores = {"winner": compute_scores(winner, test.labels), "scratch": compute_scores(scratch, test.labels)}
    difference = compare_two_models(is_right(winner, test), is_right(scratch, test), confidence=confidence)
    confusion = compute_confusion(winner.argmax(axis=1), test.labels, len(names))
    recall = dict(zip(names, compute_recall(confusion).tolist(), strict=True))
    sentence = say_models(
        difference,
        arm=arm,
        accuracy=scores["winner"].accuracy,
        baseline=scores["scratch"].accuracy,
        images=len(test.labels),
        confidence=confidence,
    )
    return {
        "arm": arm,
        **{name: asdict(row) | {"error": 1 - row.accuracy} for name, row in scores.items()},
        "difference": {key: getattr(difference, key) for key in ("value", "low", "high", "p")},
        "recall": {name: None if np.isnan(value) else value for name, value in recall.items()},
        "test_images": len(test.labels),
        "sentence": sentence,
    }


def write_winner(
    folder: Path, plots: Path, predictions: Mapping[str, LogProbs], test: Split, names: Sequence[str]
) -> None:
    """Confusion of the winner, counted and image by image (as `dvc plots` wants it), and both models' reliability."""
    predicted = predictions["winner"].argmax(axis=1)
    confusion = compute_confusion(predicted, test.labels, len(names))
    counts = [
        {"actual": names[row], "predicted": names[column], "count": int(confusion[row, column])}
        for row in range(len(names))
        for column in range(len(names))
    ]
    write_table(folder / "confusion.csv", counts)
    pairs = zip(test.labels, predicted, strict=True)
    write_table(plots / "confusion.csv", [{"actual": names[a], "predicted": names[p]} for a, p in pairs])
    reliability = [
        {"confidence": row.confidence, "accuracy": row.accuracy, "count": row.count, "model": model}
        for model, log_probs in predictions.items()
        for row in compute_reliability(log_probs, test.labels)
        if row.count
    ]
    write_table(plots / "reliability.csv", reliability)


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, evaluate))
