"""Ray Train: several workers give the model of one, a killed worker changes nothing, errors come back as messages."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from pipeline.device import run_accelerator
from pipeline.launch.choose import open_fits, open_fitter
from pipeline.launch.launcher import OnEpoch
from pipeline.launch.ray_workers import storage_path
from pipeline.training.fit import fit
from pipeline.training.workers import current_shard
from tests.ray_settings import ray_settings
from tests.worker_fits import make_images, make_model, make_plan, make_stream


class Shared(NamedTuple):
    images: np.ndarray
    folder: str


def train(item: str, shared: Shared, on_epoch: OnEpoch) -> dict[str, Any]:
    """A small classifier. "killed": worker 1 dies in its third epoch, once. "diverges": worker 1 raises an error."""
    model, shard = make_model("classifier"), current_shard()
    epochs = 0

    def measure(*_: object) -> dict[str, float]:
        nonlocal epochs
        epochs += 1
        if item == "driver":  # slow enough for its driver to be killed in the middle
            time.sleep(1)
        marker = Path(shared.folder) / f"{item}-{shard.rank}"
        if item == "killed" and shard.rank == 1 and epochs == 3 and not marker.exists():
            marker.touch()
            time.sleep(3)  # a checkpoint counts once Ray Train's controller, which looks each second, has heard of it
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "diverges" and shard.rank == 1 and epochs == 2:
            raise ValueError("training diverged at step 4: lower the learning rate")
        return {}

    plan = make_plan(steps=12, steps_per_epoch=2)
    history = fit(model, make_stream(augmented=True), plan, measure=measure, on_epoch=on_epoch)
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return {"history": history, "state": state, "size": shard.size, "attempt_epochs": epochs, "pid": os.getpid()}


DRIVER = """
import sys
from pipeline.device import run_accelerator
from pipeline.launch.choose import open_fitter
from tests.test_ray_workers import Shared, make_images, train
from tests.ray_settings import ray_settings

storage, folder = sys.argv[1:]
settings = ray_settings("run.workers=2", f"run.storage={storage}", "run.trials_at_once=1")
with open_fitter(settings, "test") as fitter:
    fitter(train, "driver", Shared(make_images()[0].numpy(), folder), lambda step, _: print(step, flush=True))
"""


def kill_driver(storage: str, folder: str) -> None:
    """The process that waits for a fit dies in its fourth epoch."""
    command = [sys.executable, "-c", DRIVER, storage, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "6":
                break
        process.kill()
    assert process.returncode == -signal.SIGKILL


def train_quietly(item: str, shared: Shared) -> dict[str, Any]:
    return train(item, shared, lambda *_: None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One session of Ray for all tests: starting it takes seconds."""
    folder = tmp_path_factory.mktemp("workers")
    shared = Shared(make_images()[0].numpy(), str(folder))
    settings = ray_settings("run.workers=2", f"run.storage={folder / 'storage'}", "run.trials_at_once=1")
    heard: list[int] = []
    runs: dict[str, Any] = {"heard": heard, "storage": folder / "storage"}
    with open_fitter(ray_settings(), "here") as fitter:
        torch.set_num_threads(1)
        runs["one"] = fitter(train, "one", shared, lambda *_: None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        with open_fitter(settings, "test") as fitter:
            runs["killed"] = fitter(train, "killed", shared, lambda step, _: heard.append(step))
            with pytest.raises(ValueError, match="diverges: training diverged at step 4") as failure:
                fitter(train, "diverges", shared, lambda *_: None)
            runs["message"] = str(failure.value)
        kill_driver(settings.storage, str(folder))
        with open_fitter(settings, "test") as fitter:
            runs["driver"] = fitter(train, "driver", shared, lambda *_: None)
        with open_fits(settings, "map") as launcher:
            (runs["two"],) = launcher.map_trials(train_quietly, ["two"], shared)
    return runs


@pytest.mark.ray
@pytest.mark.slow
def test_trials_that_are_mapped_have_several_workers_each_and_give_the_model_of_one(runs: dict[str, Any]) -> None:
    assert runs["one"]["size"] == 1
    assert runs["two"]["size"] == 2
    assert runs["two"]["pid"] != os.getpid()
    for name, array in runs["one"]["state"].items():
        np.testing.assert_allclose(runs["two"]["state"][name], array, rtol=5e-4, atol=5e-4)


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_worker_changes_nothing(runs: dict[str, Any]) -> None:
    """It is replaced, the fit goes on from its checkpoint, and ends with the same bits."""
    assert runs["killed"]["attempt_epochs"] < 6, "it began again from the start"
    assert runs["killed"]["history"] == runs["two"]["history"]
    for name, array in runs["two"]["state"].items():
        assert runs["killed"]["state"][name].tobytes() == array.tobytes(), name


@pytest.mark.ray
@pytest.mark.slow
def test_a_fit_whose_driver_was_killed_goes_on(runs: dict[str, Any]) -> None:
    assert runs["driver"]["attempt_epochs"] < 6, "it began again from the start"
    for name, array in runs["two"]["state"].items():
        assert runs["driver"]["state"][name].tobytes() == array.tobytes(), name


@pytest.mark.ray
@pytest.mark.slow
def test_progress_is_told_where_the_fit_was_started(runs: dict[str, Any]) -> None:
    assert sorted(set(runs["heard"])) == [2, 4, 6, 8, 10, 12]


@pytest.mark.ray
@pytest.mark.slow
def test_an_error_on_one_worker_stops_all_with_its_message(runs: dict[str, Any]) -> None:
    assert runs["message"].splitlines()[0] == "diverges: training diverged at step 4: lower the learning rate"
    assert "Traceback" not in runs["message"]


@pytest.mark.ray
@pytest.mark.slow
def test_finished_fits_leave_nothing_in_storage(runs: dict[str, Any]) -> None:
    assert [path.name for path in runs["storage"].iterdir()] == []


def test_a_folder_of_storage_becomes_absolute_and_a_url_stays() -> None:
    assert storage_path("s3://bucket/folder") == "s3://bucket/folder"
    assert storage_path("here") == str(Path.cwd() / "here")


def test_workers_with_gpus_need_none_where_the_stage_runs() -> None:
    assert run_accelerator(ray_settings("run.accelerator=gpu", "run.gpus_per_worker=0.5")) == "gpu"
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"run.accelerator is gpu but torch finds no GPU"):
            run_accelerator(ray_settings("run.accelerator=gpu"))
