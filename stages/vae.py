"""One conditional VAE for every label draw: `python -m stages.vae`."""

import sys

from pipeline.config.dp import Dp
from pipeline.config.generators import Vae
from pipeline.stage import Stage, run_stage
from pipeline.training.generator_stage import generator_spec, run_generator_stage

SPEC = generator_spec("vae")


def vae(stage: Stage) -> None:
    dp = stage.section(Dp)
    run_generator_stage(stage, stage.section(Vae), dp if "vae" in dp.models else None)


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, vae))
