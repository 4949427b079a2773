"""Trials: what arms share, what they may see, and that nothing but the spec decides what comes out."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.classifier import ARMS
from pipeline.launch.local import limit_threads
from pipeline.models.cnn import ConvNet
from pipeline.training.stream import as_batch
from pipeline.tuning.arms import recipe, tuned_as
from pipeline.tuning.trial import build_network, build_stream, run_trial
from tests.classifier_data import make_data, make_dbn, make_spec, same_results


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    with limit_threads(1):
        yield


def test_arms_of_one_network_start_from_the_same_weights_at_every_budget() -> None:
    data = make_data()
    arms = ("scratch", "classical", "vae", "gan")
    states = [build_network(make_spec(arm=arm, budget=b), data).state_dict() for arm in arms for b in (6, 12)]
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
    assert same_results(run_trial(spec, data), run_trial(spec, replace(data, labels=labels)))
    labels[12] = (labels[12] + 1) % 3
    assert not same_results(run_trial(spec, data), run_trial(spec, replace(data, labels=labels)))


def test_a_trial_is_a_function_of_its_spec_whatever_ran_before() -> None:
    data, spec = make_data(), make_spec(arm="vae")
    first = run_trial(spec, data)
    torch.manual_seed(99)
    torch.rand(5)
    assert same_results(first, run_trial(spec, data))
    assert not same_results(first, run_trial(replace(spec, seed=1), data))
    assert not same_results(first, run_trial(replace(spec, root_seed=4), data))


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
