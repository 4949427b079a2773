"""Section `run` of the shipped params.yaml, set for tests."""

from pathlib import Path

from pipeline.config.load import load_params
from pipeline.config.run import Run

PARAMS = Path(__file__).parent.parent / "params.yaml"


def ray_settings(*overrides: str) -> Run:
    """overrides: dotted assignments such as run.workers=2."""
    return load_params(PARAMS, overrides).section(Run)
