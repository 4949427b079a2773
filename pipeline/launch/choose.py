"""Local or Ray: the one place that looks at run.launch."""

from contextlib import AbstractContextManager, nullcontext

from pipeline.config.run import Run
from pipeline.launch.launcher import Launcher
from pipeline.launch.local import LocalLauncher
from pipeline.launch.ray_launcher import RayLauncher


def open_launcher(run: Run) -> AbstractContextManager[Launcher]:
    """What maps trials, inside a `with` block: both kinds give equal results."""
    return RayLauncher(run.trials_at_once) if run.launch == "ray" else nullcontext(LocalLauncher())
