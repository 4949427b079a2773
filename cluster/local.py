"""Several Ray nodes on this machine, to rehearse on: `python -m cluster.local up | status | down`.

Every node is a `ray start` of its own, bound to 127.0.0.1, behind a token, in a folder that goes when the cluster goes.
Other Ray instances on the machine are neither seen nor touched.
"""

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from cluster.processes import MARKER, find_processes, identify, kill_processes, own_identity
from cluster.state import (
    NODE_ENVIRONMENT,
    STATE,
    Node,
    State,
    driver_environment,
    read_states,
    remove_abandoned,
    remove_cluster,
    token_file,
)
from pipeline.launch.ray_session import MAX_TEMP_LENGTH, MEBIBYTE, process_token

HOST = "127.0.0.1"
ATTEMPTS = 3
"""Ray gives up after 30 s, which a machine that is busy with other things can need."""

START_TIMEOUT_S = 120
LEAST_OBJECT_STORE = 80 * MEBIBYTE
"""Ray refuses less than 75 MB."""

INHERITED_SETTINGS = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_TMPDIR", "RAY_NAMESPACE", "RAY_JOB_CONFIG_JSON_ENV_VAR")
"""Of another Ray, if they are set."""


class LocalCluster:
    """A Ray cluster on 127.0.0.1 for a `with` block: node 0 is the head, the others join it.

    Nodes have `cpus` slots each, which need not match the cores, and `object_store_memory` bytes.
    A driver, which may be this process, needs `environment` in os.environ before it imports ray.
    Raises ValueError when Ray does not start.
    """

    def __init__(
        self,
        nodes: int = 2,
        cpus: int = 1,
        *,
        object_store_memory: int = 128 * MEBIBYTE,
        dashboard: bool = False,
        keep: bool = False,
        state_folder: Path = STATE,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"nodes must be >= 1, got {nodes}: the first one is the head")
        if object_store_memory < LEAST_OBJECT_STORE:
            raise ValueError(f"object_store_memory must be >= {LEAST_OBJECT_STORE} bytes, got {object_store_memory}")
        self._num_nodes, self._cpus, self._store, self._dashboard = nodes, cpus, object_store_memory, dashboard
        folder = _new_folder()
        self._state = State(str(folder), own_identity(), keep)
        self._file = state_folder.absolute() / f"{folder.name}.json"

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All that were ever started, by index."""
        return self._state.nodes

    @property
    def address(self) -> str:
        """host:port of the head."""
        return self._state.address

    @property
    def dashboard_url(self) -> str:
        """http://127.0.0.1:port, for Ray's Job Submission; empty without a dashboard."""
        return self._state.dashboard

    @property
    def environment(self) -> dict[str, str]:
        """What a driver on this machine needs; names the file that holds the token, not the token."""
        return driver_environment(self._state)

    def __enter__(self) -> Self:
        try:
            remove_abandoned(self._file.parent)
            token = token_file(self._state)
            token.touch(mode=0o600)
            token.write_text(process_token())
            for _ in range(self._num_nodes):
                self.add_node(self._cpus)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def add_node(self, cpus: int = 1) -> Node:
        """Starts one more node and waits until its daemons run; it joins within seconds."""
        index = len(self.nodes)
        node = Node(index, f"{Path(self._state.folder).name}-{index}")
        self._remember(node)
        for attempt in range(1, ATTEMPTS + 1):
            log = Path(self._state.folder) / f"{index}.{attempt}.log"
            if self._start(node, cpus, log):
                break
            kill_processes([node.name])
        else:
            raise ValueError(
                f"Ray node {index} did not start on this machine: free memory and space in /dev/shm and {log.parent}.\n"
                + "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            )
        node = replace(node, known=tuple(identify(find_processes([node.name]))))
        self._remember(node)
        return node

    def kill_node(self, index: int) -> None:
        """SIGKILL for every process of a node, as if its machine had died; Ray notices after about 5 s."""
        node = self.nodes[index]
        kill_processes([node.name], node.known)
        self._remember(replace(node, killed=True))

    def stop(self) -> None:
        """Leaves no process, no folder and no state file; called twice it does nothing."""
        remove_cluster(self._state)
        self._file.unlink(missing_ok=True)

    def _remember(self, node: Node) -> None:
        self._state = replace(self._state, nodes=(*self.nodes[: node.index], node, *self.nodes[node.index + 1 :]))
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".part")
        draft.write_text(json.dumps(asdict(self._state), indent=1))
        draft.replace(self._file)

    def _start(self, node: Node, cpus: int, log: Path) -> bool:
        if node.index == 0:
            port, dashboard_port = free_port(), free_port()
            place = [
                "--head",
                f"--port={port}",
                f"--ray-client-server-port={free_port()}",
                f"--include-dashboard={self._dashboard}",
            ]
            place += [f"--dashboard-host={HOST}", f"--dashboard-port={dashboard_port}"]
            dashboard = f"http://{HOST}:{dashboard_port}" if self._dashboard else ""
            self._state = replace(self._state, address=f"{HOST}:{port}", dashboard=dashboard)
        else:
            place = [f"--address={self.address}"]
        command = [
            *(sys.executable, "-m", "cluster.loopback_start", *place),
            f"--node-ip-address={HOST}",
            f"--node-name={node.name}",
            f"--num-cpus={cpus}",
            "--num-gpus=0",
            f"--object-store-memory={self._store}",
            "--dashboard-agent-listen-port=0",  # its default is one port for all
            f"--temp-dir={log.with_suffix('')}",
            "--disable-usage-stats",
        ]
        return _run(command, node_environment(self._state, node), log)


def node_environment(state: State, node: Node) -> dict[str, str]:
    """For the daemons of a node, and so for its workers."""
    kept = {name: value for name, value in os.environ.items() if name not in INHERITED_SETTINGS}
    own = {"RAY_AUTH_TOKEN_PATH": str(token_file(state)), MARKER: node.name}
    # Jobs call `python` and `dvc`.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return kept | NODE_ENVIRONMENT | own | {"PATH": path}


def _run(command: list[str], environment: Mapping[str, str], log: Path) -> bool:
    """In a session of its own, so that Ctrl-C in the caller's terminal does not reach the daemons."""
    with log.open("w") as output:
        try:
            done = subprocess.run(
                command,
                env=environment,
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                timeout=START_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _new_folder() -> Path:
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > MAX_TEMP_LENGTH:  # Ray's unix sockets lie deep below it
        parent = Path("/tmp")
    return Path(tempfile.mkdtemp(prefix="lwc-", dir=parent))


def up(nodes: int, cpus: int, dashboard: bool) -> None:
    """Starts a cluster that stays until `down`, and prints what a shell needs to use it."""
    if any(state.keep for state in read_states().values()):
        raise ValueError("a cluster of this checkout is up: stop it with `python -m cluster.local down` first")
    LocalCluster(nodes, cpus, dashboard=dashboard, keep=True).__enter__()
    status()


def status() -> None:
    for state in read_states().values():
        print(f"# Ray at {state.address}" + (f", dashboard and jobs at {state.dashboard}" if state.dashboard else ""))
        for node in state.nodes:
            running = len(find_processes([node.name], node.known))
            print(f"# node {node.index}: " + (f"{running} processes" if running else "dead"))
        print("unset RAY_AUTH_TOKEN")  # it would take the place of the file
        for name, value in driver_environment(state).items():
            print(f"export {name}={shlex.quote(value)}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m cluster.local", description="Ray nodes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start a cluster and print the exports a driver needs")
    start.add_argument("--nodes", type=int, default=2, help="the first one is the head (default: 2)")
    start.add_argument("--cpus", type=int, default=2, help="slots of each node (default: 2, a shipped trial of tune)")
    start.add_argument("--dashboard", action="store_true", help="what `python -m cluster.submit local` needs")
    commands.add_parser("down", help="stop it, and what crashed runs left behind")
    commands.add_parser("status", help="print it again")
    given = parser.parse_args(arguments)
    try:
        if given.command == "up":
            up(given.nodes, given.cpus, given.dashboard)
        elif given.command == "down":
            remove_abandoned(kept_too=True)
        else:
            status()
    except ValueError as error:
        sys.exit(f"cluster.local: {error}")


if __name__ == "__main__":
    main()
