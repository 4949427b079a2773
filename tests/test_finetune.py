"""Fine-tuning on all labels, and the three stages that choose: tune, study, finetune."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import paths
from pipeline.artifacts import read_json, read_table, write_array
from pipeline.config.classifier import Finetune
from pipeline.config.dp import Dp
from pipeline.config.load import load_params, write_changed
from pipeline.data.prepared import Split
from pipeline.data.write import write_prepared
from pipeline.launch.local import limit_threads
from pipeline.models.cnn import ConvNet
from pipeline.stage import Stage, StageSpec
from pipeline.training.guarantee import Guarantee
from pipeline.training.plan import PrivateSteps
from pipeline.training.stored import save_dbn
from pipeline.tuning.finetune import curve_rows, finetune_specs, make_private, run_finetune
from pipeline.tuning.trial import TrialSpec, labelled_indices, run_trial
from pipeline.weights import load_weights
from stages import finetune as finetune_stage
from stages import study as study_stage
from stages import tune as tune_stage
from tests.classifier_data import make_data, make_dbn, make_images, read_all

FINETUNE = Finetune(epochs=3, batch_size=8, lr=None, weight_decay=None, dropout=None)
RECIPES = {
    "scratch": {"lr": 0.01, "weight_decay": 0.0, "dropout": 0.1, "synthetic_share": 0.0},
    "cdbn": {"lr": 0.02, "weight_decay": 0.1, "dropout": 0.2, "synthetic_share": 0.0},
    "vae": {"lr": 0.01, "weight_decay": 0.0, "dropout": 0.1, "synthetic_share": 0.5},
    "classical": {"lr": 0.01, "weight_decay": 0.0, "dropout": 0.1, "synthetic_share": 0.0},
}


def make_specs(winner: str, finetune: Finetune = FINETUNE) -> dict[str, TrialSpec]:
    return finetune_specs(finetune, winner, RECIPES, num_images=54, root_seed=0, accelerator="cpu", precision="32")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    with limit_threads(1):
        yield


def test_winner_and_scratch_are_paired_and_take_the_studys_values_unless_told_otherwise() -> None:
    specs = make_specs("vae")
    assert specs["winner"].steps == specs["scratch"].steps == 3 * 7
    assert specs["winner"].seed == specs["scratch"].seed
    assert specs["winner"].derive_seed("weights") == specs["scratch"].derive_seed("weights")
    assert (specs["winner"].arm, specs["winner"].synthetic_share) == ("vae", 0.5)
    assert (make_specs("cdbn")["winner"].lr, make_specs("cdbn")["scratch"].lr) == (0.02, 0.01)
    told = make_specs("cdbn", replace(FINETUNE, lr=0.5, dropout=0.0))
    assert {(spec.lr, spec.dropout) for spec in told.values()} == {(0.5, 0.0)}
    assert told["winner"].weight_decay == 0.1


def test_private_specs_share_a_guarantee_but_no_noise_and_equal_ones_stay_one_fit() -> None:
    dp = Dp(models=["finetune"], epsilon=8.0, delta=1e-3, max_grad_norm=1.0)

    def private(winner: str) -> tuple[dict[str, TrialSpec], Guarantee]:
        return make_private(make_specs(winner), dp, num_images=54, secret=3)

    two, promised = private("classical")
    assert (promised.fits, promised.steps, promised.sample_rate) == (2, 21, 8 / 54)
    assert two["winner"].private != two["scratch"].private
    assert {spec.private.noise_multiplier for spec in two.values() if spec.private} == {promised.noise_multiplier}
    one, alone = private("scratch")
    assert one["winner"] == one["scratch"]
    assert (alone.fits, alone.noise_multiplier < promised.noise_multiplier) == (1, True)


def test_a_private_trial_says_nothing_of_its_training_losses_and_refuses_foreign_models() -> None:
    private = PrivateSteps(noise_multiplier=1.0, max_grad_norm=1.0, secret=1)
    spec = replace(make_specs("scratch")["winner"], steps=4, reports=2, private=private)
    found = run_trial(spec, make_data())
    assert [sorted(entry) for entry in found.history] == [["step", "validation_accuracy", "validation_nll"]] * 2
    assert "scratch_train_nll" not in curve_rows({"scratch": found})[0]
    other = run_trial(replace(spec, private=replace(private, noise_multiplier=0.0)), make_data())
    assert not np.array_equal(found.state["head_weight"], other.state["head_weight"])
    for arm in ("cdbn", "vae"):
        with pytest.raises(ValueError, match=f"{arm} can't be trained privately"):
            run_trial(replace(spec, arm=arm), make_data())


def test_all_labelled_images_are_used_and_no_other() -> None:
    assert np.array_equal(labelled_indices(make_specs("cdbn")["winner"], make_data()), np.arange(54))


def test_equal_recipes_are_trained_once(tmp_path: Path) -> None:
    heard: list[str] = []
    results = run_finetune(make_specs("scratch"), make_data(), tmp_path, lambda name, *_: heard.append(name))
    assert results["winner"] is results["scratch"]
    assert set(heard) == {"winner"}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [1, 2, 4])
def test_a_killed_finetune_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, after: int) -> None:
    specs, data = make_specs("vae"), make_data()
    undisturbed = run_finetune(specs, data, tmp_path / "undisturbed", lambda *_: None)
    heard: list[tuple[str, int]] = []

    def listen(name: str, step: int, _: dict[str, float]) -> None:
        heard.append((name, step))
        if len(heard) == after:
            raise Killed

    with pytest.raises(Killed):
        run_finetune(specs, data, tmp_path / "killed", listen)
    results = run_finetune(specs, data, tmp_path / "killed", listen)
    assert heard == [(name, step) for name in ("winner", "scratch") for step in (7, 14, 21)], "no epoch twice"
    for name, result in results.items():
        assert result.history == undisturbed[name].history
        assert all(np.array_equal(result.state[key], array) for key, array in undisturbed[name].state.items())
    rows = curve_rows(results)
    assert [row["step"] for row in rows] == [7, 14, 21]
    assert rows[-1]["scratch_validation_nll"] == results["scratch"].metrics["validation_nll"]


def test_finetuning_learns() -> None:
    spec = replace(make_specs("cdbn", replace(FINETUNE, lr=0.02))["winner"], steps=60)
    assert run_trial(spec, make_data()).metrics["validation_accuracy"] > 0.9


# --- the stages

OVERRIDES = (
    "run.launch=local",
    "run.tracking=disabled",
    "run.threads=1",
    "data.label_budgets=[6,12]",
    "tune.budget=6",
    "tune.arms=[scratch,cdbn]",
    "tune.num_trials=3",
    "tune.steps=4",
    "tune.reports=2",
    "tune.batch_size=8",
    "study.steps=4",
    "study.batch_size=8",
    "finetune.epochs=2",
    "finetune.batch_size=16",
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What earlier stages leave, small."""
    data = make_data()
    subsets = np.stack([data.subsets[draw, 12] for draw in (0, 1)])
    write_prepared(
        tmp_path / paths.PREPARED,
        train=Split(make_images(np.arange(60) % 3, 0), np.asarray(data.labels)),
        validation=Split(np.asarray(data.validation_images), np.asarray(data.validation_labels)),
        subsets=subsets,
        class_names=["a", "b", "c"],
        label_budgets=[6, 12],
    )
    save_dbn(tmp_path / paths.pretrained("dense"), make_dbn())
    for (name, draw), (images, labels) in data.synthetic.items():
        write_array(tmp_path / paths.synthetic(name) / f"images-{draw}.npy", images)
        write_array(tmp_path / paths.synthetic(name) / f"labels-{draw}.npy", labels)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(project: Path, spec: StageSpec, body: Callable[[Stage], None], *overrides: str) -> None:
    shipped = Path(__file__).parent.parent / "params.yaml"
    write_changed(shipped, project / "params.yaml", [*OVERRIDES, *overrides])
    work = project / ".layerwise" / spec.name
    stage = Stage(spec, params=load_params(project / "params.yaml"), work=work, root=project)
    body(stage)
    stage.publish()


def run_chain(project: Path) -> None:
    run(project, tune_stage.SPEC, tune_stage.tune)
    run(project, study_stage.SPEC, study_stage.study)
    run(project, finetune_stage.SPEC, finetune_stage.finetune)


def test_the_stages_leave_what_later_ones_read(project: Path) -> None:
    run_chain(project)
    best = read_json(paths.TUNE / "best.json")
    assert set(best) == {"scratch", "cdbn"}
    assert set(best["cdbn"]) == {"lr", "weight_decay", "dropout", "validation_nll", "validation_accuracy"}
    assert len(read_table(paths.TUNE / "trials.csv")) == 6
    trials = read_table(paths.STUDY / "trials.csv")
    assert list(trials[0]) == ["arm", "budget", "seed", "validation_accuracy", "validation_nll"]
    assert len(trials) == 6 * 2 * 2
    for row in trials:
        state, config = load_weights(
            paths.STUDY / "models" / f"{row['arm']}-{row['budget']}-{row['seed']}.safetensors", kind="classifier"
        )
        ConvNet.from_config(config).load_state_dict(state)
    recipe = read_json(paths.FINETUNE / "recipe.json")
    assert set(recipe) == {"arm", "lr", "weight_decay", "dropout", "reason"}
    assert recipe["reason"].startswith(f"{recipe['arm']} has the highest mean validation accuracy")
    for name in ("winner", "scratch"):
        load_weights(paths.FINETUNE / f"{name}.safetensors", kind="classifier")
    for table, columns in {
        "tune/trials": ["trial", "scratch", "cdbn"],
        "study/budgets": ["budget", "scratch", "classical", "cdbn", "vae", "gan", "scratch_probabilistic"],
    }.items():
        assert list(read_table(paths.PLOTS / f"{table}.csv")[0]) == columns
    metrics = read_json(paths.metrics("study"))
    assert metrics["cdbn"]["12"]["validation_accuracy"] == pytest.approx(
        np.mean([float(row["validation_accuracy"]) for row in trials if (row["arm"], row["budget"]) == ("cdbn", "12")])
    )


def test_the_stages_give_the_same_bytes_twice_and_no_time_or_place(project: Path) -> None:
    run_chain(project)
    before = {name: read_all(Path(name)) for name in ("out", "metrics", "plots")}
    for content in before["out"].values():
        assert str(project).encode() not in content
    for name in ("tune", "study", "finetune"):
        (project / ".layerwise" / name).rename(project / ".layerwise" / f"old-{name}")
    run_chain(project)
    assert {name: read_all(Path(name)) for name in before} == before


def test_a_sweep_whose_every_trial_diverges_ends_with_one_message(project: Path) -> None:
    space = "tune.space={lr: {type: uniform, low: 1.0e+29, high: 1.0e+30}}"
    with pytest.raises(ValueError, match=r"all 3 trials of the sweep of scratch failed:\n  trial 0 .*diverged"):
        run(project, tune_stage.SPEC, tune_stage.tune, space, "tune.start.lr=1.0e+29", "tune.steps=20")
    assert not (project / paths.TUNE).exists(), "nothing half-written"
