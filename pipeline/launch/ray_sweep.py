"""Sweeps by Ray Tune: its searchers draw trials, its schedulers judge them, warm actors run them."""

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.config.run import Run
from pipeline.launch import ray_listener
from pipeline.launch.launcher import measure_bytes
from pipeline.launch.ray_listener import make_listener
from pipeline.launch.ray_lost import run_lost
from pipeline.launch.ray_room import wait_for_room
from pipeline.launch.ray_search import all_trials_pending, make_scheduler, make_searcher, quiet_tune
from pipeline.launch.ray_session import cluster_address, open_ray
from pipeline.launch.ray_steps import steps_tuner
from pipeline.launch.ray_team import Bundles, Team, run_on_team, trial_bundles
from pipeline.launch.ray_workers import storage_path
from pipeline.tuning.points import Values
from pipeline.tuning.steps import FIT_FILE, StepStore
from pipeline.tuning.sweep import Message, Recorder, Report, SweepFunction, SweepPlan, SweptTrial, replay
from pipeline.tuning.sweep_log import Metrics, trial_key

MESSAGE = "message"
"""Under what our report travels: Tune adds times and names of its own beside it."""


class RaySweeper:
    """See `Sweeper`. A context manager: Ray starts, or is joined, with the first sweep and left when the block ends."""

    def __init__(self, run: Run) -> None:
        self._settings = run
        self._session = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._session.close()

    def sweep(self, plan: SweepPlan, function: SweepFunction, shared: Any, recorder: Recorder) -> list[SweptTrial]:
        if self._folder is None:
            cpus = plan.max_concurrent * self._settings.workers * plan.threads
            session = open_ray(self._settings, cpus, measure_bytes(shared))
            self._folder = self._session.enter_context(session)
        bundles = trial_bundles(self._settings, plan.threads)
        wait_for_room(bundles, "run.threads" if len(bundles) == 1 else "run.workers and run.cpus_per_worker")
        if len(bundles) > 1:
            function = _team_up(function, bundles, shared)
        steps, storage = StepStore(self._step_place(recorder)), self._storage(self._folder)
        with quiet_tune(), all_trials_pending(plan):
            grid = _tuner(plan, function, shared, recorder, storage, steps, bundles).fit()
        grid.filesystem.delete_dir(PurePosixPath(grid.experiment_path).parent.as_posix())  # SweepLog has what counts
        if self._on_cluster:  # elsewhere they lie with the log
            steps.clear()
        if not plan.pauses:
            run_lost(plan, function, shared, recorder, bundles)
        return [recorder.trials[number] for number in sorted(recorder.trials)]

    def _storage(self, folder: Path) -> str:
        """Where checkpoints pass from trial to trial: on a cluster, where all nodes reach them."""
        return f"{storage_path(self._settings.storage)}/{folder.name}" if self._on_cluster else str(folder / "sweeps")

    def _step_place(self, recorder: Recorder) -> str:
        """Where steps leave checkpoints for a sweep that goes on after a kill: it finds them by the name of its log."""
        log = recorder.log
        if not self._on_cluster:
            return str(log.checkpoints.absolute())
        folder = log.folder.absolute()
        return f"{storage_path(self._settings.storage)}/steps-{folder.parent.name}-{folder.name}"

    @property
    def _on_cluster(self) -> bool:
        return cluster_address(self._settings) is not None


def _tuner(
    plan: SweepPlan,
    function: SweepFunction,
    shared: Any,
    recorder: Recorder,
    storage: str,
    steps: StepStore,
    bundles: Bundles,
) -> Any:
    from ray import tune

    run = {
        "name": plan.name,
        "storage_path": storage,
        "verbose": 0,
        "failure_config": tune.FailureConfig(max_failures=ray_listener.MAX_RETRIES),
    }
    resources = tune.PlacementGroupFactory(bundles)
    if plan.pauses:
        return steps_tuner(plan, function, shared, recorder, steps, run, resources)

    def hear(number: int, trial: Any, result: dict[str, Any]) -> None:
        swept = recorder.begin(number, {**plan.start, **trial.config})
        recorder.add(swept, result["training_iteration"] - 1, result[MESSAGE], result["time_this_iter_s"])

    trainable = tune.with_parameters(
        _trainable, function=function, shared=shared, known=recorder.known_curves(), plan=plan
    )
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        tune_config=tune.TuneConfig(
            num_samples=plan.num_trials,
            max_concurrent_trials=plan.max_concurrent,
            reuse_actors=True,  # a fresh process per trial would pay seconds of imports
            scheduler=make_scheduler(plan),
            search_alg=make_searcher(plan),
        ),
        run_config=tune.RunConfig(**run, callbacks=[make_listener(recorder, plan.start, hear)]),
    )


def _trainable(
    config: dict[str, Any],
    *,
    function: SweepFunction,
    shared: Any,
    known: dict[str, list[Metrics]],
    plan: SweepPlan,
) -> None:
    """What runs in the actor. A trial that ASHA stops ends inside `tune.report`, by SystemExit."""
    from ray import tune

    torch.set_num_threads(plan.threads)
    values = {**plan.start, **config}

    def report(message: Message) -> None:
        tune.report({plan.metric: message[plan.metric], MESSAGE: message})

    replay(function, values, shared, known.get(trial_key(values), []), plan, report)


def _team_up(function: SweepFunction, bundles: Bundles, shared: Any) -> SweepFunction:
    """`function`, trained by a worker for each bundle."""
    import ray

    return partial(_sweep_on_team, function=function, team=Team(bundles, ray.put(shared)))


def _sweep_on_team(
    values: Values, shared: Any, report: Report, checkpoint: Path | None, *, function: SweepFunction, team: Team
) -> None:
    saved = checkpoint.read_bytes() if checkpoint is not None and checkpoint.is_file() else None
    silent = partial(_sweep_silently, function, values, checkpoint is not None, saved)
    run_on_team(team, lambda: function(values, shared, report, checkpoint), silent)


def _sweep_silently(function: SweepFunction, values: Values, keeps: bool, saved: bytes | None, shared: Any) -> None:
    """On a worker beside the one that reports. keeps, saved: whether there are checkpoints, and one to go on from."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / FIT_FILE
        if saved is not None:
            checkpoint.write_bytes(saved)
        function(values, shared, _ignore, checkpoint if keeps else None)


def _ignore(_: Message) -> None:
    """Rank 0 reports."""
