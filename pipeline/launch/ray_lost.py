"""Trials that Tune gave up without a retry: it does so when a node dies before a trial on it has begun to run."""

from typing import Any

import torch

from pipeline.launch import ray_listener
from pipeline.launch.ray_launcher import explain_death
from pipeline.launch.ray_team import Bundles
from pipeline.tuning.points import Values
from pipeline.tuning.sweep import Message, Recorder, SweepFunction, SweepPlan, replay
from pipeline.tuning.sweep_log import Metrics


def run_lost(plan: SweepPlan, function: SweepFunction, shared: Any, recorder: Recorder, bundles: Bundles) -> None:
    """Runs each of them on the nodes that are left, to its end: the scheduler that could have stopped it has gone."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    lost = [trial for trial in recorder.trials.values() if trial.lost]
    if not lost:
        return
    reference = ray.put(shared)
    running = []
    for trial in lost:
        group = ray.util.placement_group(bundles)
        task = ray.remote(_run).options(
            num_cpus=bundles[0]["CPU"],
            num_gpus=bundles[0].get("GPU", 0),
            max_retries=ray_listener.MAX_RETRIES,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
        )
        result = task.remote(function, trial.values, reference, list(trial.curve), plan)
        running.append((trial, group, result))
    for trial, group, result in running:
        trial.lost = False
        try:
            messages = ray.get(result)
        except ray.exceptions.RayError as error:
            trial.failure = f"its process died {ray_listener.MAX_RETRIES + 2} times; {explain_death(error)}"
            continue
        finally:
            ray.util.remove_placement_group(group)
        trial.failure = ""
        for position, message in enumerate(messages):
            recorder.add(trial, position, message)


def _run(function: SweepFunction, values: Values, shared: Any, known: list[Metrics], plan: SweepPlan) -> list[Message]:
    torch.set_num_threads(plan.threads)
    messages: list[Message] = []
    replay(function, values, shared, known, plan, messages.append)
    return messages
