"""Launchers: order, equality of in-process and Ray, failures by name, dead workers."""

import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
import torch

from pipeline.launch.launcher import Failure, call, measure_bytes, raise_failures
from pipeline.launch.local import LocalLauncher, limit_threads
from pipeline.launch.ray_launcher import RayLauncher
from pipeline.launch.ray_session import ENVIRONMENT, store_size
from tests.ray_settings import ray_settings


class Shared(NamedTuple):
    matrix: np.ndarray
    folder: str


def product(item: int, shared: Shared) -> np.ndarray:
    """Depends on the number of threads through the order of its sums, and on nothing else."""
    generator = torch.Generator().manual_seed(item)
    vector = torch.randn(shared.matrix.shape[1], generator=generator)
    return (torch.tensor(shared.matrix) @ vector).tanh().cumsum(0).numpy()


def describe_process(item: int, shared: Shared) -> dict[str, object]:
    return {"pid": os.getpid(), "threads": torch.get_num_threads(), "writeable": shared.matrix.flags.writeable}


def fail_on_odd(item: int, shared: Shared) -> int:
    if item == 3:
        raise RuntimeError("a bug")
    if item % 2:
        raise ValueError(f"item {item} is odd: give an even one")
    return item * 10


def die(item: int, shared: Shared) -> int:
    """Item 2 kills its process the first time, item 4 every time."""
    marker = Path(shared.folder) / f"died-{item}"
    attempts = len(marker.read_text()) if marker.exists() else 0
    if item == 4 or (item == 2 and attempts == 0):
        marker.write_text("x" * (attempts + 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return item * 10


def make_shared(folder: Path) -> Shared:
    return Shared(np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32), str(folder))


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    return make_shared(tmp_path)


def test_local_results_come_in_item_order_with_failures_in_place(shared: Shared) -> None:
    seen: list[tuple[int, int]] = []
    results = LocalLauncher().map_trials(
        fail_on_odd, [0, 1, 2, 3], shared, on_result=lambda item, result: seen.append((item, result))
    )
    assert results[0] == 0
    assert results[1] == Failure("1", "item 1 is odd: give an even one")
    assert results[2] == 20
    assert isinstance(results[3], Failure)
    assert "Traceback" in results[3].reason
    assert seen == [(0, 0), (2, 20)]


def test_local_trials_work_with_one_thread_and_give_the_others_back(shared: Shared) -> None:
    with limit_threads(2):
        (result,) = LocalLauncher().map_trials(describe_process, [0], shared)
        assert not isinstance(result, Failure)
        assert result["threads"] == 1
        assert torch.get_num_threads() == 2


def test_failures_are_raised_with_names_reasons_and_remedy() -> None:
    raise_failures([], 3, "nothing")
    with pytest.raises(ValueError, match=r"1 of 3 trials failed:\n  cdbn-100-2: diverged\nlower the rate"):
        raise_failures([Failure("cdbn-100-2", "diverged")], 3, "lower the rate")


def test_interrupts_are_not_turned_into_failures() -> None:
    def interrupt(_: int, __: None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        call(interrupt, 0, None)


def test_measured_bytes_are_those_of_the_arrays() -> None:
    array = np.zeros((1000, 7), np.float64)
    assert 56_000 <= measure_bytes({"a": array}) < 56_400
    assert store_size(0) == 256 * 2**20
    assert store_size(2**30) > 2 * 2**30


@dataclass
class RayRun:
    """What one session of Ray did; several tests look at it, because starting Ray takes seconds."""

    products: list[Any] = field(default_factory=list)
    processes: list[Any] = field(default_factory=list)
    failures: list[Any] = field(default_factory=list)
    deaths: list[Any] = field(default_factory=list)
    listening: set[str] = field(default_factory=set)
    folders: list[Path] = field(default_factory=list)
    home: Path = Path()
    environment: tuple[set[str], set[str]] = (set(), set())
    handlers: tuple[Any, Any] = (None, None)


@pytest.fixture(scope="module")
def ray_run(tmp_path_factory: pytest.TempPathFactory) -> RayRun:
    run = RayRun(home=tmp_path_factory.mktemp("home"))
    shared = make_shared(tmp_path_factory.mktemp("work"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(run.home))
        patch.setenv("RAY_ADDRESS", "10.255.255.1:6379")  # must be ignored
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # where workers find the functions above
        patch.setattr("pipeline.launch.ray_launcher.MAX_RETRIES", 1)
        environment, handler = set(os.environ), signal.getsignal(signal.SIGTERM)
        with suppress(ZeroDivisionError), RayLauncher(ray_settings()) as launcher:
            run.products = launcher.map_trials(product, range(7), shared)
            run.processes = launcher.map_trials(describe_process, range(7), shared)
            run.failures = launcher.map_trials(fail_on_odd, range(4), shared)
            run.deaths = launcher.map_trials(die, range(1, 6), shared)
            run.folders = list(Path("/tmp").glob(f"layerwise-ray-{os.getpid()}-*"))
            run.listening = {
                connection.laddr.ip.removeprefix("::ffff:")
                for process in psutil.Process().children(recursive=True)
                for connection in process.net_connections()
                if connection.status == psutil.CONN_LISTEN
            }
            raise ZeroDivisionError
        run.environment = environment, set(os.environ)
        run.handlers = handler, signal.getsignal(signal.SIGTERM)
    return run


@pytest.mark.ray
def test_ray_and_local_give_equal_bits(ray_run: RayRun, shared: Shared) -> None:
    local = LocalLauncher().map_trials(product, range(7), shared)
    assert [result.tobytes() for result in ray_run.products] == [
        result.tobytes() for result in local if not isinstance(result, Failure)
    ]


@pytest.mark.ray
def test_ray_workers_stay_warm_work_with_one_thread_and_map_the_shared_arrays(ray_run: RayRun) -> None:
    processes = {result["pid"] for result in ray_run.processes}
    assert os.getpid() not in processes
    assert len(processes) <= 2
    assert all(result["threads"] == 1 for result in ray_run.processes)
    assert not any(result["writeable"] for result in ray_run.processes), "a copy would be writeable"


@pytest.mark.ray
def test_ray_reports_failures_as_local_does(ray_run: RayRun, shared: Shared) -> None:
    local = LocalLauncher().map_trials(fail_on_odd, range(4), shared)
    assert ray_run.failures[:3] == local[:3]
    assert "RuntimeError: a bug" in ray_run.failures[3].reason


@pytest.mark.ray
def test_ray_retries_what_a_dead_worker_left_and_names_what_keeps_killing_it(ray_run: RayRun) -> None:
    assert ray_run.deaths[:3] == [10, 20, 30]
    assert ray_run.deaths[3] == Failure("4", "its worker process died 2 times; it may need more memory than there is")
    assert ray_run.deaths[4] == 50


@pytest.mark.ray
def test_ray_listens_on_loopback_only(ray_run: RayRun) -> None:
    assert ray_run.listening == {"127.0.0.1"}


@pytest.mark.ray
def test_ray_leaves_no_process_file_variable_or_handler_behind(ray_run: RayRun) -> None:
    assert len(ray_run.folders) == 1
    assert not ray_run.folders[0].exists()
    assert not list(ray_run.home.rglob("*")), "no token in the home folder"
    assert not (ray_run.environment[1] - ray_run.environment[0]) & {*ENVIRONMENT, "RAY_AUTH_TOKEN"}
    assert ray_run.handlers[0] is ray_run.handlers[1]
    names = [process.name() for process in psutil.Process().children(recursive=True)]
    assert not [name for name in names if "raylet" in name or "gcs_server" in name]
