"""Sweeps by Ray Tune on a local Ray: ASHA stops trials, Optuna draws their values, one warm actor runs them."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.launch.launcher import measure_bytes
from pipeline.launch.ray_search import make_scheduler, make_searcher, quiet_tune
from pipeline.launch.ray_session import local_ray
from pipeline.tuning.sweep import (
    METRIC,
    Message,
    Metrics,
    Recorder,
    SweepFunction,
    SweepPlan,
    SweptTrial,
    replay,
    trial_key,
)

MESSAGE = "message"
"""Under what our report travels: Tune adds times and names of its own beside it."""
MAX_RETRIES = 2
"""How often a trial whose process died is tried again; its exceptions are reports, and are not retried."""


class RaySweeper:
    """See `Sweeper`. A context manager: Ray starts with the first sweep and stops when the block ends."""

    def __init__(self) -> None:
        self._session = ExitStack()
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._session.close()

    def sweep(self, plan: SweepPlan, function: SweepFunction, shared: Any, recorder: Recorder) -> list[SweptTrial]:
        if self._folder is None:
            session = local_ray(plan.max_concurrent * plan.threads, measure_bytes(shared))
            self._folder = self._session.enter_context(session)
        with quiet_tune():
            results = _tuner(plan, function, shared, recorder, self._folder / "sweeps").fit()
            for number, result in enumerate(results):
                trial = recorder.begin(number, {**plan.start, **result.config})
                if result.error is not None:
                    trial.failure = _reason(result.error)
        return [recorder.trials[number] for number in range(len(results))]


def _reason(error: Exception) -> str:
    """Exceptions of the trial itself arrive as reports: what is left is the death of its process, or Ray's own."""
    import ray

    if isinstance(error, ray.exceptions.RayActorError):
        return f"its process died {MAX_RETRIES + 1} times; it may need more memory than there is"
    return str(error).strip()


def _tuner(plan: SweepPlan, function: SweepFunction, shared: Any, recorder: Recorder, folder: Path) -> Any:
    from ray import tune

    trainable = tune.with_parameters(
        _trainable, function=function, shared=shared, known=recorder.known_curves(), plan=plan
    )
    return tune.Tuner(
        tune.with_resources(trainable, {"CPU": plan.threads}),
        tune_config=tune.TuneConfig(
            num_samples=plan.num_trials,
            max_concurrent_trials=plan.max_concurrent,
            reuse_actors=True,  # a fresh process per trial would pay seconds of imports
            scheduler=make_scheduler(plan),
            search_alg=make_searcher(plan),
        ),
        run_config=tune.RunConfig(
            name=plan.name,
            storage_path=str(folder),  # nothing is restored from it: see SweepLog
            verbose=0,
            callbacks=[_listener(plan, recorder)],
            failure_config=tune.FailureConfig(max_failures=MAX_RETRIES),
        ),
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
        tune.report({METRIC: message[METRIC], MESSAGE: message})

    replay(function, values, shared, known.get(trial_key(values), []), plan.num_reports, report)


def _listener(plan: SweepPlan, recorder: Recorder) -> Any:
    """Tells the recorder, in the driver, what each trial reports."""
    from ray import tune

    class Listener(tune.Callback):
        def on_trial_result(self, *, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
            number = trials.index(trial)
            swept = recorder.begin(number, {**plan.start, **trial.config})
            recorder.add(swept, result["training_iteration"] - 1, result[MESSAGE])

    return Listener()
