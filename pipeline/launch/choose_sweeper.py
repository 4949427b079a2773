"""Tune or a loop in this process: the one place that looks at run.launch for sweeps."""

from contextlib import AbstractContextManager

from pipeline.config.run import Run
from pipeline.launch.ray_local_sweep import LocalSweeper
from pipeline.launch.ray_sweep import RaySweeper
from pipeline.tuning.sweep import Sweeper


def open_sweeper(run: Run) -> AbstractContextManager[Sweeper]:
    """What runs sweeps, inside a `with` block: both kinds give equal trials."""
    return RaySweeper(run) if run.launch == "ray" else LocalSweeper()
