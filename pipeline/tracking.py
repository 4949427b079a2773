"""A W&B run, or nothing. The only importer of wandb. Metrics files are the record; W&B mirrors them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

PROJECT = "layerwise"


class Tracker(Protocol):
    """Where a stage's curves and final numbers are mirrored."""

    def log(self, values: Mapping[str, float], step: int) -> None: ...

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None: ...


class NullTracker:
    """Tracks nothing: run.tracking is disabled."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Drops the values."""

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None:
        """Does nothing."""


class WandbTracker:
    """One W&B run. mode: offline or online; folder: where offline runs lie until `wandb sync`."""

    def __init__(self, mode: str, *, stage: str, group: str, config: Mapping[str, Any], folder: Path) -> None:
        _prepare(folder)
        import wandb

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                group=group,
                job_type=stage.split("@")[0],
                name=stage,
                config=dict(config),
                mode="online" if mode == "online" else "offline",
                settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, disable_git=True),
            )
        except wandb.errors.Error as error:
            raise ValueError(
                f"run.tracking is {mode} but W&B cannot start ({error}): run `wandb login`, or set it to offline or "
                "disabled"
            ) from error

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> None:
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=exit_code)


def start_tracking(mode: str, *, stage: str, group: str, config: Mapping[str, Any], folder: Path) -> Tracker:
    """mode: disabled, offline or online."""
    if mode == "disabled":
        return NullTracker()
    return WandbTracker(mode, stage=stage, group=group, config=config, folder=folder)


@dataclass(frozen=True)
class FinishedRun:
    """A run that is written after the fact.  config: what it ran with.  curve: numbers by step, from 0.  failed: why,
    or empty."""

    name: str
    config: Mapping[str, Any]
    curve: Sequence[Mapping[str, float]]
    summary: Mapping[str, Any]
    failed: str


def track_finished(mode: str, runs: Sequence[FinishedRun], *, job_type: str, group: str, folder: Path) -> None:
    """A W&B run for each, in the group of the stage's own run. mode: disabled, offline or online.

    Written at once, without the listing of packages and machine that a run of its own would make: 0.03 s each offline.
    """
    if mode == "disabled" or not runs:
        return
    _prepare(folder)
    import wandb

    settings = wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
    )
    for finished in runs:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            group=group,
            job_type=job_type,
            name=finished.name,
            config=dict(finished.config),
            mode="online" if mode == "online" else "offline",
            reinit="create_new",  # the stage's own run goes on
            settings=settings,
        )
        for step, values in enumerate(finished.curve):
            run.log(dict(values), step=step)
        run.summary.update({**finished.summary, **({"failure": finished.failed} if finished.failed else {})})
        run.finish(exit_code=1 if finished.failed else 0)


def _prepare(folder: Path) -> None:
    """Without a mode and a key wandb asks or fails, so mode and folders are always ours."""
    os.environ["WANDB_SILENT"] = "true"
    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR"):
        os.environ.setdefault(f"WANDB_{name}", str(folder.resolve()))
    folder.mkdir(parents=True, exist_ok=True)
