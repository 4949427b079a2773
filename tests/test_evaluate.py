"""The evaluate stage on networks whose answers are known, and the words it finds for them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import paths
from pipeline.artifacts import read_json, read_table, write_json, write_table
from pipeline.config.load import load_params
from pipeline.config.pretrain import ConvLayer
from pipeline.data.prepared import Split
from pipeline.data.write import write_test
from pipeline.metrics.prediction import predict_split
from pipeline.metrics.statistics import Correct, Estimate
from pipeline.metrics.study_results import list_trials, stack_correct
from pipeline.metrics.verdict_table import WIDTH, format_verdict
from pipeline.metrics.verdicts import (
    HELPS,
    HURTS,
    NO_EFFECT,
    UNJUDGED,
    Comparison,
    Key,
    judge,
    judge_study,
    say_arm,
    say_comparison,
    say_headline,
    say_models,
    say_points,
)
from pipeline.models.cnn import ConvNet
from pipeline.stage import Stage
from pipeline.weights import save_weights
from stages.evaluate import SPEC, evaluate

ROOT = Path(__file__).parent.parent
BUDGETS = (20, 100)


def estimate(value: float, low: float | None, high: float | None, seeds: int = 4) -> Estimate:
    return Estimate(value, low, high, None if low is None else 0.001, seeds=seeds)


@pytest.mark.parametrize(
    ("found", "adjusted_p", "expected"),
    [
        (estimate(0.03, 0.01, 0.05), 0.01, HELPS),
        (estimate(-0.03, -0.05, -0.01), 0.01, HURTS),
        (estimate(0.03, -0.01, 0.07), 0.2, NO_EFFECT),
        (estimate(0.03, 0.01, 0.05), 0.08, NO_EFFECT),  # not after Holm's correction
        (estimate(0.004, 0.002, 0.006), 0.001, NO_EFFECT),  # certain, but negligible
        (estimate(0.03, None, None, seeds=1), None, UNJUDGED),
    ],
)
def test_verdict_needs_interval_corrected_p_and_size(found: Estimate, adjusted_p: float | None, expected: str) -> None:
    assert judge(found, adjusted_p, confidence=0.95, negligible=0.005) == expected


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            Comparison("cdbn", "scratch", 50, estimate(0.032, 0.011, 0.053), 0.01, HELPS),
            "CDBN pretraining helps with 50 labels: +3.2 points (95 % interval +1.1 to +5.3, 4 seeds)",
        ),
        (
            Comparison("vae", "scratch", 1000, estimate(-0.002, -0.011, 0.007), 1.0, NO_EFFECT),
            "VAE samples with 1,000 labels: no measurable effect, "
            "\N{MINUS SIGN}0.2 points (95 % interval \N{MINUS SIGN}1.1 to +0.7, 4 seeds)",
        ),
        (
            Comparison("gan", "scratch", 50, estimate(0.003, 0.001, 0.005), 0.01, NO_EFFECT),
            "GAN samples with 50 labels: no measurable effect, +0.3 points (95 % interval +0.1 to +0.5, 4 seeds); "
            "too small to matter (within 0.5 points)",
        ),
        (
            Comparison("gan", "scratch", 50, estimate(0.03, 0.001, 0.06), 0.3, NO_EFFECT),
            "GAN samples with 50 labels: no measurable effect, +3.0 points (95 % interval +0.1 to +6.0, 4 seeds); "
            "the interval misses zero, but not once corrected for the number of comparisons",
        ),
        (
            Comparison("cdbn", "scratch_probabilistic", 50, estimate(-0.02, -0.03, -0.01), 0.01, HURTS),
            "CDBN pretraining hurts with 50 labels against the unpretrained CDBN network: "
            "\N{MINUS SIGN}2.0 points (95 % interval \N{MINUS SIGN}3.0 to \N{MINUS SIGN}1.0, 4 seeds)",
        ),
        (
            Comparison("vae", "scratch", 50, estimate(0.02, None, None, seeds=1), None, UNJUDGED),
            "VAE samples with 50 labels cannot be judged (+2.0 points, 1 seed): raise data.label_draws to 3 or more",
        ),
    ],
)
def test_sentences_name_arm_budget_points_interval_and_seeds(row: Comparison, sentence: str) -> None:
    assert say_comparison(row, confidence=0.95, negligible=0.005) == sentence


def test_headline_is_the_largest_help_at_the_smallest_budget_where_anything_helps() -> None:
    rows = [
        Comparison("vae", "scratch", 50, estimate(0.01, -0.01, 0.03), 0.4, NO_EFFECT),
        Comparison("vae", "scratch", 200, estimate(0.04, 0.02, 0.06), 0.01, HELPS),
        Comparison("cdbn", "scratch", 200, estimate(0.05, 0.02, 0.08), 0.01, HELPS),
        Comparison("cdbn", "scratch", 1000, estimate(0.09, 0.02, 0.16), 0.01, HELPS),
        Comparison("scratch_probabilistic", "scratch", 50, estimate(0.2, 0.1, 0.3), 0.01, HELPS),
    ]
    said = say_headline(rows, confidence=0.95)
    assert said == "With 200 labels, CDBN pretraining helps most: +5.0 points (95 % interval +2.0 to +8.0, 4 seeds)."
    nothing = [row for row in rows if row.verdict == NO_EFFECT]
    assert say_headline(nothing, confidence=0.95) == "Nothing has a measurable effect at any label budget."
    harm = [*nothing, Comparison("gan", "scratch", 50, estimate(-0.1, -0.2, -0.05), 0.01, HURTS)]
    assert "GAN samples can hurt" in say_headline(harm, confidence=0.95)
    alone = [Comparison("gan", "scratch", 50, estimate(0.1, None, None, seeds=1), None, UNJUDGED)]
    assert "raise data.label_draws" in say_headline(alone, confidence=0.95)


def test_an_arm_is_summed_up_over_its_budgets() -> None:
    rows = [
        Comparison("cdbn", "scratch", budget, estimate(0, 0, 0), 1.0, verdict)
        for budget, verdict in ((50, HELPS), (200, HELPS), (1000, NO_EFFECT))
    ]
    assert say_arm(rows) == "helps with 50 and 200 labels; no measurable effect with 1,000 labels"
    assert say_arm(rows[:2]) == "helps at any label budget"


def test_two_models_are_not_called_different_where_mcnemar_is_not_sure() -> None:
    sure = say_models(
        estimate(0.01, 0.002, 0.018), arm="vae", accuracy=0.99, baseline=0.98, images=1000, confidence=0.95
    )
    unsure = say_models(
        estimate(0.01, -0.002, 0.018), arm="vae", accuracy=0.99, baseline=0.98, images=1000, confidence=0.95
    )
    assert "a measurable difference" in sure
    assert "no measurable difference" in unsure


def test_points_that_round_to_zero_have_no_sign() -> None:
    assert [say_points(value) for value in (0.0004, -0.0004, 0.0006)] == ["0.0", "0.0", "+0.1"]


def fake_correct(gains: dict[str, float], *, seeds: int = 4, examples: int = 400) -> dict[Key, Correct]:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(size=examples)
    return {
        (arm, budget): difficulty + 1 + gain + rng.normal(0, 0.2, (seeds, examples)) > 0
        for arm, gain in gains.items()
        for budget in BUDGETS
    }


def make_rng(*identity: str | int) -> np.random.Generator:
    return np.random.default_rng(len(str(identity)))


def test_a_study_finds_the_arm_that_helps_the_one_that_hurts_and_pretraining_alone() -> None:
    gains = {"scratch": 0.0, "classical": 0.5, "gan": -0.5, "vae": 0.0, "cdbn": 0.5, "scratch_probabilistic": 0.5}
    rows = judge_study(fake_correct(gains), confidence=0.95, negligible=0.005, resamples=2000, make_rng=make_rng)
    verdicts = {(row.arm, row.baseline): row.verdict for row in rows}
    assert verdicts == {
        ("classical", "scratch"): HELPS,
        ("gan", "scratch"): HURTS,
        ("vae", "scratch"): NO_EFFECT,
        ("cdbn", "scratch"): HELPS,
        ("scratch_probabilistic", "scratch"): HELPS,
        ("cdbn", "scratch_probabilistic"): NO_EFFECT,
    }
    assert len(rows) == 6 * len(BUDGETS)


def test_too_few_resamples_for_so_many_comparisons_is_an_error() -> None:
    correct = fake_correct({"scratch": 0.0, "vae": 0.1, "gan": 0.1, "cdbn": 0.1})
    with pytest.raises(ValueError, match=r"evaluate\.resamples must be >= 120 for 6 comparisons"):
        judge_study(correct, confidence=0.95, negligible=0.005, resamples=100, make_rng=make_rng)


@pytest.mark.parametrize("budgets", [1, 3, 4])
def test_the_terminal_table_fits_100_columns(budgets: int) -> None:
    sizes = [50, 200, 1000, 60_000][:budgets]
    rows = [
        Comparison(arm, baseline, budget, estimate(-0.123, -0.234, 0.012), 0.2, NO_EFFECT)
        for arm, baseline in (("scratch_probabilistic", "scratch"), ("cdbn", "scratch_probabilistic"))
        for budget in sizes
    ]
    accuracies = {("scratch", budget): 0.9 for budget in sizes}
    text = format_verdict("A headline. " * 12, rows, accuracies, confidence=0.95, test_images=1000)
    assert max(map(len, text.splitlines())) <= WIDTH
    for budget in sizes:
        assert f"{budget:,} labels" in text
    assert text.count("\N{MINUS SIGN}12.3 [\N{MINUS SIGN}23.4, +1.2] ·") == len(rows)


def test_an_incomplete_study_cannot_be_paired() -> None:
    rows = [
        {"arm": arm, "budget": "20", "seed": seed} for arm, seed in (("scratch", "0"), ("scratch", "1"), ("vae", "1"))
    ]
    with pytest.raises(ValueError, match="no trial of arm vae at 20 labels with seed 0"):
        list_trials(rows)
    with pytest.raises(ValueError, match="lists a trial twice"):
        list_trials([rows[0], rows[0]])


def test_rows_of_a_stack_follow_the_seeds_not_the_order_of_the_trials() -> None:
    right, wrong = np.array([True]), np.array([False])
    stacked = stack_correct({("scratch", 20, 1): wrong, ("scratch", 20, 0): right})
    assert stacked["scratch", 20].tolist() == [[True], [False]]


def small_network(seed: int) -> ConvNet:
    layers = [
        replace(layer, num_filters=4) if isinstance(layer, ConvLayer) else replace(layer, num_hidden=16)
        for layer in load_params(ROOT / "params.yaml").layers.values()
    ]
    model = ConvNet(layers, (1, 28, 28), 3, dropout=0.5)
    model.init_random(torch.Generator().manual_seed(seed))
    model.head_weight.data.mul_(100)
    return model


def test_predictions_do_not_depend_on_how_the_split_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 1, 28, 28), dtype=np.uint8)
    model = small_network(0)
    whole = predict_split(model, images)
    monkeypatch.setattr("pipeline.metrics.prediction.IMAGES_AT_ONCE", 7)
    np.testing.assert_allclose(predict_split(model, images), whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.exp(whole).sum(axis=1), 1, rtol=1e-4, atol=1e-4)
    expected = torch.log_softmax(model(torch.from_numpy(images).float() / 255), 1).detach().numpy()
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with a test split, a study of random networks and two fine-tuned ones.

    The labels are what the network of the vae arm's seed 0 answers, so that its accuracy is known to be 1.
    """
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(1).integers(0, 256, (60, 1, 28, 28), dtype=np.uint8)
    labels = predict_split(small_network(100), images).argmax(axis=1).astype(np.int64)
    write_test(paths.TEST, Split(images, labels), class_names=["cat", "dog", "eel"])
    rows = []
    for number, arm in enumerate(("scratch", "vae")):
        for budget in BUDGETS:
            for seed in range(3):
                rows.append(
                    {"arm": arm, "budget": budget, "seed": seed, "validation_accuracy": 0.5, "validation_nll": 1.0}
                )
                model = small_network(100 * number + seed)
                file = paths.STUDY / "models" / f"{arm}-{budget}-{seed}.safetensors"
                save_weights(file, model.state_dict(), kind="classifier", config=model.to_config())
    write_table(paths.STUDY / "trials.csv", rows)
    for name, seed in (("winner", 100), ("scratch", 0)):
        model = small_network(seed)
        file = paths.FINETUNE / f"{name}.safetensors"
        save_weights(file, model.state_dict(), kind="classifier", config=model.to_config())
    write_json(
        paths.FINETUNE / "recipe.json", {"arm": "vae", "lr": 0.001, "weight_decay": 0, "dropout": 0, "reason": ""}
    )
    return tmp_path


def run_evaluate(project: Path) -> None:
    work = project / "work"
    work.mkdir(exist_ok=True)
    stage = Stage(SPEC, params=load_params(ROOT / "params.yaml"), work=work, root=project)
    evaluate(stage)
    stage.publish()


def test_the_stage_scores_every_model_and_writes_what_the_report_reads(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_evaluate(project)
    trials = {(row["arm"], row["budget"], row["seed"]): row for row in read_table(paths.EVALUATE / "trials.csv")}
    assert len(trials) == 12
    assert float(trials["vae", "20", "0"]["accuracy"]) == 1.0
    metrics = read_json(paths.metrics("evaluate"))
    assert metrics["winner"]["accuracy"] == 1.0
    assert metrics["winner"]["error"] == 0.0
    by_seed = [float(trials["scratch", "20", str(seed)]["accuracy"]) for seed in range(3)]
    assert metrics["arms"]["scratch"]["20"]["accuracy"] == pytest.approx(np.mean(by_seed))
    vae = metrics["arms"]["vae"]["100"]
    assert vae["difference"] == pytest.approx(vae["accuracy"] - metrics["arms"]["scratch"]["100"]["accuracy"])
    assert vae["low"] < vae["difference"] < vae["high"]
    confusion = read_table(paths.EVALUATE / "confusion.csv")
    assert sum(int(row["count"]) for row in confusion if row["actual"] == row["predicted"]) == 60
    assert len(read_table(paths.plots("evaluate") / "confusion.csv")) == 60
    assert {row["model"] for row in read_table(paths.plots("evaluate") / "reliability.csv")} == {"winner", "scratch"}
    printed = capsys.readouterr().out
    assert read_json(paths.EVALUATE / "verdict.json")["headline"] in " ".join(printed.split())


def test_the_stage_gives_the_same_bytes_twice_and_goes_on_from_its_work_folder(project: Path) -> None:
    def contents() -> dict[str, bytes]:
        folders = (paths.EVALUATE, paths.plots("evaluate"), paths.METRICS)
        return {str(file): file.read_bytes() for folder in folders for file in sorted(folder.rglob("*.*"))}

    run_evaluate(project)
    first = contents()
    for file in (paths.STUDY / "models").glob("*.safetensors"):
        file.unlink()  # their predictions lie in the work folder
    run_evaluate(project)
    assert contents() == first
    json.loads(first["metrics/evaluate.json"])
