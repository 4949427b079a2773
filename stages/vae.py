"""One conditional VAE for every label draw: `python -m stages.vae`."""

import sys

from pipeline.config.generators import Vae
from pipeline.stage import Stage, run_stage
from pipeline.training.generator_stage import generator_spec, run_generator_stage

SPEC = generator_spec("vae")


def vae(stage: Stage) -> None:
    run_generator_stage(stage, stage.section(Vae))


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, vae))
