"""Trials and the study: what arms share, what they may see, and a study that is killed and run again."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from pipeline.config.classifier import ARMS, Study
from pipeline.config.pretrain import DenseLayer
from pipeline.data.prepared import Prepared, Split
from pipeline.launch.local import LocalLauncher, limit_threads
from pipeline.launch.ray_launcher import RayLauncher
from pipeline.models.cnn import ConvNet
from pipeline.models.dbn import DBN
from pipeline.training.greedy import save_dbn
from pipeline.training.stream import as_batch
from pipeline.tuning.arms import recipe, tuned_as
from pipeline.tuning.gather import gather_trial_data, top_dbn
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
from pipeline.tuning.trial import TrialResult, TrialSpec, build_network, build_stream, run_trial
from pipeline.weights import load_weights
from tests.classifier_data import LAYERS, make_data, make_dbn, make_images, make_spec, read_all

STUDY = Study(arms=["scratch", "classical", "cdbn", "vae"], steps=4, batch_size=8, synthetic_share=0.25)
TUNED = {
    "scratch": {"lr": 0.01, "weight_decay": 0.0, "dropout": 0.1, "validation_nll": 1.0},
    "cdbn": {"lr": 0.02, "weight_decay": 0.1, "dropout": 0.2, "validation_nll": 1.0},
}


def make_specs(study: Study = STUDY, **recipes: Any) -> list[TrialSpec]:
    values = study_recipes(study, TUNED) | recipes
    return list_specs(study, values, budgets=[6, 12], num_seeds=2, root_seed=3, accelerator="cpu", precision="32")


def same(left: TrialResult, right: TrialResult) -> bool:
    arrays = all(np.array_equal(left.state[name], right.state[name]) for name in left.state)
    return arrays and (left.metrics, left.history, left.config) == (right.metrics, right.history, right.config)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    with limit_threads(1):
        yield


# --- arms


def test_arms_of_one_network_start_from_the_same_weights_at_every_budget() -> None:
    data = make_data()
    for group in (("scratch", "classical", "vae", "gan"),):
        states = [build_network(make_spec(arm=arm, budget=b), data).state_dict() for arm in group for b in (6, 12)]
        for state in states[1:]:
            assert all(torch.equal(state[name], states[0][name]) for name in state)
    other = build_network(make_spec(seed=1), data).state_dict()
    assert not torch.equal(other["weights.0"], states[0]["weights.0"])


def test_arms_of_one_seed_see_the_same_batches_of_real_images() -> None:
    data = make_data()
    for step in range(5):
        plain, pretrained = (build_stream(make_spec(arm=arm), data).batch(step) for arm in ("scratch", "cdbn"))
        augmented = build_stream(make_spec(arm="classical"), data).batch(step)
        assert torch.equal(plain.images, pretrained.images)
        assert torch.equal(plain.labels, augmented.labels)
        assert not torch.equal(plain.images, augmented.images)
    other = build_stream(make_spec(seed=1), data).batch(0)
    assert not torch.equal(other.images, build_stream(make_spec(), data).batch(0).images)


def test_generator_arms_fill_their_share_of_each_batch_with_images_of_their_draw() -> None:
    data = make_data()
    for draw in (0, 1):
        batch = build_stream(make_spec(arm="gan", seed=draw), data).batch(3)
        known = as_batch(*(torch.from_numpy(array) for array in data.synthetic["gan", draw])).images
        is_synthetic = [any(torch.equal(image, other) for other in known) for image in batch.images]
        assert is_synthetic == [False] * 6 + [True] * 2
    with pytest.raises(ValueError, match=r"study.synthetic_share 0.99 of batch_size 8 leaves no real image"):
        build_stream(make_spec(arm="vae", synthetic_share=0.99), data)
    with pytest.raises(ValueError, match=r"no synthetic images of vae for label draw 5: run `dvc repro augment@vae`"):
        build_stream(make_spec(arm="vae", seed=5, budget=None), data)


def test_the_pretrained_arm_starts_with_the_mean_field_activations_of_the_dbn() -> None:
    data, dbn = make_data(), make_dbn()
    network = build_network(make_spec(arm="cdbn"), data)
    images = torch.from_numpy(data.validation_images).float() / 255
    with torch.no_grad():
        torch.testing.assert_close(network.features(images), dbn.mean_field(images), atol=1e-6, rtol=1e-5)
    twin = build_network(make_spec(arm="scratch_probabilistic"), data)
    assert twin.to_config() == network.to_config(), "the ablation differs in its start alone"
    assert not torch.equal(twin.weights[0], network.weights[0])


@pytest.mark.parametrize("arm", ["scratch", "classical", "cdbn", "gan"])
def test_a_trial_learns_from_no_label_outside_its_budget(arm: str) -> None:
    data = make_data()
    spec = make_spec(arm=arm, budget=6, seed=1, steps=3)
    labels = np.random.default_rng(0).integers(0, 3, 60)
    labels[12:18] = data.labels[12:18]
    assert same(run_trial(spec, data), run_trial(spec, replace(data, labels=labels)))
    labels[12] = (labels[12] + 1) % 3
    assert not same(run_trial(spec, data), run_trial(spec, replace(data, labels=labels)))


def test_a_trial_is_a_function_of_its_spec_whatever_ran_before() -> None:
    data, spec = make_data(), make_spec(arm="vae")
    first = run_trial(spec, data)
    torch.manual_seed(99)
    torch.rand(5)
    assert same(first, run_trial(spec, data))
    assert not same(first, run_trial(replace(spec, seed=1), data))
    assert not same(first, run_trial(replace(spec, root_seed=4), data))


def test_reported_metrics_are_those_of_the_trained_network() -> None:
    data, heard = make_data(), []
    spec = make_spec(steps=60, reports=4, budget=12, lr=0.02)
    result = run_trial(spec, data, report=lambda step, metrics: heard.append((step, metrics)))
    assert [step for step, _ in heard] == [15, 30, 45, 60]
    assert heard[-1][1] == result.metrics
    network = ConvNet.from_config(result.config)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in result.state.items()})
    log_probs = network.predict_log_probabilities(torch.from_numpy(data.validation_images).float() / 255)
    labels = torch.from_numpy(data.validation_labels)
    assert result.metrics["validation_accuracy"] == pytest.approx(float((log_probs.argmax(1) == labels).float().mean()))
    nll = float(torch.nn.functional.nll_loss(log_probs, labels))
    assert result.metrics["validation_nll"] == pytest.approx(nll, rel=1e-5)
    assert result.metrics["validation_accuracy"] > 0.9, "the bars are easy to tell apart"


def test_a_diverging_trial_says_where_and_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"training diverged at step \d+: .*lower the learning rate"):
        run_trial(make_spec(lr=1e30, steps=20), make_data())


@pytest.mark.parametrize(("steps", "reports", "expected"), [(9, 6, 5), (240, 4, 4), (10, 10, 10), (7, 1, 1)])
def test_the_number_of_reports_is_what_a_trial_gives(steps: int, reports: int, expected: int) -> None:
    spec, heard = make_spec(steps=steps, reports=reports), []
    if steps < 100:
        run_trial(spec, make_data(), report=lambda step, _: heard.append(step))
        assert len(heard) == expected
        assert heard[-1] == steps
    assert spec.num_reports == expected


def test_every_arm_takes_the_values_of_a_sweep_of_its_kind_of_network() -> None:
    tuned = ("scratch", "cdbn")
    expected = {"cdbn": "cdbn", "scratch_probabilistic": "cdbn"}
    assert {arm: tuned_as(arm, tuned) for arm in ARMS} == {arm: expected.get(arm, "scratch") for arm in ARMS}
    assert tuned_as("scratch_probabilistic", ("cdbn", "scratch_probabilistic")) == "scratch_probabilistic"
    with pytest.raises(ValueError, match=r"study.arms has cdbn, but no arm of tune.arms \['scratch'\] has its kind"):
        tuned_as("cdbn", ["scratch"])
    assert {recipe(arm).activation for arm in expected} == {"probabilistic"}


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
    with RayLauncher(slots=2) as launcher:
        remote = run_study(specs, data, launcher, tmp_path / "ray", lambda *_: None)
    assert remote == local
    assert read_all(tmp_path / "ray") == read_all(tmp_path / "local")


def test_a_saved_result_comes_back_whole_and_its_network_can_be_copied(tmp_path: Path) -> None:
    result = run_trial(make_spec(arm="cdbn"), make_data())
    assert load_result(tmp_path, "x") is None
    save_result(tmp_path, "x", result)
    found = load_result(tmp_path, "x")
    assert found is not None
    assert same(found, result)
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
    with pytest.raises(ValueError, match=r"holds no pretrained layer: run `dvc repro`"):
        top_dbn(tmp_path / "pretrain")
    save_dbn(tmp_path / "pretrain" / "dense", make_dbn())
    file = top_dbn(tmp_path / "pretrain")
    data = gather_trial_data(prepared, file, ["scratch", "cdbn"], seeds=[0, 1], budgets=[6, 12])
    assert np.array_equal(data.subsets[1, 6], np.arange(12, 18))
    assert data.synthetic == {}
    with pytest.raises(ValueError, match=r"label budget 7 is not in data.label_budgets \[6, 12\]"):
        gather_trial_data(prepared, file, ["scratch"], seeds=[0], budgets=[7])
    with pytest.raises(ValueError, match=r"images-0.npy does not exist: run `dvc repro augment@gan`"):
        gather_trial_data(prepared, file, ["gan"], seeds=[0], budgets=[6])
    with pytest.raises(ValueError, match=r"was trained on images \(1, 12, 12\), .* holds \(1, 16, 16\)"):
        gather_trial_data(replace(prepared, image_shape=(1, 16, 16)), file, ["scratch"], seeds=[0], budgets=[6])


def test_the_top_dbn_holds_every_other_and_strangers_are_refused(tmp_path: Path) -> None:
    full = make_dbn()
    save_dbn(tmp_path / "conv1", DBN(LAYERS[:1], (1, 12, 12)))
    save_dbn(tmp_path / "dense", full)
    assert top_dbn(tmp_path).parent.name == "dense"
    stranger = DBN([LAYERS[0], replace(cast(DenseLayer, LAYERS[1]), num_hidden=9)], (1, 12, 12))
    save_dbn(tmp_path / "old", stranger)
    with pytest.raises(ValueError, match=r"belong to different networks: remove the folder of the layer that"):
        top_dbn(tmp_path)
