"""Takes noise away from images: `python -m stages.denoise`, and by hand with `--in folder --out folder`."""

import sys

import numpy as np

from pipeline import paths
from pipeline.applications.denoise import choose_moments, restore_all, score_all, tell
from pipeline.applications.denoise_command import denoise_folder, parse_command
from pipeline.applications.denoise_fit import fit_denoisers, make_corruptions
from pipeline.applications.denoise_picture import restoration_rows
from pipeline.applications.image_fit import FitSettings
from pipeline.applications.story import write_story
from pipeline.command import run_command
from pipeline.config.denoise import Denoise
from pipeline.data.pictures import image_grid, write_png
from pipeline.data.prepared import load_prepared
from pipeline.data.test_split import load_test
from pipeline.device import resolve_accelerator, set_threads
from pipeline.seeding import make_generator
from pipeline.stage import Stage, StageSpec, run_stage
from pipeline.training.stream import as_tensor
from pipeline.weights import save_weights

SPEC = StageSpec(
    "denoise",
    params=("run.seed", "run.threads", "run.accelerator", "run.precision", "denoise"),
    inputs=(paths.PREPARED, paths.TEST),
    outputs=(paths.application("denoise"), paths.plots("denoise")),
)
PICTURE = "restored.png"
SOLVING_THREADS = 1
"""Many small systems of equations: beside another busy process two threads take minutes, one takes seconds."""


def denoise(stage: Stage) -> None:
    run, settings, prepared = stage.run, stage.section(Denoise), load_prepared(paths.PREPARED)
    set_threads(run.threads)
    how = FitSettings(
        seed=run.seed, accelerator=resolve_accelerator(run.accelerator), precision=run.precision, work=stage.work
    )
    models = fit_denoisers(settings, np.array(prepared.train.images), how)
    set_threads(SOLVING_THREADS)
    clean = as_tensor(np.array(load_test(paths.TEST).images[: settings.images])).float() / 255
    train, validation = (as_tensor(np.array(s.images)).float() / 255 for s in (prepared.train, prepared.validation))
    scores = {}
    for noise, corruption in make_corruptions(settings).items():
        moments = choose_moments(
            train, validation, corruption, make_generator(run.seed, "denoise", "validation", noise)
        )
        spoilt = corruption.spoil(clean, make_generator(run.seed, "denoise", "test", noise))
        scores[noise] = score_all(clean, restore_all(models, moments, corruption, spoilt, settings, run.seed), run.seed)
    folder, plots = stage.output(paths.application(stage.name)), stage.output(paths.plots(stage.name))
    for name, model in (("denoiser", models.denoising), ("autoencoder", models.autoencoder)):
        save_weights(folder / f"{name}.safetensors", model.state_dict(), kind="denoiser", config=model.to_config())
    tiles, columns = restoration_rows(clean, scores)
    write_png(plots / PICTURE, image_grid(tiles, columns), magnify=2)
    story = tell(scores, settings, len(clean), (paths.plots(stage.name) / PICTURE).as_posix())
    write_story(folder, story)
    stage.write_metrics(
        {
            noise: {name: {"psnr": row.score.value, "ssim": row.similarity} for name, row in rows.items()}
            for noise, rows in scores.items()
        }
    )
    stage.say(story.sentence)


def main(words: list[str]) -> int:
    """The exit code of the stage, or of the command when there are words."""
    if not words:
        return run_stage(SPEC, denoise)
    return run_command(SPEC.name, lambda: denoise_folder(parse_command(words)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
