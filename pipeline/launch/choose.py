"""In this process, on Ray, or by several Ray workers: the one place that chooses by run.launch and run.workers."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from pipeline.config.run import Run
from pipeline.device import set_threads
from pipeline.launch.launcher import Failure, Item, Launcher, OnEpoch, Result, Shared
from pipeline.launch.local import LocalLauncher
from pipeline.launch.ray_launcher import RayLauncher
from pipeline.launch.ray_workers import WorkersLauncher


def open_launcher(run: Run) -> AbstractContextManager[Launcher]:
    """What maps trials, inside a `with` block. Both kinds give equal results, several workers up to rounding."""
    return RayLauncher(run) if run.launch == "ray" else nullcontext(LocalLauncher(run.cpus_per_worker))


def open_fits(run: Run, name: str) -> AbstractContextManager[Launcher]:
    """As `open_launcher`, for fits that are long: one with several workers goes on from its checkpoint when it loses
    one, on whatever node, where a trial would begin again.

    name: unique to these fits and their inputs; under it, several workers keep their checkpoints.
    """
    return WorkersLauncher(run, name) if run.workers > 1 else open_launcher(run)


class Fitter(Protocol):
    """Trains one model wherever it was opened on."""

    def __call__(
        self, function: Callable[[Item, Shared, OnEpoch], Result], item: Item, shared: Shared, on_epoch: OnEpoch
    ) -> Result:
        """`function(item, shared, on_epoch)`; on_epoch is called in this process.

        Raises what the function raises; ValueError when workers failed for good.
        """
        ...


def fit_here(
    function: Callable[[Item, Shared, OnEpoch], Result], item: Item, shared: Shared, on_epoch: OnEpoch
) -> Result:
    """See `Fitter`."""
    return function(item, shared, on_epoch)


@contextmanager
def open_fitter(run: Run, name: str) -> Iterator[Fitter]:
    """What trains a model, inside the block: this process with run.threads, or run.workers workers. name: as above."""
    if run.workers == 1:
        set_threads(run.threads)
        yield fit_here
        return
    with WorkersLauncher(run, name) as launcher:

        def fit(
            function: Callable[[Item, Shared, OnEpoch], Result], item: Item, shared: Shared, on_epoch: OnEpoch
        ) -> Result:
            result = launcher.fit(function, item, shared, on_epoch)
            if isinstance(result, Failure):
                raise ValueError(f"{result.name}: {result.reason}\nMend it and run the same command again.")
            return result

        yield fit
