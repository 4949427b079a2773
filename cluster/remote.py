"""The cluster's end of a submission: runs a command in a copy of the project, pushes its outs and sends the rest home.

`python -m cluster.remote --remote store --url s3://bucket/dvc -- dvc repro`, in the folder that was sent.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cluster.letter import hash_lock, write_letter
from pipeline.launch.ray_session import ADDRESS_VARIABLE

DVC = (sys.executable, "-m", "dvc")


def run(command: Sequence[str], root: Path, name: str, url: str) -> int:
    """Runs it at `root` and returns its exit code, or that of the push when only that failed.

    What succeeded before a failure is pushed and sent home as well.
    """
    environment = _environment()
    lock_before = hash_lock(root)
    _dvc(root, environment, "config", "--local", "core.no_scm", "true")
    _dvc(root, environment, "remote", "add", "--quiet", "--local", "--force", "--default", name, url)
    returncode = _call(command, root, environment)
    pushed = 0
    if hash_lock(root) is not None:
        pushed = subprocess.run([*DVC, "push", "--quiet"], cwd=root, env=environment, check=False).returncode
    if pushed:
        print(f"dvc push to {name} failed: this cluster needs access of its own to {url}", file=sys.stderr, flush=True)
        return returncode or pushed
    # After the push: a letter never names outs that cannot be pulled.
    print(write_letter(root, lock_before), flush=True)
    return returncode


def _call(command: Sequence[str], root: Path, environment: dict[str, str]) -> int:
    """Its exit code, as a shell would give it when there is no such program."""
    program = shutil.which(command[0], path=environment["PATH"])
    if program is None:
        print(f"{command[0]} is no program on this cluster", file=sys.stderr, flush=True)
        return 127
    return subprocess.run([program, *command[1:]], cwd=root, env=environment, check=False).returncode


def _dvc(root: Path, environment: dict[str, str], *arguments: str) -> None:
    subprocess.run([*DVC, *arguments], cwd=root, env=environment, check=True, stdout=subprocess.DEVNULL)


def _environment() -> dict[str, str]:
    """With this Python's `dvc` and `python` first, as dvc.yaml expects, and the cluster in the place of run.address.

    A variable, because an edited params.yaml would no longer be the one at home.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {"PATH": path, ADDRESS_VARIABLE: "auto", "DVC_NO_ANALYTICS": "1"}


def split_command(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Before and behind the first `--`."""
    own = list(arguments)
    at = own.index("--") if "--" in own else len(own)
    return own[:at], own[at + 1 :]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.remote", description="The cluster's end of a submission.")
    parser.add_argument("--remote", required=True, help="name of the DVC remote")
    parser.add_argument("--url", required=True, help="its url")
    parser.add_argument("--in-place", action="store_true", help="the folder is this job's alone: work in it")
    parser.usage = "python -m cluster.remote --remote NAME --url URL [--in-place] -- COMMAND ..."
    own, command = split_command(sys.argv[1:] if arguments is None else arguments)
    given = parser.parse_args(own)
    if not command:
        parser.error("a command must follow --")
    if given.in_place:
        return run(command, Path.cwd(), given.remote, given.url)
    # Ray keeps one folder per package: jobs that send equal files would meet in it.
    folder = Path(tempfile.mkdtemp(prefix="layerwise-job-"))
    try:
        shutil.copytree(Path.cwd(), folder, dirs_exist_ok=True)
        return run(command, folder, given.remote, given.url)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
