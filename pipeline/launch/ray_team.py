"""A mapped or swept trial on several workers: the trial's own process is rank 0, actors beside it are the others.

Ray Train would pay seconds of imports by six processes for each trial; these workers stay from one to the next.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from pipeline.config.run import Run
from pipeline.launch.launcher import USER_ERRORS, Failure, Result, call

FAREWELL_S = 20.0
"""How long workers may take to notice that their trial is over, before they are killed and replaced."""

MEETING_TIMEOUT = timedelta(minutes=2)
"""How long a worker waits for the others to come, who have imported most of what they need."""

Bundles = list[dict[str, float]]
"""What Ray sets aside for each worker of a trial, rank 0 first."""


def trial_bundles(settings: Run, threads: int) -> Bundles:
    """threads: of each worker."""
    gpus = {"GPU": settings.gpus_per_worker} if settings.gpus_per_worker else {}
    return [{"CPU": float(threads), **gpus} for _ in range(settings.workers)]


@dataclass(frozen=True)
class Team:
    """The workers of a trial. shared: a reference to what all trials read: those on one node map one copy."""

    bundles: Bundles
    shared: Any

    @property
    def threads(self) -> int:
        return int(self.bundles[0]["CPU"])

    @property
    def backend(self) -> str:
        return "nccl" if "GPU" in self.bundles[0] else "gloo"


_turn = threading.Lock()
"""A stopped trial's thread may still be leaving when Tune starts the next trial in its process."""
_others: dict[Any, list[Any]] = {}
"""The actors beside this process, by placement group: trial after trial runs in the group that this process is in."""


def run_on_team(team: Team, mine: Callable[[], Result], theirs: Callable[[Any], object]) -> Result:
    """mine() here as rank 0, theirs(shared) on the other workers, in one process group.

    To be called in the first bundle of a placement group of `team.bundles`. A worker that dies takes this process
    along: who runs it tries the trial again, as any other. An error that only another worker can explain is raised
    here as ValueError.
    """
    import ray

    with _turn:
        others = _gather_others(team)
        host = ray.util.get_node_ip_address()
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=MEETING_TIMEOUT)
        meeting = _Meeting(store.host, store.port, len(team.bundles), team.backend)
        running = [other.work.remote(theirs, team.shared, meeting, rank) for rank, other in enumerate(others, start=1)]
        try:
            with meeting.join(0, store):
                return mine()
        except USER_ERRORS:
            raise
        except Exception as error:  # often no more than "connection closed": another worker knows why
            for reason in _last_words(running):
                raise ValueError(reason) from error
            raise
        finally:  # the trial may also have been stopped, by SystemExit
            _dismiss(running, others)


@dataclass(frozen=True)
class _Meeting:
    """Where the workers of one trial find each other."""

    host: str
    port: int
    size: int
    backend: str

    @contextmanager
    def join(self, rank: int, store: Any = None) -> Iterator[None]:
        try:
            store = store or TCPStore(self.host, self.port, is_master=False, timeout=MEETING_TIMEOUT)
            distributed.init_process_group(self.backend, store=store, rank=rank, world_size=self.size)
            distributed.barrier()  # whoever fails from here on is noticed by all, who are connected now
        except RuntimeError:  # another worker died; half a process group can't be cleared away
            _die()
        try:
            yield
        finally:
            distributed.destroy_process_group()


class _Other:
    """A worker of a rank above 0."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def ready(self) -> None:
        """Answers when the process is up, and not while it works."""

    def work(self, theirs: Callable[[Any], object], shared: Any, meeting: _Meeting, rank: int) -> Failure | None:
        def run(rank: int, shared: Any) -> None:
            with meeting.join(rank):
                theirs(shared)

        return call(run, rank, shared)


def _gather_others(team: Team) -> list[Any]:
    """Those of the last trial if they live, else new ones."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = ray.util.get_current_placement_group()
    known = _others.get(group.id)
    if known is not None and _are_ready(known):
        return known
    _others.clear()
    others = [
        ray.remote(_Other)
        .options(
            num_cpus=bundle["CPU"],
            num_gpus=bundle.get("GPU", 0),
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        )
        .remote(team.threads)
        for index, bundle in enumerate(team.bundles[1:], start=1)
    ]
    if not _are_ready(others):
        _die()
    _others[group.id] = others
    return others


def _are_ready(others: list[Any]) -> bool:
    import ray

    try:
        ray.get([other.ready.remote() for other in others])
    except ray.exceptions.RayError:
        return False
    return True


def _last_words(running: list[Any]) -> list[str]:
    """What other workers say of an error, where it is one that a person can mend."""
    import ray

    done, _ = ray.wait(running, num_returns=len(running), timeout=FAREWELL_S)
    outcomes = []
    for reference in done:
        try:
            outcomes.append(ray.get(reference))
        except ray.exceptions.RayActorError:
            _die()
    return [outcome.reason for outcome in outcomes if outcome is not None and "Traceback" not in outcome.reason]


def _dismiss(running: list[Any], others: list[Any]) -> None:
    """The next trial waits for this one's workers; those that hang are killed."""
    import ray

    _, late = ray.wait(running, num_returns=len(running), timeout=FAREWELL_S)
    for reference, other in zip(running, others, strict=True):
        if reference in late:
            ray.kill(other)


def _die() -> None:
    os._exit(1)
