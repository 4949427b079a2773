"""The study: its trials, a study that is killed and run again, and what is made of the results."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config.classifier import Study
from pipeline.data.prepared import Prepared, Split
from pipeline.launch.local import LocalLauncher, limit_threads
from pipeline.launch.ray_launcher import RayLauncher
from pipeline.models.cnn import ConvNet
from pipeline.training.stored import save_dbn
from pipeline.tuning.gather import gather_trial_data
from pipeline.tuning.results import copy_classifier, load_result, save_result
from pipeline.tuning.study import (
    Cell,
    StudyRow,
    budget_rows,
    choose_arm,
    list_specs,
    parse_rows,
    run_study,
    study_recipes,
    summarise,
)
from pipeline.tuning.trial import TrialSpec, run_trial
from pipeline.weights import load_weights
from tests.classifier_data import make_data, make_dbn, make_images, make_spec, read_all, same_results
from tests.ray_settings import ray_settings

STUDY = Study(arms=["scratch", "classical", "cdbn", "vae"], steps=4, batch_size=8, synthetic_share=0.25)
TUNED = {
    "scratch": {"lr": 0.01, "weight_decay": 0.0, "dropout": 0.1, "validation_nll": 1.0},
    "cdbn": {"lr": 0.02, "weight_decay": 0.1, "dropout": 0.2, "validation_nll": 1.0},
}


def make_specs(study: Study = STUDY, **recipes: Any) -> list[TrialSpec]:
    values = study_recipes(study, TUNED) | recipes
    return list_specs(study, values, budgets=[6, 12], num_seeds=2, root_seed=3, accelerator="cpu", precision="32")


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    with limit_threads(1):
        yield


# --- the study


def test_a_study_lists_every_arm_budget_and_seed_once_with_the_values_of_its_sweep() -> None:
    specs = make_specs()
    assert [str(spec) for spec in specs[:5]] == [
        "scratch-6-0",
        "scratch-6-1",
        "scratch-12-0",
        "scratch-12-1",
        "classical-6-0",
    ]
    assert len({str(spec) for spec in specs}) == len(specs) == 4 * 2 * 2
    assert {spec.lr for spec in specs if spec.arm == "cdbn"} == {0.02}
    assert {spec.dropout for spec in specs if spec.arm == "vae"} == {0.1}
    assert {spec.synthetic_share for spec in specs if spec.arm == "scratch"} == {0.0}


class Killed(BaseException):
    pass


class CountingLauncher(LocalLauncher):
    """Remembers what it was asked to run."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def map_trials(
        self, function: Any, items: Sequence[Any], shared: Any, *, on_result: Callable[..., None] | None = None
    ) -> list[Any]:
        self.asked = [str(item) for item in items]
        return super().map_trials(function, items, shared, on_result=on_result)


def test_a_killed_study_repeats_only_what_it_lost_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    specs, data = make_specs(), make_data()
    undisturbed = run_study(specs, data, LocalLauncher(), tmp_path / "undisturbed", lambda *_: None)

    def kill(done: int, _: StudyRow | None) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        run_study(specs, data, LocalLauncher(), tmp_path / "killed", kill)
    (tmp_path / "killed" / f"{specs[5]}.safetensors").write_bytes(b"half a mod")  # killed while it was written
    launcher, heard = CountingLauncher(), []
    rows = run_study(specs, data, launcher, tmp_path / "killed", lambda done, _: heard.append(done))
    assert rows == undisturbed
    assert launcher.asked == [str(spec) for spec in specs[5:]]
    assert heard == list(range(5, 17))
    assert read_all(tmp_path / "killed") == read_all(tmp_path / "undisturbed")


def test_a_failed_trial_is_named_after_all_others_are_done_and_kept(tmp_path: Path) -> None:
    specs = make_specs(vae={"lr": 1e30, "weight_decay": 0.0, "dropout": 0.0, "synthetic_share": 0.25})
    with pytest.raises(
        ValueError, match=r"4 of 16 trials failed:\n  vae-6-0: training diverged .*\n  vae-6-1: "
    ) as error:
        run_study(specs, make_data(), LocalLauncher(), tmp_path, lambda *_: None)
    assert "run the same command again" in str(error.value)
    assert len(list(tmp_path.glob("*.result.json"))) == 12


@pytest.mark.ray
def test_a_study_on_ray_gives_the_bytes_of_a_study_in_process(tmp_path: Path) -> None:
    specs, data = make_specs(), make_data()
    local = run_study(specs, data, LocalLauncher(), tmp_path / "local", lambda *_: None)
    with RayLauncher(ray_settings()) as launcher:
        remote = run_study(specs, data, launcher, tmp_path / "ray", lambda *_: None)
    assert remote == local
    assert read_all(tmp_path / "ray") == read_all(tmp_path / "local")


def test_a_saved_result_comes_back_whole_and_its_network_can_be_copied(tmp_path: Path) -> None:
    result = run_trial(make_spec(arm="cdbn"), make_data())
    assert load_result(tmp_path, "x") is None
    save_result(tmp_path, "x", result)
    found = load_result(tmp_path, "x")
    assert found is not None
    assert same_results(found, result)
    copy_classifier(tmp_path, "x", tmp_path / "models")
    state, config = load_weights(tmp_path / "models" / "x.safetensors", kind="classifier")
    ConvNet.from_config(config).load_state_dict(state)


# --- what came out


def make_cells() -> list[Cell]:
    rows = [
        StudyRow("scratch", 6, 0, 0.9, 0.1),
        StudyRow("scratch", 6, 1, 0.7, 0.3),
        StudyRow("scratch", 12, 0, 0.8, 0.5),
        StudyRow("cdbn", 6, 0, 0.2, 1.0),
        StudyRow("cdbn", 12, 0, 0.8, 0.4),
        StudyRow("vae", 6, 0, 1.0, 0.0),
        StudyRow("vae", 12, 0, 0.75, 0.0),
    ]
    return summarise(rows)


def test_a_summary_holds_the_means_over_the_seeds() -> None:
    cells = make_cells()
    assert [(cell.arm, cell.budget, cell.num_seeds) for cell in cells[:2]] == [("scratch", 6, 2), ("scratch", 12, 1)]
    assert cells[0].validation_accuracy == pytest.approx(0.8)
    assert cells[0].validation_nll == pytest.approx(0.2)
    assert budget_rows(cells)[1] == {"budget": 12, "scratch": 0.8, "cdbn": 0.8, "vae": 0.75}


def test_the_chosen_arm_leads_at_the_largest_budget_and_ties_go_to_the_likelihood() -> None:
    arm, reason = choose_arm(make_cells())
    assert arm == "cdbn"
    assert "at 12 labels: 0.8000 over 1 seed (then scratch 0.8000, vae 0.7500)" in reason


def test_trials_csv_is_read_back_to_the_last_bit() -> None:
    row = StudyRow("scratch", 6, 0, 0.1 + 0.2, 1 / 3)
    assert parse_rows([{key: str(value) for key, value in vars(row).items()}]) == [row]


# --- what trials are made of


def make_prepared(folder: Path) -> Prepared:
    labels = np.arange(60) % 3
    split = Split(make_images(labels, 0), labels)
    return Prepared(folder, (1, 12, 12), ["a", "b", "c"], split, split, [6, 12], np.arange(24).reshape(2, 12))


def test_gathering_fails_with_a_remedy_where_something_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = make_prepared(tmp_path)
    with pytest.raises(ValueError, match=r"dbn.safetensors does not exist: run the stage that makes it"):
        gather_trial_data(prepared, "dense", ["scratch"], seeds=[0], budgets=[6])
    save_dbn(tmp_path / "out" / "pretrain" / "dense", make_dbn())
    data = gather_trial_data(prepared, "dense", ["scratch", "cdbn"], seeds=[0, 1], budgets=[6, 12])
    assert np.array_equal(data.subsets[1, 6], np.arange(12, 18))
    assert data.synthetic == {}
    with pytest.raises(ValueError, match=r"label budget 7 is not in data.label_budgets \[6, 12\]"):
        gather_trial_data(prepared, "dense", ["scratch"], seeds=[0], budgets=[7])
    with pytest.raises(ValueError, match=r"images-0.npy does not exist: run `dvc repro augment@gan`"):
        gather_trial_data(prepared, "dense", ["gan"], seeds=[0], budgets=[6])
    with pytest.raises(ValueError, match=r"was trained on images \(1, 12, 12\), .* holds \(1, 16, 16\)"):
        gather_trial_data(replace(prepared, image_shape=(1, 16, 16)), "dense", ["scratch"], seeds=[0], budgets=[6])
