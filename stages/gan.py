"""One conditional GAN for every label draw: `python -m stages.gan`."""

import sys

from pipeline.config.generators import Gan
from pipeline.stage import Stage, run_stage
from pipeline.training.generator_stage import generator_spec, run_generator_stage

SPEC = generator_spec("gan")


def gan(stage: Stage) -> None:
    run_generator_stage(stage, stage.section(Gan))


if __name__ == "__main__":
    sys.exit(run_stage(SPEC, gan))
