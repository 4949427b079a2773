"""How near the dense RBM's training comes to its matrix products alone, and how far it is ahead of its peers.

`python -m benchmarks.rbm_speed [--quick]`: 784-1024, batches of 128 embedded digits, one thread on one core. What is
timed is `fit` itself, Lightning included, epoch by epoch; its start is not. All take turns within a round, times are
CPU time, ratios are formed within a round, and the median is shown with the range over the rounds.

Peers train by their own default (scikit-learn and rbms PCD-1, learnergy CD-1). learnergy and rbms have rows where they
are installed, bfloat16 where the processor multiplies it.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks.conv_steps import measure_conv
from benchmarks.rbm_peers import LR, make_peers
from benchmarks.record import Row, record
from pipeline.data.embedded import load_embedded
from pipeline.device import set_threads
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.rbm import RBM
from pipeline.seeding import make_generator
from pipeline.training.fit import fit
from pipeline.training.plan import FitPlan
from pipeline.training.stream import BatchStream

NUM_HIDDEN, BATCH = 1024, 128
EPOCHS = 3
"""Of a timed fit; the first is left out."""

Step = Callable[[], float]
"""Seconds of CPU time a batch."""


def load_binary() -> Tensor:
    """The embedded digits in order of a fixed shuffle, uint8 (N, 784) of 0 and 255, N a multiple of the batch."""
    images = torch.from_numpy(load_embedded().images).flatten(1)
    order = torch.randperm(len(images), generator=make_generator(0, "rbm_speed"))[: len(images) // BATCH * BATCH]
    return (images[order] > 127).to(torch.uint8) * 255


def time_calls(function: Callable[[], object], batches: int = 1) -> float:
    """Seconds of CPU time of a call, a batch."""
    began = time.process_time()
    function()
    return (time.process_time() - began) / batches


def fitted(x: Tensor, *, gibbs_steps: int, precision: str, steps: int) -> Step:
    """Epochs of `steps` updates of CD-k through `fit`."""
    labels = torch.full((len(x),), UNLABELLED)
    model = RBM(x.shape[1], NUM_HIDDEN, gibbs_steps=gibbs_steps)
    model.initialise(Batch(x[:512].float() / 255, labels[:512]), make_generator(0, "weights"))
    stream = BatchStream(x, labels, batch_size=BATCH, seed=0)
    plan = FitPlan(steps=EPOCHS * steps, steps_per_epoch=steps, lr=LR, optimizer="sgd", seed=0, precision=precision)

    def run() -> float:
        ends: list[float] = []
        fit(model, stream, plan, on_epoch=lambda *_: ends.append(time.process_time()))
        return (ends[-1] - ends[0]) / ((EPOCHS - 1) * steps)

    return run


def products(num_visible: int, gibbs_steps: int, repeats: int) -> Step:
    """The matrix products of CD-k alone, 2 k + 3 of them, into memory that is there."""
    v, h = torch.rand(BATCH, num_visible), torch.rand(BATCH, NUM_HIDDEN)
    W = torch.randn(num_visible, NUM_HIDDEN)
    up, down, gradient = torch.empty_like(h), torch.empty_like(v), torch.empty_like(W)

    def multiply() -> None:
        for _ in range(repeats):
            torch.mm(v, W, out=up)
            for _ in range(gibbs_steps):
                torch.mm(h, W.t(), out=down)
                torch.mm(v, W, out=up)
            for _ in range(2):
                torch.mm(v.t(), h, out=gradient)

    return lambda: time_calls(multiply, repeats)


def multiplies_bfloat16() -> bool:
    """Whether the processor has instructions for it; without them torch is slower in bfloat16 than in float32."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.is_file() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags


def measure(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Times by name, all taking turns; a first round warms up and is left out."""
    times = [{name: step() for name, step in steps.items()} for _ in range(rounds + 1)]
    return {name: [one[name] for one in times[1:]] for name in steps}


def ratio(times: dict[str, list[float]], slow: str, fast: str, name: str, bar: float) -> Row:
    """How many times `fast` goes into `slow`."""
    ratios = [a / b for a, b in zip(times[slow], times[fast], strict=True)]
    return Row(
        name=name,
        value=median(ratios),
        unit="x",
        low=min(ratios),
        high=max(ratios),
        baseline=1e3 * median(times[slow]),
        bar=bar,
        better="higher",
    )


def measure_dense(rounds: int) -> list[Row]:
    x = load_binary()
    steps: dict[str, Step] = {
        "products": products(x.shape[1], 1, 20),
        "fp32": fitted(x, gibbs_steps=1, precision="32", steps=20),
        "products 10": products(x.shape[1], 10, 5),
        "fp32 10": fitted(x, gibbs_steps=10, precision="32", steps=5),
    }
    half = multiplies_bfloat16()
    if half:
        steps["bf16"] = fitted(x, gibbs_steps=1, precision="bf16", steps=20)
    else:
        print("no rows for bf16: the processor has no instructions for it (avx512_bf16 or amx_bf16)")
    peers = make_peers(x.float() / 255, NUM_HIDDEN, BATCH)
    for name, one_pass in peers.items():
        steps[name] = lambda one_pass=one_pass: time_calls(one_pass, len(x) // BATCH)  # type: ignore[misc]
    times = measure(steps, rounds)
    rows = [
        Row(name="CD-1 step, fp32", value=1e3 * median(times["fp32"]), unit="ms"),
        ratio(times, "products", "fp32", "CD-1 fp32, of its 5 products", 0.85),
        ratio(times, "products 10", "fp32 10", "CD-10 fp32, of its 23 products", 0.80),
    ]
    if half:
        rows.append(ratio(times, "fp32", "bf16", "CD-1 bf16 against fp32", 1.6))
    for name in peers:
        rows.append(ratio(times, name, "fp32", f"fp32 against {name}", 1.4 if name == "scikit-learn" else 2.0))
        if half:
            rows.append(ratio(times, name, "bf16", f"bf16 against {name}", 2.5 if name == "scikit-learn" else 4.0))
    return rows


MEASURES: Sequence[Callable[[int], list[Row]]] = (measure_dense, measure_conv)
"""By the number of rounds."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    rounds = 3 if parser.parse_args().quick else 9
    set_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return record("rbm_speed", [row for measure_rows in MEASURES for row in measure_rows(rounds)])


if __name__ == "__main__":
    sys.exit(main())
