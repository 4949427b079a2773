"""What a cluster on this machine consists of, on disk, so that it can be stopped also after a crash."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.processes import Known, is_alive, kill_processes
from pipeline import paths
from pipeline.launch.ray_session import ENVIRONMENT

STATE = paths.WORK / "cluster"
"""One json file per cluster that this checkout started. Holds no token."""

NODE_ENVIRONMENT = ENVIRONMENT | {
    "RAY_health_check_period_ms": "1000",  # a dead node is noticed after 5 s; the default takes 15
}


@dataclass(frozen=True)
class Node:
    index: int
    """0 is the head."""
    name: str
    """`NodeName` in ray.nodes()."""
    known: tuple[Known, ...] = ()
    """Its daemons."""
    killed: bool = False


@dataclass(frozen=True)
class State:
    """A cluster as its file tells it."""

    folder: str
    owner: Known
    keep: bool
    """Outlives the process that started it."""
    nodes: tuple[Node, ...] = ()
    address: str = ""
    dashboard: str = ""


def token_file(state: State) -> Path:
    return Path(state.folder) / "token"


def driver_environment(state: State) -> dict[str, str]:
    address = {"RAY_ADDRESS": state.address} if state.address else {}
    return NODE_ENVIRONMENT | {"RAY_AUTH_TOKEN_PATH": str(token_file(state))} | address


def read_states(folder: Path = STATE) -> dict[Path, State]:
    """Clusters that this checkout started and has not stopped."""
    return {file: _parse(json.loads(file.read_text())) for file in sorted(folder.glob("*.json"))}


def _parse(content: dict[str, Any]) -> State:
    nodes = tuple(
        Node(node["index"], node["name"], tuple((pid, start) for pid, start in node["known"]), node["killed"])
        for node in content["nodes"]
    )
    pid, started = content["owner"]
    return State(**content | {"nodes": nodes, "owner": (pid, started)})


def remove_cluster(state: State) -> None:
    kill_processes([node.name for node in state.nodes], [known for node in state.nodes for known in node.known])
    shutil.rmtree(state.folder, ignore_errors=True)


def remove_abandoned(folder: Path = STATE, *, kept_too: bool = False) -> int:
    """Stops clusters whose process died before it could, with kept_too also those meant to outlive it; their number."""
    gone = {
        file: state
        for file, state in read_states(folder).items()
        if (kept_too if state.keep else not is_alive(state.owner))
    }
    for file, state in gone.items():
        remove_cluster(state)
        file.unlink(missing_ok=True)
    return len(gone)
