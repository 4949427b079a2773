"""A trial of each target: what it reports, that it resumes, and that a donor's weights go on with other values."""

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config.generators import Vae
from pipeline.config.load import load_params
from pipeline.config.pretrain import DenseLayer
from pipeline.config.space import LogRandInt, LogUniform
from pipeline.config.targets import FIXED, LIVE, list_targets, sweepable, target_section, target_space
from pipeline.config.tune import Tune
from pipeline.launch.local import limit_threads
from pipeline.models.dbn import DBN
from pipeline.training.generators import GeneratorData
from pipeline.training.greedy import LayerData
from pipeline.tuning.steps import FIT_FILE, Past, StepStore, run_steps
from pipeline.tuning.sweep import SweepPlan
from pipeline.tuning.target_trials import (
    METRICS,
    GeneratorSpec,
    LayerSpec,
    SweptLayerData,
    classifier_trial,
    frechet_watch,
    generator_trial,
    layer_trial,
)
from tests.classifier_data import COMMON, make_data, make_images, make_spec
from tests.gan_models import SMALL

PARAMS = Path(__file__).parent.parent / "params.yaml"
VAE = Vae(
    latent_dim=2,
    width=4,
    likelihood="bernoulli",
    beta=1.0,
    free_bits=0.0,
    iw_samples=1,
    warmup_steps=0,
    steps=6,
    batch_size=8,
    lr=0.01,
)
GAN = replace(SMALL, latent_dim=2, r1_weight=0.1, ema_decay=0.5, steps=6, lr=0.01, betas=[0.0, 0.9])
DENSE = DenseLayer(
    kind="dense",
    below="prepare",
    num_hidden=6,
    persistent=False,
    num_temperatures=1,
    centred=False,
    hidden="bernoulli",
    **(COMMON | {"steps": 6}),
)
RUN: dict[str, Any] = {"seed": 3, "accelerator": "cpu", "precision": "32", "reports": 3}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    with limit_threads(1):
        yield


def generator_data() -> GeneratorData:
    labels = np.arange(90) % 3
    images, held_out = (np.pad(make_images(labels, seed), ((0, 0), (0, 0), (8, 8), (8, 8))) for seed in (0, 1))
    return GeneratorData(images, labels[None], held_out, labels, 3)


def layer_data() -> SweptLayerData:
    labels, dbn = np.arange(60) % 3, DBN([], (1, 12, 12))
    data = LayerData(make_images(labels, 0), make_images(labels, 1))
    return SweptLayerData(data, (dbn.to_config(), dbn.state_dict()))


TRIALS: dict[str, Any] = {
    "vae": (partial(generator_trial, spec=GeneratorSpec(config=VAE, **RUN)), generator_data, {"lr": 0.01}),
    "gan": (partial(generator_trial, spec=GeneratorSpec(config=GAN, **RUN)), generator_data, {"lr": 0.01}),
    "pretrain": (partial(layer_trial, spec=LayerSpec(layer=DENSE, **RUN)), layer_data, {"lr": 0.1}),
    "classifier": (
        partial(classifier_trial, spec=make_spec(reports=3)),
        make_data,
        {"lr": 0.01, "weight_decay": 0.01, "dropout": 0.5},
    ),
}


def make_plan(kind: str, start: Any) -> SweepPlan:
    return SweepPlan(
        name=kind,
        metric=METRICS[kind],
        space={},
        start=start,
        num_trials=2,
        num_reports=3,
        reduction_factor=2,
        max_concurrent=1,
        threads=1,
        seed=0,
    )


class Stop(BaseException):
    pass


@pytest.mark.parametrize("kind", list(TRIALS))
def test_a_trial_reports_its_metric_and_goes_on_from_its_checkpoint_with_the_same_bits(
    kind: str, tmp_path: Path
) -> None:
    function, make, values = TRIALS[kind]
    data = make()
    whole: list[Any] = []
    function(values, data, whole.append, None)
    assert len(whole) == 3
    assert all(math.isfinite(entry[METRICS[kind]]) for entry in whole)
    parts: list[Any] = []

    def stop(message: Any) -> None:
        parts.append(message)
        if len(parts) == 2:
            raise Stop

    with pytest.raises(Stop):
        function(values, data, stop, tmp_path / FIT_FILE)
    function(values, data, parts.append, tmp_path / FIT_FILE)
    assert parts == whole


@pytest.mark.parametrize("kind", list(TRIALS))
def test_after_an_exploit_the_donors_weights_train_with_the_changed_rate(kind: str, tmp_path: Path) -> None:
    """With a rate of almost nothing the donor's weights stay as they were; with its own it would have moved on."""
    function, make, values = TRIALS[kind]
    data, folder = make(), tmp_path / "donor"
    folder.mkdir()
    pasts: list[Past] = []
    plan, store = make_plan(kind, values), StepStore(str(tmp_path / "store"))

    def stop(message: Any, now: Past, before: Past) -> None:
        pasts.append(now)
        raise Stop

    with pytest.raises(Stop):
        run_steps(function, values, data, folder, Past(), plan, known={}, store=store, tell=stop)
    donor = torch.load(folder / FIT_FILE, weights_only=True)
    seen: list[Any] = []

    def look(message: Any, now: Past, before: Past) -> None:
        assert "failure" not in message, message
        if now.reports == 2:
            seen.append((torch.load(folder / FIT_FILE, weights_only=True), before))

    changed = values | {"lr": 1e-9}
    run_steps(function, changed, data, folder, pasts[0], plan, known={}, store=store, tell=look)
    (heir, before), trained = seen[0], donor["state_dict"]
    assert before == pasts[0]
    weights = {name: weight for name, weight in trained.items() if ".average." not in name}  # moves by itself
    assert all(torch.allclose(weight, heir["state_dict"][name], atol=1e-4) for name, weight in weights.items())
    rates = {
        group["initial_lr"] if "initial_lr" in group else group["lr"]
        for o in heir["optimizer_states"]
        for group in o["param_groups"]
    }
    assert rates == {1e-9}


def test_a_vaes_score_weighs_the_kl_term_fully_whatever_beta_trains_with(tmp_path: Path) -> None:
    function = partial(generator_trial, spec=GeneratorSpec(config=VAE, **RUN))
    reports: list[Any] = []
    function({"beta": 0.1}, generator_data(), reports.append, None)
    for entry in reports:
        total = entry["validation_reconstruction"] + entry["validation_kl"]
        assert entry[METRICS["vae"]] == pytest.approx(total, rel=1e-5)


def test_the_score_of_a_gan_tells_real_images_from_noise() -> None:
    data = generator_data()
    watch = frechet_watch(data, seed=0)

    class Fake(torch.nn.Module):
        def __init__(self, images: np.ndarray) -> None:
            super().__init__()
            self.images = torch.nn.Parameter(torch.from_numpy(images).float() / 255)

        def sample(self, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            return self.images[: len(labels)].detach()

    noise = np.random.default_rng(0).integers(0, 256, data.images.shape).astype(np.uint8)
    scores = [watch(Fake(images))["validation_frechet"] for images in (data.validation_images, data.images, noise)]  # type: ignore[arg-type]
    assert scores[0] == pytest.approx(0, abs=1e-6)
    assert scores[0] < scores[1] < scores[2]


def test_a_failed_trial_of_a_target_names_what_is_wrong(tmp_path: Path) -> None:
    function = partial(generator_trial, spec=GeneratorSpec(config=replace(VAE, lr=1e30), **RUN))
    told: list[Any] = []
    plan = make_plan("vae", {})
    run_steps(
        function,
        {},
        generator_data(),
        tmp_path,
        Past(),
        plan,
        known={},
        store=StepStore(str(tmp_path)),
        tell=lambda message, *_: told.append(message),
    )
    assert "diverged at step" in told[-1]["failure"]
    assert told[-1][plan.metric] == math.inf


# --- what may be swept


def test_the_shipped_spaces_are_typed_as_their_sections() -> None:
    params = load_params(PARAMS)
    tune = params.section(Tune)
    found = {
        target: target_space(tune, target, target_section(target, params.sections, params.layers))
        for target in tune.spaces
    }
    assert found["vae"] == {"lr": LogUniform(0.0005, 0.02), "latent_dim": LogRandInt(4, 32)}
    assert list_targets(params.layers)[:4] == ["classifier", "vae", "gan", "pretrain@conv1"]


def test_what_pbt_may_change_can_be_swept_and_what_is_fixed_can_not() -> None:
    for section in (VAE, GAN, DENSE):
        kinds = sweepable(section)
        assert set(LIVE[type(section)]) <= set(kinds)
        assert not set(FIXED) & set(kinds)
    assert sweepable(VAE)["latent_dim"] is int


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tune.target=vea"], r"unknown tune.target in params.yaml: 'vea'; did you mean vae\?"),
        (["tune.target=pretrain@conv3"], r"unknown tune.target .*did you mean pretrain@conv"),
        (["tune.target=pretrain@conv2"], r"tune.target must be a target with a space in tune.spaces"),
        (["tune.spaces.vea.lr.type=choice"], r"unknown target of tune.spaces .*'vea'; did you mean vae\?"),
        (["tune.spaces.vae.latnt_dim.type=choice"], r"unknown key of tune.spaces.vae .*did you mean latent_dim\?"),
        (["tune.spaces.vae.likelihood.type=choice"], r"tune.spaces.vae.likelihood cannot be swept: bounds of diff"),
        (["tune.spaces.vae.steps.type=choice"], r"tune.spaces.vae.steps cannot be swept: .* equally long"),
        (
            ["tune.spaces.vae.latent_dim.type=uniform"],
            r"tune.spaces.vae.latent_dim.type must be one that gives a whole",
        ),
        (["tune.spaces.gan.r1_weight.type=uniform", "tune.spaces.gan.r1_weight.low=-1"], r"r1_weight reaches a value"),
        (["tune.searcher=grid"], r"tune.space.lr.type must be grid or choice with searcher grid, got 'loguniform'"),
        (["tune.scheduler=pbt"], r"tune.searcher must be random with tune.scheduler pbt, got 'tpe'"),
        (["tune.scheduler=bohb", "tune.searcher=random"], r"tune.searcher must be tpe with tune.scheduler bohb"),
        (["tune.scheduler=hyperband"], r"tune.searcher must be random or grid with tune.scheduler hyperband"),
        (
            ["tune.scheduler=pbt", "tune.searcher=random", "tune.num_trials=1"],
            r"tune.num_trials must be >= 2 with tune.scheduler pbt",
        ),
        (["tune.scheduler=bohb", "tune.reports=1"], r"tune.reports must be >= 2 with tune.scheduler bohb"),
        (
            ["tune.scheduler=pbt", "tune.searcher=random", "run.launch=local"],
            r"run.launch must be ray with tune.scheduler pbt, which pauses trials",
        ),
        (
            ["tune.target=vae", "tune.scheduler=pbt", "tune.searcher=random"],
            r"a key of tune.spaces.vae must be one of lr, beta with tune.scheduler pbt.*got 'latent_dim'",
        ),
        (["tune.target=vae", "vae.steps=3"], r"tune.reports must be <= the steps of vae, got 4"),
    ],
)
def test_what_cannot_be_swept_is_an_error_that_says_why(overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_params(PARAMS, overrides)


def test_a_grid_needs_its_searcher_and_a_trial_for_each_combination(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    lists = (
        ("{type: loguniform, low: 0.0005, high: 0.02}", "{type: grid, values: [0.001, 0.01]}"),
        ("{type: lograndint, low: 4, high: 32}", "{type: choice, values: [2, 4, 8]}"),
    )
    text = PARAMS.read_text()
    for old, new in lists:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tune.spaces.vae.lr.type must be choice or a range with tune.searcher tpe"):
        load_params(path, ["tune.target=vae"])
    grid = ["tune.target=vae", "tune.searcher=grid"]
    with pytest.raises(
        ValueError, match=r"tune.num_trials must be >= 6, the combinations of tune.spaces.vae, .* got 4"
    ):
        load_params(path, grid)
    load_params(path, [*grid, "tune.num_trials=6"])
