"""The command line of a sweep by hand: what it changes in `tune`, under which name it runs, whether it goes on."""

import argparse
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import paths
from pipeline.artifacts import read_json, write_json
from pipeline.config.tune import SCHEDULERS, SEARCHERS

OPTIONS = "options.json"
KEYS = {
    "target": "tune.target",
    "num_trials": "tune.num_trials",
    "searcher": "tune.searcher",
    "scheduler": "tune.scheduler",
    "reports": "tune.reports",
    "max_concurrent": "tune.max_concurrent",
}


@dataclass(frozen=True)
class ByHand:
    """overrides: dotted assignments to params.yaml, for this sweep alone.  resume: goes on with a killed sweep."""

    name: str
    overrides: tuple[str, ...]
    resume: bool

    @property
    def stage(self) -> str:
        """Under which the sweep locks, logs and keeps what a resume needs."""
        return f"tune@{self.name}"

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return paths.SWEEPS / self.name

    @property
    def work(self) -> Path:
        return paths.WORK / "work" / self.stage


def parse_command(words: Sequence[str], root: Path) -> ByHand:
    """Checks what can be checked before anything runs; a resume takes the options that the sweep began with.

    Raises ValueError when the name is taken, or there is nothing to resume; exits on a misspelt option.
    """
    given = _parser().parse_args(words)
    overrides = [f"{key}={getattr(given, name)}" for name, key in KEYS.items() if getattr(given, name) is not None]
    name = given.name or (given.target or "sweep").replace("@", "-")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ValueError(f"--name must be letters, digits, _, . and -, got {name!r}: choose another")
    command = ByHand(name, (*overrides, *given.set), given.resume)
    noted = root / command.work / OPTIONS
    for folder, state, remedy in (
        (command.folder, "a finished", ""),
        (command.work, "an unfinished", "go on with --resume, "),
    ):
        if (root / folder).exists() and not (command.resume and remedy):
            raise ValueError(
                f"{state} sweep named {name} lies in {folder}: {remedy}choose another --name, or delete that folder"
            )
    if not command.resume:
        return command
    if not noted.is_file():
        raise ValueError(f"there is no sweep named {name} to go on with: none was begun; leave out --resume")
    before = tuple(read_json(noted)["overrides"])
    if set(command.overrides) - set(before):
        raise ValueError(
            f"the sweep named {name} was begun with {' '.join(before)}, not with {' '.join(command.overrides)}: leave "
            "its options out or give the same"
        )
    return ByHand(name, before, resume=True)


def begin(command: ByHand, work: Path) -> None:
    """Notes the options for a resume.  work: the resume folder, named after all that the results depend on.

    Raises ValueError when a killed sweep is there under another name: it cannot go on with other parameters, code or
    data.
    """
    others = [folder for folder in work.parent.iterdir() if folder.is_dir() and folder != work]
    if command.resume and others:
        shutil.rmtree(work)
        raise ValueError(
            f"parameters, code or inputs changed since the sweep named {command.name} was killed, so it cannot go on: "
            f"change them back, or delete {command.work} and run it without --resume"
        )
    write_json(work.parent / OPTIONS, {"overrides": list(command.overrides)})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.tune",
        description="Runs a sweep outside of DVC; without options, the stage of dvc.yaml. Options stand in for keys of "
        "section tune of params.yaml.",
    )
    parser.add_argument("--target", help="classifier, vae, gan, or a layer such as pretrain@conv1")
    parser.add_argument("--num-trials", type=int)
    parser.add_argument("--searcher", choices=SEARCHERS)
    parser.add_argument("--scheduler", choices=SCHEDULERS)
    parser.add_argument("--reports", type=int)
    parser.add_argument("--max-concurrent", type=int)
    parser.add_argument("--set", "-S", action="append", default=[], metavar="KEY=VALUE", help="any other key")
    parser.add_argument("--name", help="of the folder below .layerwise/sweeps; the target without it")
    parser.add_argument("--resume", action="store_true", help="go on with a killed sweep of that name")
    return parser
