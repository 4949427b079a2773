"""Recommends items by RBMs of ratings, beside simple methods: `python -m stages.recommend [--user 42 --top 10]`."""

import sys
from dataclasses import asdict
from pathlib import Path

from pipeline import paths
from pipeline.applications.rating_machines import How, load_recommender, save_recommender
from pipeline.applications.recommend import (
    compare,
    fit_recommender,
    hold_out,
    means,
    picture_predictions,
    tell,
    tell_off,
)
from pipeline.applications.recommend_command import Command, format_list, list_best, parse_command
from pipeline.applications.story import Drawing, write_story
from pipeline.artifacts import read_array, read_json, write_array, write_json
from pipeline.command import run_command
from pipeline.config.load import load_params
from pipeline.config.recommend import OFF, Recommend
from pipeline.config.run import Run
from pipeline.data.pictures import write_png
from pipeline.data.ratings import Ratings, load_ratings
from pipeline.device import resolve_accelerator, set_threads
from pipeline.seeding import derive_seed
from pipeline.stage import Stage, StageSpec, run_stage

FOLDER = paths.application("recommend")
SPEC = StageSpec(
    "recommend",
    params=("run.seed", "run.threads", "run.accelerator", "run.precision", "recommend"),
    outputs=(FOLDER, paths.plots("recommend")),
)


def recommend(stage: Stage) -> None:
    run, settings = stage.run, stage.section(Recommend)
    folder, plots = stage.output(FOLDER), stage.output(paths.plots(stage.name))
    if settings.ratings == OFF:
        write_story(folder, tell_off(settings.ratings))
        stage.write_metrics({"ratings": 0})
        return
    set_threads(run.threads)
    ratings = load_ratings(Path(settings.ratings).expanduser())
    how = How(seed=run.seed, accelerator=resolve_accelerator(run.accelerator), precision=run.precision)
    with stage.progress(settings.splits + 1, stage.name) as progress:
        for number in range(settings.splits):
            run_split(stage, ratings, settings, how, number)
            progress.update(number + 1)
        work = stage.work / "all"
        save_recommender(folder, fit_recommender(ratings, settings, How(**asdict(how) | {"work": work})), ratings)
    scores = [read_json(stage.work / f"{number}.json") for number in range(settings.splits)]
    errors, rankings = [score["errors"] for score in scores], [score["rankings"] for score in scores]
    picture = paths.plots(stage.name) / "predictions.png"
    write_png(plots / picture.name, read_array(stage.work / "picture.npy"), magnify=24)
    drawing = Drawing(
        picture.as_posix(),
        "Square of grey fields: true ratings by row, predicted ratings by column",
        "How often each true rating (row, the lowest on top) is given each prediction (column, the lowest on the left) "
        "of the first RBM, rounded to the scale; the first split's held-out ratings.",
    )
    write_json(folder / "scores.json", scores)
    write_story(folder, tell(ratings, settings, errors, rankings, drawing))
    stage.write_metrics({"ratings": len(ratings), "rmse": means(errors, "rmse"), "ndcg": means(rankings, "ndcg")})


def run_split(stage: Stage, ratings: Ratings, settings: Recommend, how: How, number: int) -> None:
    """Leaves the scores of a split in the resume folder; one that is there already is not done again."""
    kept = stage.work / f"{number}.json"
    if kept.is_file():
        return
    train, test = hold_out(ratings, settings, how.seed, number)
    own = How(
        seed=derive_seed(how.seed, "recommend", number),
        accelerator=how.accelerator,
        precision=how.precision,
        work=stage.work / str(number),
    )
    errors, rankings, predicted = compare(train, test, settings, own)
    if number == 0:
        write_array(stage.work / "picture.npy", picture_predictions(predicted, test))
    write_json(kept, {"errors": errors, "rankings": rankings})


def list_items(command: Command) -> str:
    """The best items for a user."""
    params = load_params(Path("params.yaml"))
    set_threads(params.section(Run).threads)
    path = command.ratings or Path(params.section(Recommend).ratings)
    if str(path) == OFF:
        raise ValueError(f"recommend.ratings is {OFF}, which holds none: set it in params.yaml, or give --ratings")
    ratings = load_ratings(path.expanduser())
    recommender = load_recommender(command.model or FOLDER / "rating.safetensors", ratings)
    return format_list(list_best(recommender, ratings, command.user, command.top))


def main(words: list[str]) -> int:
    """The exit code of the stage, or of the command when there are words."""
    command = parse_command(words)
    return run_stage(SPEC, recommend) if command is None else run_command(SPEC.name, lambda: list_items(command))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
