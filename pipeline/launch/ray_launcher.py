"""Trials on a local Ray: warm worker processes, data shared without copies, dead workers replaced."""

import copy
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import torch

from pipeline.launch.launcher import THREADS_PER_TRIAL, Failure, Item, Result, Shared, call, measure_bytes
from pipeline.launch.ray_session import local_ray

MAX_RETRIES = 2
"""How often an item whose worker died is tried again; an exception is not retried, it would only come back."""


class _Worker:
    """Lives in a process of its own from the first trial to the last, so that imports are paid once."""

    def __init__(self) -> None:
        torch.set_num_threads(THREADS_PER_TRIAL)

    def run(self, function: Callable[[Any, Any], Any], item: Any, shared: Any) -> Any:
        return call(function, item, shared)


@dataclass
class _Task:
    index: int
    item: Any
    deaths: int = 0


class RayLauncher:
    """See `Launcher`. A context manager: Ray starts with the first trials and stops when the block ends.

    slots: trials side by side, >= 1, each with one thread. Workers stay from one `map_trials` to the next.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._session = ExitStack()
        self._started = False
        self._idle: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._idle = []
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
        self._start(shared, min(self._slots, len(items)))
        import ray

        reference = ray.put(shared)
        waiting = deque(_Task(index, item) for index, item in enumerate(items))
        results: list[Any] = [None] * len(items)
        running: dict[Any, tuple[_Task, Any]] = {}
        try:
            while waiting or running:
                while waiting and self._idle:
                    task, worker = waiting.popleft(), self._idle.pop()
                    running[worker.run.remote(function, task.item, reference)] = task, worker
                (done, *_), _ = ray.wait(list(running), num_returns=1)
                task, worker = running.pop(done)
                result, alive = _collect(done, task)
                self._idle.append(worker if alive else _new_worker())
                if result is None:
                    waiting.appendleft(task)
                    continue
                results[task.index] = result
                if on_result is not None and not isinstance(result, Failure):
                    on_result(task.item, result)
        finally:  # on_result may have raised: who is still busy takes its next task when it is done
            self._idle += [worker for _, worker in running.values()]
        return results

    def _start(self, shared: object, workers: int) -> None:
        """Starts Ray on the first call, sized for its data, and as many workers as can be busy."""
        if not self._started:
            self._session.enter_context(local_ray(self._slots, measure_bytes(shared)))
            self._started = True
        self._idle += [_new_worker() for _ in range(workers - len(self._idle))]


def _new_worker() -> Any:
    import ray

    return ray.remote(num_cpus=1)(_Worker).remote()


def _collect(reference: Any, task: _Task) -> tuple[Any, bool]:
    """The task's result, or None when it is to be tried again; and whether its worker lives."""
    import ray

    try:
        # A copy: what Ray returns maps its object store, which is gone after the shutdown.
        return copy.deepcopy(ray.get(reference)), True
    except ray.exceptions.RayActorError:
        task.deaths += 1
        if task.deaths <= MAX_RETRIES:
            print(f"{task.item}: its worker process died, trying again", file=sys.stderr, flush=True)
            return None, False
        reason = f"its worker process died {task.deaths} times; it may need more memory than there is"
        return Failure(str(task.item), reason), False
    except ray.exceptions.RayTaskError as error:  # before `call`: the function or its data could not be unpickled
        return Failure(str(task.item), str(error).strip()), True
