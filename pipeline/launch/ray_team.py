"""A sweep's trial on several workers: the trial's own process is rank 0, actors beside it are the others.

Ray Train would pay a minute of imports for each trial; these workers stay from one trial to the next.
"""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from pipeline.config.run import Run
from pipeline.launch.launcher import USER_ERRORS, Failure, call
from pipeline.tuning.points import Values
from pipeline.tuning.sweep import Report, SweepFunction, SweepPlan

FAREWELL_S = 20.0
"""How long workers may take to notice that their trial is over, before they are killed and replaced."""

Bundles = list[dict[str, float]]
"""What Ray sets aside for each worker of a trial, rank 0 first."""


def trial_bundles(settings: Run, plan: SweepPlan) -> Bundles:
    gpus = {"GPU": settings.gpus_per_worker} if settings.gpus_per_worker else {}
    return [{"CPU": float(plan.threads), **gpus} for _ in range(settings.workers)]


def team_up(function: SweepFunction, settings: Run, plan: SweepPlan, shared: Any) -> SweepFunction:
    """`function`, run by settings.workers workers where those are several; to be called in a process of Ray's."""
    import ray

    if settings.workers == 1:
        return function
    backend = "nccl" if settings.gpus_per_worker else "gloo"
    team = _Team(trial_bundles(settings, plan), plan.threads, backend, ray.put(shared))
    return partial(_run_on_team, function=function, team=team)


@dataclass(frozen=True)
class _Team:
    """shared: a reference, so that the workers of a node map one copy of the data."""

    bundles: Bundles
    threads: int
    backend: str
    shared: Any


_turn = threading.Lock()
"""A stopped trial's thread may still be leaving when Tune starts the next trial in its process."""
_others: dict[Any, list[Any]] = {}
"""The actors beside this process, by placement group: Tune runs trial after trial in the group it has."""


def _run_on_team(
    values: Values, shared: Any, report: Report, checkpoint: Path | None, *, function: SweepFunction, team: _Team
) -> None:
    """A `SweepFunction`. A worker that dies takes this process along: Tune then tries the trial again, as any other."""
    import ray

    with _turn:
        others = _gather_others(team)
        saved = checkpoint.read_bytes() if checkpoint is not None and checkpoint.is_file() else None
        host = ray.util.get_node_ip_address()
        store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
        meeting = _Meeting(host, store.port, len(team.bundles), team.backend)
        running = [
            other.work.remote(function, values, team.shared, checkpoint is not None, saved, meeting, rank)
            for rank, other in enumerate(others, start=1)
        ]
        try:
            with meeting.join(0, store):
                function(values, shared, report, checkpoint)
        except USER_ERRORS:
            raise
        except Exception as error:  # often no more than "connection closed": another worker knows why
            for failure in _last_words(running):
                raise ValueError(failure.reason) from error
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
        store = store or TCPStore(self.host, self.port, is_master=False)
        distributed.init_process_group(self.backend, store=store, rank=rank, world_size=self.size)
        try:
            yield
        finally:
            distributed.destroy_process_group()


class _Other:
    """A worker of a rank above 0."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def ready(self) -> None:
        """Answers when the process is up."""

    def work(
        self,
        function: SweepFunction,
        values: Values,
        shared: Any,
        keeps: bool,
        saved: bytes | None,
        meeting: _Meeting,
        rank: int,
    ) -> Failure | None:
        """keeps: whether the trial writes checkpoints.  saved: the one it goes on from."""
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "fit.ckpt" if keeps else None
            if checkpoint is not None and saved is not None:
                checkpoint.write_bytes(saved)

            def run(values: Values, shared: Any) -> None:
                with meeting.join(rank):
                    function(values, shared, _ignore, checkpoint)

            return call(run, values, shared)


def _ignore(_: Any) -> None:
    """Rank 0 reports."""


def _gather_others(team: _Team) -> list[Any]:
    """Those of the last trial if they live, else new ones."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group = ray.util.get_current_placement_group()
    for other in _others.get(group.id, []):
        try:
            ray.get(other.ready.remote())
        except ray.exceptions.RayError:
            _others.pop(group.id, None)
    if group.id not in _others:
        _others.clear()
        _others[group.id] = [
            ray.remote(_Other)
            .options(
                num_cpus=bundle["CPU"],
                num_gpus=bundle.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
            )
            .remote(team.threads)
            for index, bundle in enumerate(team.bundles[1:], start=1)
        ]
        try:
            ray.get([other.ready.remote() for other in _others[group.id]])
        except ray.exceptions.RayError:
            _die()
    return _others[group.id]


def _last_words(running: list[Any]) -> list[Failure]:
    """What the other workers say of an error that this one can't explain, those a person can mend first."""
    import ray

    failures = []
    done, _ = ray.wait(running, num_returns=len(running), timeout=FAREWELL_S)
    for reference in done:
        try:
            outcome = ray.get(reference)
        except ray.exceptions.RayActorError:
            _die()
        if isinstance(outcome, Failure):
            failures.append(outcome)
    return [failure for failure in failures if "Traceback" not in failure.reason]


def _dismiss(running: list[Any], others: list[Any]) -> None:
    """The next trial waits for this one's workers; those that hang are killed."""
    import ray

    _, late = ray.wait(running, num_returns=len(running), timeout=FAREWELL_S)
    for reference, other in zip(running, others, strict=True):
        if reference in late:
            ray.kill(other)


def _die() -> None:
    os._exit(1)
