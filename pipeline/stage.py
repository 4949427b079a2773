"""The stage context: what every stages/*.py runs inside.

A stage holds a lock, reads typed parameters, works in a resume folder keyed by the hash of everything its result
depends on, and publishes its outs only when all of it has succeeded. Killed at any point and run again, it goes on
from what the resume folder holds and ends with the same bytes.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipeline import paths
from pipeline.artifacts import write_json, write_text
from pipeline.config.load import SECTIONS, Params, load_params
from pipeline.config.pretrain import Layer
from pipeline.config.run import Run
from pipeline.guard import die_with_dvc, only_writer
from pipeline.progress import Progress
from pipeline.provenance import hash_inputs, import_closure
from pipeline.tracking import FinishedRun, Tracker, start_tracking, track_finished

S = TypeVar("S")

NOT_IN_RESULTS = ("launch", "trials_at_once", "gpus_per_worker", "address", "storage", "tracking")
"""Keys of `run` that change where or how visibly a stage works, never what comes out."""


@dataclass(frozen=True)
class StageSpec:
    """What a stage declares; a test holds dvc.yaml to it.

    name: as DVC spells it, such as pretrain@conv1; params: keys of params.yaml that its result depends on;
    inputs: the outs of other stages that it reads; outputs: folders it makes, besides its metrics file.
    """

    name: str
    params: tuple[str, ...]
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()


class Stage:
    """What a stage may touch. root: the project's folder; work: the resume folder."""

    def __init__(self, spec: StageSpec, *, params: Params, work: Path, root: Path) -> None:
        self.name, self.work, self.root = spec.name, work, root
        self._spec, self._params, self._keys = spec, params, spec.params
        self._staging = work / "outputs"
        self._outputs: list[Path] = []
        self._tracker: Tracker | None = None
        self._summary: dict[str, Any] = {}
        shutil.rmtree(self._staging, ignore_errors=True)

    @property
    def run_name(self) -> str:
        """Unique to this stage and everything its result depends on."""
        return f"{self.name}-{self.work.name}"

    @property
    def run(self) -> Run:
        """Section `run`. A key that can change results must be among the stage's declared parameters."""
        return self._params.section(Run)

    def section(self, kind: type[S]) -> S:
        """A section by its dataclass; it must be among the stage's declared parameters."""
        value = self._params.section(kind)
        name = next(key for key, section in self._params.sections.items() if section is value)
        assert name in self._keys, f"{self.name} reads {name}: declare it in its StageSpec and dvc.yaml"
        return value

    def layer(self, name: str) -> Layer:
        """One entry of pretrain.layers."""
        assert f"pretrain.layers.{name}" in self._keys
        return self._params.layers[name]

    @property
    def layers(self) -> dict[str, Layer]:
        """Every entry of pretrain.layers, bottom first."""
        assert "pretrain.layers" in self._keys
        return self._params.layers

    @property
    def top_layer(self) -> str:
        """Name of the last of pretrain.layers."""
        return list(self.layers)[-1]

    def output(self, path: Path) -> Path:
        """A folder to write what `path` will hold. It takes its place when the whole stage has succeeded."""
        assert path in self._spec.outputs, f"{self.name} makes {path}: declare it in its StageSpec and dvc.yaml"
        folder = self._staging / path
        folder.mkdir(parents=True, exist_ok=True)
        self._outputs.append(path)
        return folder

    def write_metrics(self, values: Mapping[str, Any]) -> None:
        """metrics/<stage>.json, and the summary of the W&B run. values: numbers, nested by name."""
        path = paths.metrics(self.name)
        write_json(self._staging / path, dict(values))
        self._outputs.append(path)
        self._summary = dict(values)

    def say(self, text: str) -> None:
        """A line for the person who watches."""
        print(text, flush=True)

    def progress(self, total: int, label: str) -> Progress:
        return Progress(total, label)

    def track(self, values: Mapping[str, float], step: int) -> None:
        """Mirrors numbers to W&B; the first call starts the stage's run."""
        if self._tracker is None:
            self._tracker = start_tracking(
                self.run.tracking,
                stage=self.name,
                group=run_group(self.root),
                config=_declared(self._params, self._keys),
                folder=self.root / paths.WORK / "wandb",
            )
        self._tracker.log(values, step)

    def track_finished(self, runs: Sequence[FinishedRun], job_type: str) -> None:
        """Mirrors what the stage consists of, such as the trials of a sweep, to W&B runs of their own."""
        folder = self.root / paths.WORK / "wandb"
        track_finished(self.run.tracking, runs, job_type=job_type, group=run_group(self.root), folder=folder)

    def finish_tracking(self, exit_code: int) -> None:
        if self._tracker is not None:
            self._tracker.finish(self._summary, exit_code)

    def publish(self) -> None:
        """Moves every output to its place, replacing what is there."""
        for path in self._outputs:
            target = self.root / path
            if target.is_dir():
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._staging / path).replace(target)


def run_stage(spec: StageSpec, body: Callable[[Stage], None], overrides: Sequence[str] = ()) -> int:
    """Runs `body` inside a stage context and returns the exit code. overrides: see `load_params`.

    What a person can fix (ValueError, OSError) ends with 1 and one message; its traceback goes to
    .layerwise/errors/<stage>.log. Anything else is a bug and shows its traceback.
    """
    die_with_dvc()
    root = Path.cwd()
    try:
        _run(spec, body, root, overrides)
    except (ValueError, OSError) as error:
        log = paths.WORK / "errors" / f"{spec.name}.log"
        _write_quietly(root / log, traceback.format_exc())
        print(f"{spec.name}: {_describe(error)}\n(details: {log})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{spec.name}: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0


def _run(spec: StageSpec, body: Callable[[Stage], None], root: Path, overrides: Sequence[str]) -> None:
    with only_writer(root / paths.WORK / "locks" / spec.name, f"stage {spec.name}"):
        params = load_params(root / "params.yaml", overrides)
        code = import_closure(f"stages.{spec.name.split('@')[0]}", root)

        def hash_now() -> str:
            declared = _declared(load_params(root / "params.yaml", overrides), spec.params)
            return hash_inputs(declared, spec.inputs, code, root)

        before = hash_now()
        folder = root / paths.WORK / "work" / spec.name
        work = folder / before[:16]
        work.mkdir(parents=True, exist_ok=True)
        stage = Stage(spec, params=params, work=work, root=root)
        exit_code = 1
        try:
            body(stage)
            if hash_now() != before:
                raise ValueError(
                    f"code, parameters or inputs of {spec.name} changed while it ran, so its result belongs to "
                    "neither version: run it again"
                )
            stage.publish()
            exit_code = 0
        finally:
            stage.finish_tracking(exit_code)
        shutil.rmtree(folder)


def _declared(params: Params, keys: Sequence[str]) -> dict[str, Any]:
    """The values of the declared keys, by dotted name."""
    values: dict[str, Any] = {}
    for key in keys:
        if key == "pretrain.layers":
            values[key] = {name: asdict(layer) for name, layer in params.layers.items()}
        elif key.startswith("pretrain.layers."):
            name = key.removeprefix("pretrain.layers.")
            if name not in params.layers:
                raise ValueError(f"pretrain.layers has no layer {name!r}, only {', '.join(params.layers)}: choose one")
            values[key] = asdict(params.layers[name])
        elif key in SECTIONS:
            values[key] = asdict(params.sections[key])
        else:
            section, name = key.split(".")
            values[key] = getattr(params.sections[section], name)
    return values


def run_group(root: Path) -> str:
    """W&B group of all stages of one repro: the experiment's name, or what params.yaml and the commit make of it."""
    given = os.environ.get("LAYERWISE_RUN_GROUP") or os.environ.get("DVC_EXP_NAME")
    if given:
        return given
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    digest = hashlib.sha256((root / "params.yaml").read_bytes()).hexdigest()[:8]
    return f"repro-{git.stdout.strip() or 'nogit'}-{digest}"


def _describe(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _write_quietly(path: Path, text: str) -> None:
    """A full disk must not hide the message that says so."""
    try:
        write_text(path, text)
    except OSError:
        return
