"""What travels to a cluster: the files that git tracks or would track, and the name and url of the DVC remote."""

import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cluster.targets import Target
from pipeline.config.load import load_params
from pipeline.config.run import Run

SECRET_KEYS = re.compile(r"^\s*(\w*(?:password|secret|token|access_key|account_key|connection_string)\w*)\s*=", re.M)
"""Of DVC's settings."""

NEVER = (".dvc/config.local",)
"""Where DVC keeps credentials. Git ignores it, unless somebody made it not to."""

MAX_BYTES = 400 * 2**20
"""Ray refuses packages of 500 MiB."""


@dataclass(frozen=True)
class Remote:
    """The DVC remote that large outs take."""

    name: str
    url: str


def list_files(root: Path) -> list[Path]:
    """Tracked and untracked files that git does not ignore, relative to `root`.

    Raises ValueError outside a git repository.
    """
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=root, capture_output=True, check=False)
    if done.returncode:
        raise ValueError(f"{root} is no git repository: git decides what is sent; run `git init`")
    names = {name for name in done.stdout.decode().split("\0") if name and name not in NEVER}
    return [Path(name) for name in sorted(names) if (root / name).is_file()]


def pack(root: Path, archive: Path) -> int:
    """Writes the files into a zip; returns their number.

    Raises ValueError when they are too many bytes for Ray.
    """
    files = list_files(root)
    sizes = {file: (root / file).stat().st_size for file in files}
    if sum(sizes.values()) > MAX_BYTES:
        largest = max(sizes, key=lambda file: sizes[file])
        raise ValueError(
            f"{sum(sizes.values()) / 2**20:.0f} MiB are too much to send, {largest} has {sizes[largest] / 2**20:.0f}: "
            "let git ignore data and put it where the cluster can read it (data.path)"
        )
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as package:
        for file in files:
            package.write(root / file, file.as_posix())
    return len(files)


def default_remote(root: Path) -> Remote:
    """Raises ValueError when DVC has no default remote."""
    name = _dvc(root, "config", "core.remote")
    if not name:
        raise ValueError(
            "results come home through a DVC remote and there is none: dvc remote add -d store <folder or url>"
        )
    # `dvc remote list` would wrap long lines. A relative folder comes back absolute.
    url = _dvc(root, "config", f"remote.{name}.url")
    if not url:
        raise ValueError(f"core.remote is {name}, which has no url: dvc remote add -d {name} <folder or url>")
    return Remote(name, url)


def check(root: Path, target: Target, remote: Remote) -> None:
    """Raises ValueError for what would fail after hours instead of now, or give a secret away."""
    parts = urlsplit(remote.url)
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"the url of DVC remote {remote.name} holds credentials: keep them out of it, and give the cluster's nodes "
            "a role or credentials of their own"
        )
    config = root / ".dvc/config"
    if config.is_file() and (found := SECRET_KEYS.search(config.read_text(encoding="utf-8"))):
        raise ValueError(f"{found[1]} in .dvc/config would be sent along: move it with `dvc remote modify --local`")
    if not parts.scheme and not target.shares_folders:
        raise ValueError(
            f"DVC remote {remote.name} is a folder of this machine, which the nodes of {target.name} do not see: "
            "take a remote that both reach, such as s3:// or gs://"
        )
    run = load_params(root / "params.yaml").sections["run"]
    assert isinstance(run, Run)
    if run.workers > 1 and "://" not in run.storage and not target.shares_folders:
        raise ValueError(
            f"run.storage {run.storage} is a folder, which the nodes of {target.name} do not share: "
            f"with run.workers {run.workers} it must be an fsspec url such as s3://bucket/layerwise"
        )


def _dvc(root: Path, *arguments: str) -> str:
    """What dvc answers; empty when it fails, as it does for a setting that is not there."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else ""
