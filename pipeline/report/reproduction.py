"""What it takes to make the same report again: commit, parameters, hashes and versions. No date, no duration."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from pipeline.artifacts import hash_tree
from pipeline.report.content import Reproduction

PACKAGES = ("torch", "pytorch-lightning", "ray", "optuna", "dvc", "wandb", "numpy", "scipy", "scikit-learn")
COMMAND = "make run"
MADE_BY = ("pipeline", "stages", "params.yaml", "dvc.yaml", "constraints.txt")
"""What a result depends on besides the data, as far as git tracks it."""


def read_reproduction(root: Path, inputs: Sequence[Path]) -> Reproduction:
    """inputs: what the report is made from, relative to `root`; those that exist are hashed."""
    return Reproduction(
        commit=read_commit(root),
        command=COMMAND,
        params=(root / "params.yaml").read_text(encoding="utf-8"),
        hashes={path.as_posix(): hash_tree(root / path) for path in inputs if (root / path).exists()},
        environment=describe_environment(),
    )


def read_commit(root: Path) -> str | None:
    """The last commit that changed code or parameters, with a remark where they differ from it; None without one.

    Later commits, of dvc.lock and metrics above all, don't count: committing a run must not change its report.
    """
    commit = _git(root, "log", "-1", "--format=%H", "--", *MADE_BY)
    if not commit:
        return None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *MADE_BY)
    return f"{commit} with uncommitted changes" if changes else commit


def describe_environment() -> dict[str, str]:
    """Versions and machine: the same on one machine from run to run."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
    }


def _cpu_model() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _git(root: Path, *arguments: str) -> str | None:
    """What git answers; None where it is not installed or `root` is no repository with a commit."""
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
