"""Runs the pipeline on a cluster and brings its results home: `python -m cluster.submit <target> -- dvc repro`.

Sends the files that git tracks or would track, runs the command there, streams its log, puts dvc.lock and metrics/ into
this checkout and pulls the outs from the DVC remote. params.yaml stays as it is, here and there.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml  # type: ignore[import-untyped]

from cluster import ray_jobs, slurm_jobs
from cluster.letter import open_letter, read_letter
from cluster.remote import split_command
from cluster.shipment import check, default_remote, pack
from cluster.targets import Target, load_target


def submit(root: Path, target: Target, command: Sequence[str]) -> tuple[str, int]:
    """Sends the project and waits for the command; returns its log and exit code.

    Raises ValueError for what would not work, before anything is sent.
    """
    remote = default_remote(root)
    check(root, target, remote)
    runner = ["python", "-m", "cluster.remote", "--remote", remote.name, "--url", remote.url]
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "project.zip"
        number = pack(root, archive)
        print(f"sending {number} files ({archive.stat().st_size / 2**10:.0f} KiB) to {target.name}", flush=True)
        if target.kind == "slurm":
            return slurm_jobs.run_job(target, archive, [*runner, "--in-place", "--", *command])
        return ray_jobs.run_job(target, archive, [*runner, "--", *command])


def bring_home(root: Path, log: str, *, pull: bool) -> None:
    """dvc.lock and metrics/ from the log, the outs from the DVC remote."""
    letter = read_letter(log)
    if letter is None:
        print("no results came home: the log above says why", file=sys.stderr)
        return
    changed = open_letter(letter, root)
    print("home: " + (", ".join(str(path.relative_to(root)) for path in changed) or "nothing new"), flush=True)
    if pull and (stages := locked_stages(letter.files.get("dvc.lock", b""))):
        subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet", *stages], cwd=root, check=True)


def locked_stages(lock: bytes) -> list[str]:
    """Stages that have run: `dvc pull` without names fails over those that have not."""
    return list((yaml.safe_load(lock) or {}).get("stages", {}))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m cluster.submit", description="Runs the pipeline on a cluster.")
    parser.add_argument("target", help="a section of cluster/targets.toml, or http://host:port of a dashboard")
    parser.add_argument("--no-pull", action="store_true", help="leave the outs in the DVC remote; `dvc pull` gets them")
    parser.add_argument("--attach", metavar="JOB", help="follow a job that was sent before, and bring its results home")
    parser.add_argument("--log", metavar="FILE", type=Path, help="only bring home the results in a job's saved log")
    parser.usage = "python -m cluster.submit [-h] [--no-pull] [--attach JOB | --log FILE] target [-- COMMAND ...]"
    parser.epilog = "COMMAND: dvc repro, unless you say otherwise."
    own, command = split_command(sys.argv[1:] if arguments is None else arguments)
    given = parser.parse_args(own)
    root = Path.cwd()
    try:
        target = load_target(given.target)
        if given.log:
            log, returncode = given.log.read_text(errors="replace"), 0
        elif given.attach:
            log, returncode = ray_jobs.follow(target, given.attach)
        else:
            log, returncode = submit(root, target, command or ["dvc", "repro"])
        bring_home(root, log, pull=not given.no_pull)
    except ValueError as error:
        print(f"cluster.submit: {error}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:  # dvc pull has said why
        return error.returncode
    except KeyboardInterrupt:
        return 130
    return returncode


if __name__ == "__main__":
    sys.exit(main())
