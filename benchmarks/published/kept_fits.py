"""Fits of the published generator rows: a killed one goes on, and a finished one is not repeated."""

import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from torch import nn

from benchmarks.published.digits import Effort, kept
from pipeline.models.losses import Batch
from pipeline.training.fit import fit
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import Stream
from pipeline.weights import load_weights, save_weights

REPORTS = 20
"""Epochs of a fit: each ends with a checkpoint and a line on the screen."""


class Described(Protocol):
    def to_config(self) -> dict[str, Any]: ...


def fit_kept(
    model: nn.Module,
    stream: Stream,
    plan: FitPlan,
    effort: Effort,
    *,
    name: str,
    data: str = "mnist",
    validation: Sequence[Batch] = (),
) -> float | None:
    """Trains `model` in place.  Returns the seconds it took, None where an earlier run did some of it.

    data: what the stream holds, to tell its fit from others of the same name.
    """
    described: Any = model
    folder = kept(name, data, described.to_config(), plan)
    file = folder / "model.safetensors"
    if not effort.quick and file.is_file():
        model.load_state_dict(load_weights(file, kind=type(model).__name__)[0])
        model.eval()
        return None
    checkpoint = None if effort.quick else folder / "fit.ckpt"
    fresh, began = checkpoint is None or not checkpoint.is_file(), time.perf_counter()

    def show(step: int, entry: Epoch) -> None:
        values = ", ".join(f"{part} {value:.4g}" for part, value in entry.items() if part.endswith("loss"))
        print(f"{name}: update {step} of {plan.steps}, {values}", file=sys.stderr, flush=True)

    fit(model, stream, plan, validation=validation, checkpoint=checkpoint, on_epoch=show)
    if not effort.quick:
        save_weights(file, model.state_dict(), kind=type(model).__name__, config=described.to_config())
    return time.perf_counter() - began if fresh else None
