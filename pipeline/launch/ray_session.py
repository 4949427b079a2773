"""A local Ray, started quietly, bound to loopback, and stopped however the block ends.

Imports ray inside its functions: several of Ray's settings are read from the environment when it is imported.
"""

import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pipeline
from pipeline.config.run import Run

MEBIBYTE = 2**20
PREFIX = "layerwise-ray-"
MAX_TEMP_LENGTH = 40
"""Ray puts unix sockets some 60 characters below its folder, and the kernel allows 107 in all."""

KNOCK_S = 10.0
"""How long a cluster may take to accept a connection."""

ATTEMPTS = 3
"""Ray gives up after 30 s, which a machine that is busy with other things can need."""

CLUSTER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a FutureWarning, and leaves the GPUs visible to workers
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # a lost worker is noticed at the next check; the default is 2 s
    "RAY_TRAIN_METRICS_ENABLED": "0",  # for Ray's dashboard
    "RAY_AIR_NEW_OUTPUT": "0",  # the new output engine prints its tables even at verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's handler turns Ctrl-C into "return what there is"
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # failed trials are reported by us, once
    "TUNE_RESULT_BUFFER_LENGTH": "1",  # a trial must not run on while ASHA still thinks about its last report
    "OMP_WAIT_POLICY": "PASSIVE",  # idle OpenMP threads of one worker must not spin beside another
}
"""What makes Ray quiet and exact, wherever it runs."""

ENVIRONMENT = CLUSTER_ENVIRONMENT | {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on Linux this binds every port to 127.0.0.1 instead of to all
    "RAY_AUTH_MODE": "token",
    **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
}
"""The same for a Ray that never leaves this machine."""

ADDRESS_VARIABLE = "LAYERWISE_RAY_ADDRESS"
"""Takes the place of run.address, so that a submitted job finds its cluster with unchanged parameters."""


@contextmanager
def open_ray(run: Run, num_cpus: int, shared_bytes: int = 0) -> Iterator[Path]:
    """The cluster at run.address, or a Ray of its own on this machine, for the block; yields a scratch folder.

    num_cpus, shared_bytes: see `local_ray`; a cluster has the size it has.
    """
    address = cluster_address(run)
    if address is None:
        with local_ray(num_cpus, shared_bytes, with_gpus=run.gpus_per_worker > 0) as folder:
            yield folder
    else:
        with joined_ray(address) as folder:
            yield folder


def cluster_address(run: Run) -> str | None:
    """Of the cluster to join; None for a Ray of its own."""
    return os.environ.get(ADDRESS_VARIABLE) or run.address


@contextmanager
def joined_ray(address: str) -> Iterator[Path]:
    """Joins the cluster at `address` for the block, bringing this project's code; yields a scratch folder.

    Raises ValueError when it can't be reached.
    """
    with ray_environment(CLUSTER_ENVIRONMENT, token=False), _temporary_folder() as folder, _own_signal_handlers():
        import ray

        inside_a_job = "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ  # its working_dir is on every node already
        code = {} if inside_a_job else {"py_modules": [str(Path(pipeline.__file__).parent)]}
        try:
            _join(address, {**code, "env_vars": dict(CLUSTER_ENVIRONMENT)})
            ray._private.worker._worker_logs_enabled = False
            yield folder
        finally:
            ray.shutdown()
            ray._private.worker._worker_logs_enabled = True


def _join(address: str, runtime_env: dict[str, Any]) -> None:
    import ray

    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, runtime_env=runtime_env)
    except ConnectionError as error:
        raise ValueError(
            f"no Ray cluster answers at run.address {address} ({_first_line(error)}): start one, or see that "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) are set here to the cluster's token"
        ) from error


def _knock(address: str) -> None:
    """Raises ConnectionError where nobody listens: Ray itself would try for minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
        except OSError as error:  # refused, no such host, no route, no answer in time
            raise ConnectionError(str(error)) from error


@contextmanager
def local_ray(num_cpus: int, shared_bytes: int = 0, *, with_gpus: bool = False) -> Iterator[Path]:
    """Starts a Ray of its own on this machine for the block; yields a folder that is removed with it.

    num_cpus: slots for workers, which need not match the cores; shared_bytes: size of the data that workers share.
    Raises ValueError when Ray does not start.
    """
    with ray_environment(ENVIRONMENT), _outside_any_job(), _temporary_folder() as folder, _own_signal_handlers():
        import ray

        try:
            _init(num_cpus, shared_bytes, folder, None if with_gpus else 0)
            # Ray prints a paragraph for each worker that dies, whatever log_to_driver says; ours is a line.
            ray._private.worker._worker_logs_enabled = False
            yield folder
        finally:
            ray.shutdown()
            ray._private.worker._worker_logs_enabled = True


def _init(num_cpus: int, shared_bytes: int, folder: Path, num_gpus: int | None) -> None:
    import ray

    for attempt in range(1, ATTEMPTS + 1):
        try:
            ray.init(
                address="local",  # never join a cluster that RAY_ADDRESS happens to name
                num_cpus=num_cpus,
                num_gpus=num_gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                object_store_memory=store_size(shared_bytes),
                _temp_dir=str(folder / str(attempt)),
            )
        except Exception as error:  # when its processes are slow to start, Ray raises just that
            ray.shutdown()
            if attempt == ATTEMPTS:
                raise ValueError(
                    f"Ray did not start on this machine ({_first_line(error)}): free memory and space in /dev/shm and "
                    f"{folder.parent}, or set run.launch to local in params.yaml"
                ) from error
        else:
            return


def store_size(shared_bytes: int) -> int:
    """Bytes for the object store: twice the shared data, because results pass through it too; at least 256 MiB."""
    return max(256 * MEBIBYTE, 2 * shared_bytes + 64 * MEBIBYTE)


@contextmanager
def ray_environment(variables: Mapping[str, str] = ENVIRONMENT, *, token: bool = True) -> Iterator[None]:
    """Sets what the user has not set, for the block. token: with an authentication token of our own."""
    wanted = dict(variables)
    if token and "RAY_AUTH_TOKEN_PATH" not in os.environ:
        wanted["RAY_AUTH_TOKEN"] = process_token()
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@cache
def process_token() -> str:
    """Without one in the environment Ray leaves a token, readable by all, in the home folder.

    One for the life of the process, because Ray reads it once.
    """
    return secrets.token_hex(32)


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Inside a submitted job, Ray would look for the job's package in the new Ray too, where it isn't."""
    config = os.environ.pop("RAY_JOB_CONFIG_JSON_ENV_VAR", None)
    try:
        yield
    finally:
        if config is not None:
            os.environ["RAY_JOB_CONFIG_JSON_ENV_VAR"] = config


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """A fresh folder with a short path; what killed processes of ours left behind is removed on the way."""
    parent = Path(tempfile.gettempdir())
    if len(str(parent)) > MAX_TEMP_LENGTH:
        parent = Path("/tmp")
    for stale in parent.glob(f"{PREFIX}*"):
        owner = re.fullmatch(rf"{PREFIX}(\d+)-\w+", stale.name)
        if owner and not _is_alive(int(owner[1])):
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextmanager
def _own_signal_handlers() -> Iterator[None]:
    """Ray replaces the handler of SIGTERM and keeps it after its shutdown."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
