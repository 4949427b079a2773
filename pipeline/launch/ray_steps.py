"""Trials of a scheduler that pauses them or moves their weights: every report but the last has a checkpoint."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from pipeline.launch.ray_listener import make_listener
from pipeline.launch.ray_search import FAILED, REPORTS, make_scheduler, make_searcher
from pipeline.tuning.steps import Past, StepStore, read_past, run_steps
from pipeline.tuning.sweep import FAILURE, Message, Recorder, SweepFunction, SweepPlan
from pipeline.tuning.sweep_log import Metrics

STEP = "step"
"""Under what our report travels: Tune adds times and names of its own beside it."""


def steps_tuner(
    plan: SweepPlan,
    function: SweepFunction,
    shared: Any,
    recorder: Recorder,
    store: StepStore,
    run: dict[str, Any],
    resources: Any,
) -> Any:
    """run: what `tune.RunConfig` is to be made of, besides what is decided here.  resources: of a trial, as Tune
    takes them.
    """
    from ray import tune
    from ray.tune.search import BasicVariantGenerator

    def hear(number: int, _: Any, result: dict[str, Any]) -> None:
        step = result[STEP]
        swept = recorder.begin(number, step["values"])
        told = {name: step[name] for name in ("key", "before")}
        recorder.add_step(swept, step["values"], step["message"], **told, seconds=result["time_this_iter_s"])

    trainable = tune.with_parameters(
        _trainable,
        function=function,
        shared=shared,
        known=dict(recorder.log.steps),
        plan=plan,
        store=store,
    )
    population = plan.scheduler == "pbt"
    points = plan.points() if population else []
    return tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={name: tune.uniform(0, 1) for name in plan.space} if population else None,  # the points replace it
        tune_config=tune.TuneConfig(
            num_samples=plan.num_trials,
            # no limit: paused trials would count; the slots of this Ray are the limit
            reuse_actors=True,
            scheduler=make_scheduler(plan),
            search_alg=BasicVariantGenerator(points_to_evaluate=points) if population else make_searcher(plan),
        ),
        run_config=tune.RunConfig(
            **run, stop={REPORTS: plan.num_reports, FAILED: 1}, callbacks=[make_listener(recorder, plan.start, hear)]
        ),
    )


def _trainable(
    config: dict[str, Any],
    *,
    function: SweepFunction,
    shared: Any,
    known: dict[str, Metrics],
    plan: SweepPlan,
    store: StepStore,
) -> None:
    """What runs in the actor, again after each pause, then with the checkpoint that the scheduler wants."""
    from ray import tune

    torch.set_num_threads(plan.threads)
    values = {**plan.start, **config}
    with tempfile.TemporaryDirectory() as name:
        folder, past, restored = Path(name), Past(), tune.get_checkpoint()
        if restored is not None:
            with restored.as_directory() as source:
                shutil.copytree(source, folder, dirs_exist_ok=True)
            past = read_past(folder)

        def tell(message: Message, now: Past, before: Past) -> None:
            failed = int(FAILURE in message)
            ends = failed or now.reports == plan.num_reports
            tune.report(
                {
                    plan.metric: message[plan.metric],
                    REPORTS: now.reports,
                    FAILED: failed,
                    STEP: {"message": message, "values": values, "key": now.key, "before": before.key},
                },
                checkpoint=None if ends else tune.Checkpoint.from_directory(str(folder)),
            )

        run_steps(function, values, shared, folder, past, plan, known=known, store=store, tell=tell)
