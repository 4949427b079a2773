"""Finds and kills the processes of one Ray node, however they were started, and never another's.

Every process of a node inherits a marker in its environment. Ray's workers overwrite theirs with their title, so the
daemons' children count too, and the daemons are remembered by pid and start time.
"""

import contextlib
import time
from collections.abc import Collection, Iterator

import psutil  # type: ignore[import-untyped]

MARKER = "LAYERWISE_CLUSTER_NODE"
"""Environment variable that names the node a process belongs to."""

KILL_TIMEOUT_S = 30.0

Known = tuple[int, float]
"""Pid and start time in seconds since the epoch: together they name one process, also after its pid is used again."""


def find_processes(markers: Collection[str], known: Collection[Known] = ()) -> list[psutil.Process]:
    """Living processes with one of these markers, the known ones, and all their descendants; never this process."""
    found: dict[int, psutil.Process] = {}
    for process in _roots(markers, known):
        with contextlib.suppress(psutil.NoSuchProcess):
            for member in (process, *process.children(recursive=True)):
                found[member.pid] = member
    found.pop(psutil.Process().pid, None)
    return [process for process in found.values() if is_running(process)]


def kill_processes(markers: Collection[str], known: Collection[Known] = ()) -> None:
    """SIGKILL to all of them, again until none is left, because some start others meanwhile.

    Raises RuntimeError when one outlives 30 s of this.
    """
    remembered = set(known)
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while processes := find_processes(markers, remembered):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {[process.pid for process in processes]} do not die of SIGKILL")
        # Once a daemon is dead its workers are nobody's children.
        remembered |= identify(processes)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.05)  # psutil.wait_procs would take the exit status from whoever started them


def identify(processes: Collection[psutil.Process]) -> set[Known]:
    known: set[Known] = set()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            known.add((process.pid, process.create_time()))
    return known


def own_identity() -> Known:
    process = psutil.Process()
    return process.pid, process.create_time()


def is_running(process: psutil.Process) -> bool:
    """False for zombies too: killed, and only waiting for a parent to look at them."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_alive(known: Known) -> bool:
    return any(True for _ in _by_identity([known]))


def _roots(markers: Collection[str], known: Collection[Known]) -> Iterator[psutil.Process]:
    yield from _by_identity(known)
    for process in psutil.process_iter():
        # Other users' processes do not show their environment.
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess, OSError):
            if process.environ().get(MARKER) in markers:
                yield process


def _by_identity(known: Collection[Known]) -> Iterator[psutil.Process]:
    for pid, started in known:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < 0.05 and is_running(process):
                yield process
