"""Trials on Ray: warm worker processes, data shared without copies, dead workers and nodes replaced."""

import copy
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.config.run import Run
from pipeline.launch.launcher import Failure, Item, Result, Shared, call, measure_bytes
from pipeline.launch.ray_room import wait_for_room
from pipeline.launch.ray_session import open_ray
from pipeline.launch.ray_team import Bundles, Team, run_on_team, trial_bundles

MAX_RETRIES = 2
"""How often an item whose worker died is tried again; an exception is not retried, it would only come back."""


class _Worker:
    """Lives in a process of its own from the first trial to the last, so that imports are paid once."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def ready(self) -> None:
        """Answers when the process is up."""

    def run(self, function: Callable[[Any, Any], Any], item: Any, shared: Any) -> Any:
        return call(function, item, shared)


@dataclass(frozen=True)
class _Slot:
    """A warm worker. group: the placement group of the workers that a trial has, None where it has one."""

    worker: Any
    group: Any


@dataclass
class _Task:
    index: int
    item: Any
    deaths: int = 0


class RayLauncher:
    """See `Launcher`. A context manager: Ray starts, or is joined, with the first trials and left when the block ends.

    Workers stay from one `map_trials` to the next. A worker that the cluster has no room for yet gets its first trial
    when it starts, so a node that joins later is used. With run.workers above 1 each of them is the first of a team.
    """

    def __init__(self, run: Run) -> None:
        self._settings = run
        self._session = ExitStack()
        self._started = False
        self._idle: list[_Slot] = []
        self._starting: dict[Any, _Slot] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._idle, self._starting = [], {}
        self._session.close()

    def map_trials(
        self,
        function: Callable[[Item, Shared], Result],
        items: Sequence[Item],
        shared: Shared,
        *,
        on_result: Callable[[Item, Result], None] | None = None,
    ) -> list[Result | Failure]:
        if not items:
            return []
        self._start(shared, min(self._settings.trials_at_once, len(items)))
        import ray

        reference = ray.put(shared)
        bundles = self._bundles()
        run = partial(_run_on_team, function=function, team=Team(bundles, reference)) if len(bundles) > 1 else function
        waiting = deque(_Task(index, item) for index, item in enumerate(items))
        results: list[Any] = [None] * len(items)
        running: dict[Any, tuple[_Task, _Slot]] = {}
        try:
            while waiting or running:
                while waiting and self._idle:
                    task, slot = waiting.popleft(), self._idle.pop()
                    running[slot.worker.run.remote(run, task.item, reference)] = task, slot
                (done, *_), _ = ray.wait([*running, *self._starting], num_returns=1)
                if done in self._starting:
                    self._welcome(done)
                    continue
                task, slot = running.pop(done)
                result, alive = _collect(done, task)
                if alive:
                    self._idle.append(slot)
                else:
                    self._replace(slot)
                if result is None:
                    waiting.appendleft(task)
                    continue
                results[task.index] = result
                if on_result is not None and not isinstance(result, Failure):
                    on_result(task.item, result)
        finally:  # on_result may have raised: who is still busy takes its next task when it is done
            self._idle += [slot for _, slot in running.values()]
        return results

    def _start(self, shared: object, workers: int) -> None:
        """Starts Ray on the first call, sized for its data, and as many workers as can be busy."""
        if not self._started:
            run = self._settings
            slots = run.trials_at_once * run.workers * run.cpus_per_worker
            self._session.enter_context(open_ray(run, slots, measure_bytes(shared)))
            wait_for_room(self._bundles(), "run.cpus_per_worker")
            self._started = True
        for _ in range(workers - len(self._idle) - len(self._starting)):
            self._add_worker()

    def _add_worker(self) -> None:
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        run, bundles, placed, group = self._settings, self._bundles(), {}, None
        if len(bundles) > 1:
            group = ray.util.placement_group(bundles)
            placed = {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)}
        actor = ray.remote(num_cpus=run.cpus_per_worker, num_gpus=run.gpus_per_worker, **placed)(_Worker)
        worker = actor.remote(run.cpus_per_worker)
        self._starting[worker.ready.remote()] = _Slot(worker, group)

    def _replace(self, slot: _Slot) -> None:
        import ray

        if slot.group is not None:  # with the workers that are left in it
            ray.util.remove_placement_group(slot.group)
        self._add_worker()

    def _bundles(self) -> Bundles:
        return trial_bundles(self._settings, self._settings.cpus_per_worker)

    def _welcome(self, reference: Any) -> None:
        """A worker has started, or its node died before it could, and it starts elsewhere."""
        import ray

        slot = self._starting.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.RayError:
            self._replace(slot)
        else:
            self._idle.append(slot)


def _run_on_team(item: Item, shared: Shared, *, function: Callable[[Item, Shared], Result], team: Team) -> Result:
    """What the first worker of a team runs in place of `function`."""
    return run_on_team(team, lambda: function(item, shared), partial(function, item))


def _collect(reference: Any, task: _Task) -> tuple[Any, bool]:
    """The task's result, or None when it is to be tried again; and whether its worker lives."""
    import ray

    try:
        # A copy: what Ray returns maps its object store, which is gone after the shutdown.
        return copy.deepcopy(ray.get(reference)), True
    except ray.exceptions.RayTaskError as error:  # before `call`: the function or its data could not be unpickled
        return Failure(str(task.item), str(error).strip()), True
    except ray.exceptions.RayError as error:  # the worker died, or what it returned was lost with its node
        task.deaths += 1
        if task.deaths <= MAX_RETRIES:
            print(f"{task.item}: its worker process died, trying again", file=sys.stderr, flush=True)
            return None, False
        times = "once" if task.deaths == 1 else f"{task.deaths} times"
        return Failure(str(task.item), f"its worker process died {times}; {explain_death(error)}"), False


def explain_death(error: Exception) -> str:
    """Why Ray says that a process died, for a person."""
    text = str(error).lower()
    if "low on memory" in text or "memory pressure" in text:  # the words of Ray's memory monitor
        return "Ray killed it because its node ran out of memory: lower run.trials_at_once or the batch size"
    return "it may need more memory than there is"
