"""Where a pipeline can be sent: the sections of cluster/targets.toml, and addresses of dashboards."""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

FILE = Path(__file__).with_name("targets.toml")
KINDS = ("local", "ray", "slurm")


@dataclass(frozen=True, kw_only=True)
class Target:
    """targets.toml says what the fields mean."""

    name: str
    kind: str
    address: str = ""
    folder: str = ""
    shares_folders: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}.kind must be one of {', '.join(KINDS)}, got {self.kind!r}: see {FILE.name}")
        if self.kind == "ray":
            _check_address(self.name, self.address)
        if self.kind == "slurm" and not self.folder:
            raise ValueError(f"{self.name}.folder is empty: name a folder that every node sees in {FILE.name}")


def load_target(name: str, file: Path = FILE) -> Target:
    """name: a section of `file`, or http(s)://host:port of a dashboard.

    Raises ValueError for an unknown name or key.
    """
    if "://" in name:
        return Target(name=name, kind="ray", address=name)
    sections = tomllib.loads(file.read_text(encoding="utf-8"))
    if name not in sections:
        raise ValueError(
            f"{name} is no target: {file.name} has {', '.join(sections)}; or give the dashboard's http://host:port"
        )
    known = set(Target.__dataclass_fields__) - {"name"}
    if unknown := set(sections[name]) - known:
        raise ValueError(f"{name}.{min(unknown)} in {file.name} is no setting: there are {', '.join(sorted(known))}")
    return Target(name=name, **sections[name])


def _check_address(name: str, address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{name}.address must be http(s)://host:port of a dashboard, got {address!r}")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            f"{name}.address must hold no credentials: put the token into the file RAY_AUTH_TOKEN_PATH names"
        )
