"""What a VAE's codes know about the classes: `python -m stages.represent`, and by hand with `--in folder --out csv`."""

import sys

import numpy as np

from pipeline import paths
from pipeline.applications.image_fit import FitSettings
from pipeline.applications.represent import best_by_elbo, score_all, tell
from pipeline.applications.represent_command import parse_command, represent_folder, save_vae
from pipeline.applications.represent_fit import encode_images, fit_representation
from pipeline.applications.represent_picture import draw_map
from pipeline.applications.story import write_story
from pipeline.command import run_command
from pipeline.config.represent import Represent
from pipeline.data.pictures import write_png
from pipeline.data.prepared import Split, load_prepared
from pipeline.data.test_split import load_test
from pipeline.device import resolve_accelerator, set_threads
from pipeline.stage import Stage, StageSpec, run_stage

SPEC = StageSpec(
    "represent",
    params=("run.seed", "run.threads", "run.accelerator", "run.precision", "represent"),
    inputs=(paths.PREPARED, paths.TEST),
    outputs=(paths.application("represent"), paths.plots("represent")),
)
PICTURE = "map.png"
SCORING_THREADS = 1
"""Many small products: beside another busy process two threads wait for each other most of the time."""


def represent(stage: Stage) -> None:
    run, settings, prepared = stage.run, stage.section(Represent), load_prepared(paths.PREPARED)
    set_threads(run.threads)
    how = FitSettings(
        seed=run.seed, accelerator=resolve_accelerator(run.accelerator), precision=run.precision, work=stage.work
    )
    train = Split(np.array(prepared.train.images), prepared.train.labels)
    validation, classes = np.array(prepared.validation.images), prepared.num_classes
    with stage.progress(settings.seeds, f"{stage.name}: seeds") as progress:
        found = []
        for number in range(settings.seeds):
            found.append(fit_representation(settings, train.images, validation, classes, how, number))
            progress.update(number + 1)
    test, best = load_test(paths.TEST), found[best_by_elbo(found)].model
    set_threads(SCORING_THREADS)
    scores = score_all(found, train, Split(np.array(test.images), test.labels), classes, run.seed)
    folder, plots = stage.output(paths.application(stage.name)), stage.output(paths.plots(stage.name))
    save_vae(folder / "vae.safetensors", best)
    shown = np.array(test.images[: settings.map_images])
    write_png(plots / PICTURE, draw_map(encode_images(best, shown), shown, test.labels[: len(shown)], run.seed))
    path = (paths.plots(stage.name) / PICTURE).as_posix()
    story = tell(scores, found, settings, (len(train.images), len(test.images)), path)
    write_story(folder, story)
    means = {name: {key: float(np.mean(x)) for key, x in values.items()} for name, values in scores.items()}
    stage.write_metrics(means | {"elbo": float(np.mean([one.elbo for one in found]))})
    stage.say(story.sentence)


def main(words: list[str]) -> int:
    """The exit code of the stage, or of the command when there are words."""
    if not words:
        return run_stage(SPEC, represent)
    return run_command(SPEC.name, lambda: represent_folder(parse_command(words)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
