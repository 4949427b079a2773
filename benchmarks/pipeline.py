"""Wall time of every stage from an empty cache, and of a repro that has nothing to do.

`python -m benchmarks.pipeline` runs params.yaml as it is; `--quick` cuts the training short and leaves the total
without a bar.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import Row, record
from pipeline.config.load import write_changed

TOTAL_BAR_S, NOOP_BAR_S = 720.0, 5.0

QUICK = (
    "data.label_budgets=[50,200]",
    "data.label_draws=2",
    "pretrain.layers.conv1.steps=20",
    "pretrain.layers.conv2.steps=20",
    "pretrain.layers.dense.steps=40",
    "vae.steps=40",
    "vae.warmup_steps=10",
    "gan.steps=30",
    "augment.images_per_class=30",
    "augment.quality_images=200",
    "tune.arms=[scratch,cdbn]",
    "tune.num_trials=2",
    "tune.steps=12",
    "tune.reports=2",
    "tune.budget=50",
    "study.steps=12",
    "finetune.epochs=1",
    "anomaly.normal_classes=[0]",
    "anomaly.vae_steps=10",
    "anomaly.gan_steps=10",
    "anomaly.encoder_steps=10",
    "anomaly.rbm_steps=20",
    "anomaly.conv_steps=10",
    "denoise.steps=10",
    "denoise.rbm_steps=10",
    "denoise.gibbs_rounds=5",
    "denoise.posterior_steps=3",
    "denoise.posterior_samples=2",
    "denoise.images=30",
    "represent.steps=10",
    "represent.seeds=2",
    "represent.map_images=50",
    "documents.seeds=1",
    "documents.epochs=1",
    "documents.ais_documents=5",
    "documents.ais_temperatures=10",
)
"""Every stage for real, with as little training as shows that it works."""


def copy_project(root: Path, target: Path) -> None:
    """The files git tracks, as they are in the working tree, in a repository of their own with one commit."""
    listed = subprocess.run(["git", "ls-files"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (root / name).is_file() and not name.startswith(("metrics/", "dvc.lock")):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    identity = ["-c", "user.name=benchmark", "-c", "user.email=benchmark@localhost"]
    for command in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "copy"]):
        subprocess.run(["git", *command], cwd=target, check=True)


def time_repro(project: Path) -> tuple[dict[str, float], float]:
    """Runs `dvc repro`; seconds of each stage by name, and of the whole command."""
    starts: list[tuple[str, float]] = []
    began = time.monotonic()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        ["dvc", "repro"], cwd=project, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", file=sys.stderr, flush=True)
        if found := re.match(r"Running stage '(.+)'", line):
            starts.append((found[1], time.monotonic()))
    if process.wait() != 0:
        raise SystemExit("dvc repro failed: see above")
    ended = time.monotonic()
    ends = [*(start for _, start in starts[1:]), ended][: len(starts)]  # none where there was nothing to do
    return {name: end - start for (name, start), end in zip(starts, ends, strict=True)}, ended - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short training, for a look at the overhead")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        project = Path(name)
        copy_project(Path.cwd(), project)
        if quick:
            write_changed(project / "params.yaml", project / "params.yaml", QUICK)
        stages, total = time_repro(project)
        noop = min(time_repro(project)[1] for _ in range(3))
    rows = [Row(name=stage, value=seconds, unit="s") for stage, seconds in stages.items()]
    rows.append(Row(name="all stages", value=total, unit="s", bar=None if quick else TOTAL_BAR_S))
    rows.append(Row(name="nothing to do", value=noop, unit="s", bar=NOOP_BAR_S, goal=1.0))
    return record("pipeline", rows)


if __name__ == "__main__":
    sys.exit(main())
