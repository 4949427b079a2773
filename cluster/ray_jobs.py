"""Runs a job through Ray's Job Submission and returns its log and exit code."""

import asyncio
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.letter import lines_for_people
from cluster.state import driver_environment, read_states
from cluster.targets import Target

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

POLL_S = 2.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def run_job(target: Target, archive: Path, command: Sequence[str]) -> tuple[str, int]:
    """archive: the project as a zip. Raises ValueError when the cluster cannot be reached."""
    with _client(target) as client:
        job = client.submit_job(entrypoint=shlex.join(command), runtime_env={"working_dir": str(archive)})
        print(f"job {job}; it goes on after Ctrl-C, and `--attach {job}` follows it again", flush=True)
        return _follow(client, job)


def follow(target: Target, job: str) -> tuple[str, int]:
    """The log and exit code of a job that was sent before; waits for its end."""
    if target.kind == "slurm":
        raise ValueError(
            f"a Slurm job is not attached to: once it has ended, give its log below {target.folder} to --log"
        )
    with _client(target) as client:
        return _follow(client, job)


def _follow(client: "JobSubmissionClient", job: str) -> tuple[str, int]:
    try:
        for line in lines_for_people(_chunks(client, job)):
            print(line, flush=True)
    except RuntimeError as error:  # the connection broke, not the job
        print(f"the log stopped coming ({error}); waiting for the job's end", file=sys.stderr)
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(POLL_S)
    if info.driver_exit_code is None:
        print(f"job {job} {info.status.value.lower()}: {info.message}", file=sys.stderr)
    returncode = 0 if info.status.value == "SUCCEEDED" else info.driver_exit_code or 1
    return client.get_job_logs(job), returncode


def _chunks(client: "JobSubmissionClient", job: str) -> Iterator[str]:
    stream = client.tail_job_logs(job)

    async def next_chunk() -> str | None:
        return await anext(stream, None)

    with asyncio.Runner() as runner:
        while (chunk := runner.run(next_chunk())) is not None:
            yield chunk


@contextmanager
def _client(target: Target) -> Iterator["JobSubmissionClient"]:
    address, wanted = _address(target)
    before = dict(os.environ)
    os.environ.update(wanted)
    # These would take the place of the dashboard's address and of the token's file.
    for name in ("RAY_ADDRESS", *(("RAY_AUTH_TOKEN",) if "RAY_AUTH_TOKEN_PATH" in wanted else ())):
        os.environ.pop(name, None)
    try:
        _check_token(address)
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient

        for module in ("dashboard_sdk", "job.sdk"):  # they set their own levels
            logging.getLogger(f"ray.dashboard.modules.{module}").setLevel(logging.WARNING)
        try:
            client = JobSubmissionClient(address)
        except (ConnectionError, RuntimeError, RayError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"no Ray dashboard answers at {address} ({reason}): start the cluster and the tunnel to it, and let "
                "RAY_AUTH_TOKEN_PATH name the file with its token"
            ) from error
        yield client
    finally:
        os.environ.clear()
        os.environ.update(before)


def _address(target: Target) -> tuple[str, dict[str, str]]:
    """Of the dashboard, and what Ray must find in the environment."""
    if target.kind != "local":
        return target.address, {"RAY_AUTH_MODE": "token"}
    for state in read_states().values():
        if state.dashboard:
            return state.dashboard, driver_environment(state)
    raise ValueError("no local cluster with a dashboard is up: python -m cluster.local up --dashboard")


def _check_token(address: str) -> None:
    names = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    if not any(os.environ.get(name) for name in names) and not (Path.home() / ".ray" / "auth_token").is_file():
        raise ValueError(f"{address} asks for a token: let RAY_AUTH_TOKEN_PATH name the file that holds it")
    parts = urlsplit(address)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        print(f"{address} is not encrypted: whoever listens reads the token; take a tunnel", file=sys.stderr)
