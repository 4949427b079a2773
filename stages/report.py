"""report/index.html: the verdict, its evidence, and what reproduces it."""

import sys
from pathlib import Path

from pipeline import paths
from pipeline.artifacts import write_text
from pipeline.config.load import load_params
from pipeline.report.gather import Gatherer
from pipeline.report.html import render
from pipeline.report.reproduction import read_reproduction
from pipeline.stage import Stage, StageSpec, run_stage

TEMPLATES = Path("pipeline/report/templates")
"""Not Python, so no import leads to it: named here for the hash of the inputs."""

SPEC = StageSpec(
    "report",
    params=(),
    inputs=(
        paths.PREPARED,
        paths.PRETRAINED,
        paths.SYNTHETIC,
        paths.TUNE,
        paths.STUDY,
        paths.FINETUNE,
        paths.EVALUATE,
        paths.APPLICATIONS,
        paths.METRICS,
        paths.PLOTS,
        TEMPLATES,
    ),
    outputs=(paths.REPORT,),
)


def report(stage: Stage) -> None:
    params = load_params(stage.root / "params.yaml")
    reproduction = read_reproduction(stage.root, SPEC.inputs[:-1])
    content = Gatherer(stage.root, params).gather(reproduction)
    write_text(stage.output(paths.REPORT) / "index.html", render(content))
    stage.say(f"{content.verdict.headline}\nThe evidence: {paths.REPORT / 'index.html'}")


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, report))
