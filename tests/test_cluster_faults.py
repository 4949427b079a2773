"""What a study survives on a cluster: real nodes that die and join, trials that eat the memory."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from cluster.local import LocalCluster
from pipeline.config.space import parse_space
from pipeline.launch.launcher import Failure
from pipeline.launch.ray_launcher import RayLauncher
from pipeline.launch.ray_sweep import RaySweeper
from pipeline.tuning.points import Values
from pipeline.tuning.sweep import METRIC, Recorder, Report, SweepPlan, SweptTrial
from pipeline.tuning.sweep_log import SweepLog
from tests.ray_settings import ray_settings
from tests.test_steps import make_plan as make_population
from tests.test_steps import walk

ROOT = Path(__file__).parent.parent
GIBIBYTE = 2**30


class Shared(NamedTuple):
    matrix: np.ndarray
    folder: str


def visit(item: int, shared: Shared) -> tuple[float, str]:
    """A second and a half of work; a line of the item's file for each attempt says which node it was on.

    The last trials wait until three nodes have had one.
    """
    import ray

    node, deadline = str(ray.get_runtime_context().get_node_id()), time.monotonic() + 60
    with (Path(shared.folder) / str(item)).open("a") as file:
        file.write(node + "\n")
    time.sleep(1.5)
    while item >= 20 and len(nodes_in(shared.folder)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    return float(shared.matrix.sum()) + item, node


def nodes_in(folder: str | Path) -> set[str]:
    """Those that the files of the folder name, a line each."""
    return {node for file in Path(folder).iterdir() if file.is_file() for node in file.read_text().split()}


def hoard(item: int, shared: Shared) -> int:
    """Item 1 takes memory until it is stopped; should nobody do that, 8 GiB are an end."""
    taken = []
    if item == 1:
        for _ in range(64):
            taken.append(np.ones(GIBIBYTE // 64))
            time.sleep(0.1)
    return item + len(taken)


def spill(item: int, shared: Shared) -> np.ndarray:
    """More than the object store of 80 MiB holds."""
    return np.full(150 * 2**20, item, np.uint8)


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What the nodes inherit: where the functions above are."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return monkeypatch


def join(cluster: LocalCluster, patch: pytest.MonkeyPatch, trials: int) -> RayLauncher:
    for name, value in cluster.environment.items():
        patch.setenv(name, value)
    return RayLauncher(ray_settings(f"run.address={cluster.address}", f"run.trials_at_once={trials}"))


def attempts(folder: Path, item: int) -> list[str]:
    return (folder / str(item)).read_text().split()


@pytest.mark.ray
@pytest.mark.slow
def test_a_dead_nodes_trials_run_elsewhere_and_a_new_node_gets_some(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    shared = Shared(np.ones((500, 1000), np.float32), str(tmp_path))
    finished: list[int] = []

    def runs_a_trial(name: str) -> bool:
        import ray

        (node,) = [node["NodeID"] for node in ray.nodes() if node["NodeName"] == name]
        started = {item for item in range(24) if (tmp_path / str(item)).exists()}
        return any(node in attempts(tmp_path, item) for item in started - set(finished))

    with LocalCluster(nodes=2, cpus=1, state_folder=tmp_path / "state") as cluster:

        def disturb(item: int, _: Any) -> None:
            finished.append(item)
            doomed = cluster.nodes[1]
            if len(finished) >= 2 and not doomed.killed and runs_a_trial(doomed.name):
                cluster.kill_node(1)
                cluster.add_node(cpus=1)

        with join(cluster, patch, trials=2) as launcher:
            results = launcher.map_trials(visit, range(24), shared, on_result=disturb)
    assert [result for result in results if isinstance(result, Failure)] == []
    assert [value for value, _ in results] == [500_000.0 + item for item in range(24)]  # type: ignore[misc]
    nodes = {node for item in range(24) for node in attempts(tmp_path, item)}
    assert len(nodes) == 3, "the head, the dead one and the new one"
    repeated = [item for item in range(24) if len(attempts(tmp_path, item)) > 1]
    assert len(repeated) == 1, "the trial that ran on the node when it died"
    first, *_, last = attempts(tmp_path, repeated[0])
    assert first != last


def climb(values: Values, shared: Any, report: Report, checkpoint: Path | None) -> None:
    """Four reports, half a second each; notes on which node. The first trials wait for a second node to have one."""
    import ray

    node, deadline = str(ray.get_runtime_context().get_node_id()), time.monotonic() + 60
    with (Path(shared) / f"{values['lr']:.12f}").open("a") as file:
        file.write(node + "\n")
    while len(nodes_in(shared)) < 2:
        assert time.monotonic() < deadline, "all trials ran on one node"
        time.sleep(0.1)
    for step in range(1, 5):
        time.sleep(0.5)
        with (Path(shared) / f"{values['lr']:.12f}").open("a") as file:
            file.write(node + "\n")
        report({METRIC: abs(values["lr"] - 0.3) + 1 / step})


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_loses_no_trial_when_a_node_dies(tmp_path: Path, patch: pytest.MonkeyPatch) -> None:
    plan = SweepPlan(
        name="climb",
        space=parse_space({"lr": {"type": "uniform", "low": 0.01, "high": 1.0}}),
        start={"lr": 0.5},
        num_trials=24,
        num_reports=4,
        reduction_factor=4,
        max_concurrent=2,
        threads=1,
        seed=3,
    )
    notes = tmp_path / "notes"
    notes.mkdir()
    with LocalCluster(nodes=2, cpus=1, state_folder=tmp_path / "state") as cluster:
        heard = 0

        def disturb(trial: SweptTrial) -> None:
            nonlocal heard
            heard += 1
            if heard >= 6 and len(nodes_in(notes)) == 2 and not cluster.nodes[1].killed:
                cluster.kill_node(1)

        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        settings = ray_settings(f"run.address={cluster.address}", f"run.storage={tmp_path / 'storage'}")
        with RaySweeper(settings) as sweeper:
            trials = sweeper.sweep(plan, climb, str(notes), Recorder(SweepLog(tmp_path / "log"), disturb))
        assert cluster.nodes[1].killed
    assert [trial.number for trial in trials] == list(range(24))
    assert [trial.failure for trial in trials] == [""] * 24
    assert {trial.status(plan) for trial in trials} <= {"completed", "stopped"}
    moved = [file for file in notes.iterdir() if len(set(file.read_text().split())) == 2]
    assert len(moved) == 1, "the trial that ran on the node when it died"
    assert not any((tmp_path / "storage").iterdir())


@pytest.mark.ray
@pytest.mark.slow
def test_an_interrupted_population_on_a_cluster_goes_on_from_the_storage(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    storage, plan, heard = tmp_path / "storage", make_population(), 0

    def interrupt(_: SweptTrial) -> None:
        nonlocal heard
        heard += 1
        if heard == 7:
            raise KeyboardInterrupt

    with LocalCluster(nodes=2, cpus=1, state_folder=tmp_path / "state") as cluster:
        for name, value in cluster.environment.items():
            patch.setenv(name, value)
        settings = ray_settings(f"run.address={cluster.address}", f"run.storage={storage}")

        def sweep(name: str, on_report: Callable[[SweptTrial], None] | None = None) -> list[SweptTrial]:
            (tmp_path / name).mkdir(exist_ok=True)
            with RaySweeper(settings) as sweeper:
                return sweeper.sweep(
                    plan, walk, str(tmp_path / name), Recorder(SweepLog(tmp_path / f"{name}-log"), on_report)
                )

        with pytest.raises(KeyboardInterrupt):
            sweep("interrupted", interrupt)
        kept = list(storage.glob("steps-*/*.ckpt"))
        before = count_updates(tmp_path / "interrupted")
        assert sweep("interrupted") == sweep("undisturbed")
    assert len(kept) >= 4
    assert not list((tmp_path / "interrupted-log").rglob("*.ckpt"))
    assert not list(storage.glob("steps-*"))
    trained = count_updates(tmp_path / "interrupted") - before
    assert trained <= count_updates(tmp_path / "undisturbed") - 6 + 2, "only what was lost is trained again"


def count_updates(folder: Path) -> int:
    return len((folder / "updates").read_text().splitlines())


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_eats_the_memory_fails_with_the_reason_and_the_others_finish(
    tmp_path: Path, patch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()
    limit = (memory.total - memory.available + 3 * GIBIBYTE) / memory.total
    patch.setenv("RAY_memory_usage_threshold", f"{limit:.3f}")
    patch.setenv("RAY_memory_monitor_refresh_ms", "100")
    patch.setattr("pipeline.launch.ray_launcher.MAX_RETRIES", 0)
    store = 80 * 2**20
    with (
        LocalCluster(nodes=1, cpus=1, object_store_memory=store, state_folder=tmp_path / "state") as cluster,
        join(cluster, patch, trials=1) as launcher,
    ):
        spilled = launcher.map_trials(spill, range(2), Shared(np.ones(10), ""))
        results = launcher.map_trials(hoard, range(3), Shared(np.ones(10), str(tmp_path)))
    assert [(len(result), int(result[-1])) for result in spilled] == [(150 * 2**20, 0), (150 * 2**20, 1)]  # type: ignore[arg-type, index]
    assert [results[0], results[2]] == [0, 2]
    assert isinstance(results[1], Failure)
    assert "its worker process died once; Ray killed it because its node ran out of memory" in results[1].reason


@pytest.mark.ray
def test_a_cluster_that_does_not_answer_is_an_error_with_the_remedy(patch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
        patch.delenv(name, raising=False)
    assert "RAY_ADDRESS" not in os.environ
    with socket.socket() as taken:  # auto would find what other tests have started
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    launcher = RayLauncher(ray_settings(f"run.address={address}"))
    with launcher, pytest.raises(ValueError, match=rf"no Ray cluster answers at run.address {address} .*: start one"):
        launcher.map_trials(visit, [0], Shared(np.ones(3), ""))
