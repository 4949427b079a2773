"""What Ray costs: equal trials on two slots, two workers on one model, warm trials, memory by trial, imports.

`python -m benchmarks.scaling [--quick] [--parts grid ...]`. Trials are the default study's scratch network at its
largest budget.
"""

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import torch

from benchmarks.record import Row, record
from pipeline.config.load import load_params
from pipeline.config.run import Run
from pipeline.data.embedded import load_embedded
from pipeline.launch.local import LocalLauncher
from pipeline.launch.ray_launcher import RayLauncher
from pipeline.launch.ray_workers import WorkersLauncher
from pipeline.models.dbn import DBN
from pipeline.tuning.trial import TrialData, TrialSpec, run_trial

TRIALS, SLOTS = 8, 2
MNIST_IMAGES = 54_001
"""Training images of full MNIST under the default split: 42 MB of pixels."""
WITHOUT_RAY = "import sys; sys.modules['ray'] = None; "
"""Makes every `import ray` fail, as where it is not installed."""
BATCHES, BARS = (64, 256, 512), {512: 1.6}
"""Shared by two workers, and the speed they must reach there."""
PARTS = ("grid", "workers", "memory", "imports")
START: Any = None
"""Where processes that are to run at once wait for each other."""


def settings(*overrides: str) -> Run:
    return load_params(Path("params.yaml"), overrides).section(Run)


def make_data(num_images: int) -> TrialData:
    """The embedded digits, repeated up to `num_images`."""
    raw = load_embedded()
    order = np.random.default_rng(0).permutation(len(raw.images))
    images, labels = raw.images[order], raw.labels[order].astype(np.int64)
    copies = -(-num_images // len(images))
    layers = list(load_params(Path("params.yaml")).layers.values())
    dbn = DBN(layers, images.shape[1:])
    return TrialData(
        images=np.concatenate([images] * copies)[:num_images],
        labels=np.concatenate([labels] * copies)[:num_images],
        validation_images=images[:500],
        validation_labels=labels[:500],
        num_classes=10,
        dbn_config=dbn.to_config(),
        dbn_state={name: tensor.numpy() for name, tensor in dbn.state_dict().items()},
    )


def make_spec(steps: int, *, batch_size: int = 64, seed: int = 0, reports: int = 1) -> TrialSpec:
    return TrialSpec(
        purpose="study",
        arm="scratch",
        budget=None,
        seed=seed,
        root_seed=0,
        steps=steps,
        reports=reports,
        batch_size=batch_size,
        lr=0.001,
        weight_decay=0.01,
        dropout=0.5,
    )


def time_call(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def measure_grid(rounds: int, steps: int) -> list[Row]:
    """Bare trials and trials on Ray take turns; medians over the rounds."""
    data, specs = make_data(3_500), [make_spec(steps, seed=seed) for seed in range(TRIALS)]
    bare, mapped = [], []
    local = LocalLauncher()
    local.map_trials(run_trial, specs[:1], data)
    with RayLauncher(settings(f"run.trials_at_once={SLOTS}")) as launcher:
        launcher.map_trials(run_trial, specs[:SLOTS], data)
        for _ in range(rounds):
            bare.append(time_call(lambda: local.map_trials(run_trial, specs, data)))
            mapped.append(time_call(lambda: launcher.map_trials(run_trial, specs, data)))
        empty = time_call(lambda: launcher.map_trials(do_nothing, range(200), data)) * SLOTS / 200
    ratios = [after / (before / SLOTS) for before, after in zip(bare, mapped, strict=True)]
    overhead = median((after * SLOTS - before) / TRIALS for before, after in zip(bare, mapped, strict=True))
    low, high = min(ratios), max(ratios)
    return [
        Row(name="8 trials on 2 slots, of ideal time", value=median(ratios), unit="x", low=low, high=high, bar=1.15),
        Row(name="a trial alone", value=median(bare) / TRIALS, unit="s"),
        Row(name="overhead of a warm trial", value=overhead, unit="s", goal=0.3),
        Row(name="overhead of a warm empty trial", value=empty, unit="s", goal=0.3),
    ]


def do_nothing(item: int, _: TrialData) -> int:
    return item


def time_epochs(item: TrialSpec, data: TrialData, _: Callable[..., None]) -> list[float]:
    """Seconds of each epoch but the first, on rank 0."""
    ends: list[float] = []

    def note(*_: object) -> None:
        ends.append(time.perf_counter())

    small = replace(data, validation_images=data.validation_images[:10], validation_labels=data.validation_labels[:10])
    run_trial(item, small, report=note)
    return list(np.diff(ends))


def measure_workers(rounds: int, steps: int, batch_sizes: Sequence[int]) -> list[Row]:
    """The same fit by one process pinned to a core, and by two workers; the global batch stays.

    The limit is what two processes reach that train on half a batch each and never meet. All three take turns. At 64
    images an update is so short (14 ms) that meeting after each costs what sharing it saves; at 256 it saves a third.
    The bar is for 512.
    """
    data, rows = make_data(3_500), []
    for batch_size in batch_sizes:
        spec = make_spec(steps * 256 // batch_size, batch_size=batch_size, reports=4)
        half = replace(spec, batch_size=batch_size // 2)
        speeds, limits = [], []
        for _ in range(rounds):
            alone = run_pinned([spec])
            limits.append(alone / run_pinned([half, half]))
            with tempfile.TemporaryDirectory() as folder:
                run = settings("run.workers=2", f"run.storage={folder}", "run.trials_at_once=1")
                with WorkersLauncher(run, "scaling") as launcher:
                    shared = launcher.fit(time_epochs, spec, data, lambda *_: None)
            assert isinstance(shared, list), shared
            speeds.append(alone / median(shared))
        name, low, high = f"speed of 2 workers, batch {batch_size}", min(speeds), max(speeds)
        bar = BARS.get(batch_size)
        rows.append(Row(name=name, value=median(speeds), unit="x", low=low, high=high, bar=bar, better="higher"))
        name = f"its limit, batch {batch_size}"
        rows.append(Row(name=name, value=median(limits), unit="x", better="higher"))
    return rows


def run_pinned(specs: Sequence[TrialSpec]) -> float:
    """Median seconds of an epoch of fits that run at once, each in a process on a core of its own."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(len(specs))
    cores = sorted(os.sched_getaffinity(0))[: len(specs)]
    with ProcessPoolExecutor(len(specs), context, initializer=take_barrier, initargs=(start,)) as pool:
        return median(pool.map(time_pinned, specs, cores))


def take_barrier(start: Any) -> None:
    global START
    START = start


def time_pinned(spec: TrialSpec, core: int) -> float:
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    data = make_data(3_500)
    START.wait()
    return median(time_epochs(spec, data, lambda *_: None))


def wait(*_: object) -> float:
    """Touches nothing of the data, and is there long enough for every worker to have such a trial."""
    time.sleep(3)
    return 0.0


def hold(item: int, data: TrialData) -> float:
    """Touches all of the data."""
    return float(data.images.sum()) + wait(item)


def measure_memory(counts: Sequence[int]) -> list[Row]:
    """Proportional memory (shared pages divided among their users) of `count` workers that read full MNIST at once."""
    data = make_data(MNIST_IMAGES)
    pixels, rows = data.images.nbytes / 2**20, []
    for count in counts:
        with RayLauncher(settings(f"run.trials_at_once={count}")) as launcher:
            idle = peak_memory(launcher, wait, count, data)
            busy = peak_memory(launcher, hold, count, data)
        rows += [
            Row(name=f"memory of {count} trials", value=busy, unit="MiB"),
            Row(
                name=f"of which the data ({pixels:.0f} MiB)",
                value=busy - idle,
                unit="MiB",
                baseline=count * pixels,
            ),
        ]
    return rows


def peak_memory(
    launcher: RayLauncher, function: Callable[[int, TrialData], float], count: int, data: TrialData
) -> float:
    """The most that `count` workers used when one of them had finished and the others were still there."""
    used: list[float] = []
    launcher.map_trials(function, range(count), data, on_result=lambda *_: used.append(worker_memory()))
    return max(used)


def worker_memory() -> float:
    """MiB of all Ray workers that are ours."""
    workers = [child for child in psutil.Process().children(recursive=True) if "_Worker" in " ".join(child.cmdline())]
    return float(sum(worker.memory_full_info().pss for worker in workers)) / 2**20


def measure_imports(rounds: int) -> list[Row]:
    """A fit in this process with Ray installed and with Ray hidden, interleaved."""
    fit = "import pipeline.training.fit, pipeline.launch.choose; assert not sys.modules.get('ray'), 'ray was imported'"
    code = {"with": f"import sys; {fit}", "without": WITHOUT_RAY + fit}
    seconds: dict[str, list[float]] = {name: [] for name in code}
    for _ in range(rounds):
        for name, text in code.items():
            seconds[name].append(
                time_call(lambda text=text: subprocess.run([sys.executable, "-c", text], check=True))  # type: ignore[misc]
            )
    ratio = median(seconds["with"]) / median(seconds["without"])
    return [Row(name="imports of a fit, Ray installed", value=ratio, unit="x", goal=1.0)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and shorter trials")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="the others keep their last result")
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES, help="of part workers, even numbers")
    arguments = parser.parse_args()
    quick = arguments.quick
    os.environ.setdefault("PYTHONPATH", str(Path.cwd()))  # where workers find this file
    os.environ.setdefault("RAY_worker_niceness", "0")  # as bare trials; Ray's workers give way to others otherwise
    measures: dict[str, Callable[[], list[Row]]] = {
        "grid": lambda: measure_grid(rounds=2 if quick else 5, steps=40 if quick else 150),
        "workers": lambda: measure_workers(1 if quick else 3, 160 if quick else 240, arguments.batches),
        "memory": lambda: measure_memory([1, 4] if quick else [1, 4, 8]),
        "imports": lambda: measure_imports(rounds=2 if quick else 5),
    }
    rows = [row for part in arguments.parts for row in measures[part]()]
    return record("scaling", rows, keep_others=not quick)


if __name__ == "__main__":
    sys.exit(main())
