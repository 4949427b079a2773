"""One writer at a time, and no orphan: what keeps a killed pipeline from corrupting its outs."""

import ctypes
import fcntl
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PR_SET_PDEATHSIG = 1


@contextmanager
def only_writer(path: Path, what: str) -> Iterator[None]:
    """Holds an exclusive lock on `path` for the block; the kernel releases it however the process ends.

    Raises ValueError naming the holder's process id when another process has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.seek(0)
            holder = handle.read().strip() or "unknown"
            raise ValueError(f"{what} is already running here (process {holder}): wait for it or stop it") from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


def die_with_dvc() -> None:
    """Ends this process when the `dvc` that started it dies, so that a killed dvc leaves no second writer. Linux only.

    The parent may be a shell between dvc and us, so both are watched: the parent by the kernel's death signal, and
    every ancestor up to dvc by a thread that waits on its process descriptor.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    ancestor = os.getppid()
    while ancestor > 1:
        if _is_dvc(ancestor):
            _watch(ancestor)
            return
        ancestor = _parent_of(ancestor)


def _watch(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # it has ended between the look and the open: the death signal has us
        return

    def wait() -> None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="dvc-watch", daemon=True).start()


def _is_dvc(pid: int) -> bool:
    words = _proc(pid, "cmdline").split("\0")
    return any(Path(word).name == "dvc" or word == "dvc" for word in words[:3])


def _parent_of(pid: int) -> int:
    for line in _proc(pid, "status").splitlines():
        if line.startswith("PPid:"):
            return int(line.split()[1])
    return 0


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""
