"""The local cluster: real nodes that die and join, a token that is asked for, loopback only, nothing left behind."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from cluster import local
from cluster.local import LocalCluster
from cluster.processes import find_processes, is_alive, kill_processes, own_identity
from cluster.state import Node, State, read_states, remove_abandoned

DRIVER = """
import json, sys, time
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
expected, deadline = int(sys.argv[1]), time.monotonic() + 300
while len(alive := [node for node in ray.nodes() if node["Alive"]]) != expected and time.monotonic() < deadline:
    time.sleep(0.2)
where = ray.remote(lambda: ray.get_runtime_context().get_node_id())
ran = {
    node["NodeName"]: node["NodeID"]
    == ray.get(where.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote())
    for node in alive
}
print(json.dumps({"ran": ran, "dead": [node["NodeName"] for node in ray.nodes() if not node["Alive"]]}))
"""


def drive(cluster: LocalCluster, expected: int, **changed: str) -> subprocess.CompletedProcess[str]:
    """A driver that waits for a number of living nodes and runs a task on each."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-c", DRIVER, str(expected)],
        env=inherited | cluster.environment | changed,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def report(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    """The last line: Ray prints a notice about dead nodes before it."""
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(nodes=2, cpus=1, state_folder=tmp_path_factory.mktemp("state")) as cluster:
        yield cluster


@pytest.mark.ray
def test_tasks_run_on_each_node(cluster: LocalCluster) -> None:
    assert report(drive(cluster, 2)) == {"ran": {node.name: True for node in cluster.nodes}, "dead": []}


def connections_of(process: psutil.Process) -> list[Any]:
    try:
        return list(process.net_connections())
    except psutil.NoSuchProcess:  # Ray's helpers come and go
        return []


@pytest.mark.ray
def test_every_port_is_bound_to_loopback(cluster: LocalCluster) -> None:
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in find_processes([node.name for node in cluster.nodes])
        for connection in connections_of(process)
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}


@pytest.mark.ray
def test_another_token_is_refused(cluster: LocalCluster, tmp_path: Path) -> None:
    other = tmp_path / "token"
    other.write_text("b" * 64)
    done = drive(cluster, 2, RAY_AUTH_TOKEN_PATH=str(other))
    assert done.returncode != 0
    assert done.stdout == ""


@pytest.mark.ray
def test_the_token_lies_in_one_file_that_only_its_owner_can_read(cluster: LocalCluster) -> None:
    file = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    token = file.read_text()
    assert len(token) >= 64
    assert token not in cluster._file.read_text()
    commands = [" ".join(process.cmdline()) for process in find_processes([node.name for node in cluster.nodes])]
    assert not [command for command in commands if token in command]
    assert token not in "".join(log.read_text() for log in file.parent.glob("*.log"))


@pytest.mark.ray
def test_a_killed_node_is_dead_for_ray_and_another_can_join(cluster: LocalCluster) -> None:
    cluster.kill_node(1)
    assert not find_processes([cluster.nodes[1].name], cluster.nodes[1].known)
    assert cluster.nodes[1].killed
    assert report(drive(cluster, 1)) == {
        "ran": {cluster.nodes[0].name: True},
        "dead": [cluster.nodes[1].name],
    }
    added = cluster.add_node(cpus=1)
    assert added.index == 2
    assert report(drive(cluster, 2))["ran"] == {cluster.nodes[0].name: True, added.name: True}


@pytest.mark.ray
def test_nothing_is_left_when_the_block_fails(tmp_path: Path) -> None:
    with suppress(ZeroDivisionError), LocalCluster(nodes=1, state_folder=tmp_path) as cluster:
        folder = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).parent
        names = [node.name for node in cluster.nodes]
        assert find_processes(names)
        assert len(read_states(tmp_path)) == 1
        raise ZeroDivisionError
    assert not find_processes(names, [known for node in cluster.nodes for known in node.known])
    assert not folder.exists()
    assert not list(tmp_path.iterdir())


@pytest.mark.ray
def test_a_cluster_whose_process_was_killed_is_removed_by_the_next_one(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal\nfrom cluster.local import LocalCluster\n"
        f"LocalCluster(nodes=1, state_folder=pathlib.Path({str(tmp_path)!r})).__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=600, check=False)
    (state,) = read_states(tmp_path).values()
    names, known = [node.name for node in state.nodes], [known for node in state.nodes for known in node.known]
    assert find_processes(names, known)
    assert remove_abandoned(tmp_path) == 1
    assert not find_processes(names, known)
    assert not Path(state.folder).exists()


def test_processes_are_found_by_their_marker_and_with_their_children_and_no_others() -> None:
    code = "import subprocess; subprocess.Popen(['env', '-i', 'sleep', '60']); print(flush=True); input()"
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"LAYERWISE_CLUSTER_NODE": name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("test-a", "test-b")
    }
    for process in processes.values():
        assert process.stdout is not None
        process.stdout.readline()
    assert len(find_processes(["test-a"])) == 2, "the child has no marker"
    kill_processes(["test-a"])
    assert processes["test-a"].wait() == -9
    assert len(find_processes(["test-b"])) == 2
    kill_processes(["test-b"])
    processes["test-b"].wait()
    for process in processes.values():
        process.communicate()


def test_a_pid_that_is_used_again_is_another_process() -> None:
    pid, started = own_identity()
    assert is_alive((pid, started))
    assert not is_alive((pid, started - 60))


def test_a_cluster_in_use_is_not_abandoned_and_a_kept_one_only_when_asked(tmp_path: Path) -> None:
    mine, (pid, started) = LocalCluster(state_folder=tmp_path), own_identity()
    mine._remember(Node(0, "test-mine"))
    kept = LocalCluster(state_folder=tmp_path, keep=True)
    kept._state = State(kept._state.folder, (pid, started - 60), keep=True)
    kept._remember(Node(0, "test-kept"))
    assert remove_abandoned(tmp_path) == 0
    assert remove_abandoned(tmp_path, kept_too=True) == 1
    assert [state.nodes[0].name for state in read_states(tmp_path).values()] == ["test-mine"]
    mine.stop()
    assert not read_states(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"nodes": 0}, "nodes must be >= 1, got 0"), ({"object_store_memory": 1000}, "object_store_memory must be >= ")],
)
def test_sizes_that_ray_would_refuse_are_named(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LocalCluster(**arguments)  # type: ignore[arg-type]


def test_a_second_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "read_states", lambda: {Path("a.json"): State("/tmp/lwc-none", (1, 0.0), keep=True)})
    with pytest.raises(SystemExit, match=r"is up: stop it with `python -m cluster\.local down` first"):
        local.main(["up"])
