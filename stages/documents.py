"""Topics of texts by a replicated softmax RBM, and texts alike: `python -m stages.documents [--like text.txt]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import paths
from pipeline.applications.documents import (
    How,
    encode,
    fit_topics,
    hold_out,
    load_corpus,
    load_topics,
    mean_by_name,
    measure_perplexity,
    measure_retrieval,
    save_topics,
    tell,
    topic_words,
)
from pipeline.applications.story import write_story
from pipeline.artifacts import read_json, write_json
from pipeline.command import run_command
from pipeline.config.documents import Documents
from pipeline.config.load import load_params
from pipeline.data.documents import Corpus, count_in, split_words
from pipeline.device import resolve_accelerator, set_threads
from pipeline.metrics.retrieval import nearest_by_cosine
from pipeline.seeding import derive_seed
from pipeline.stage import Stage, StageSpec, run_stage

FOLDER = paths.application("documents")
SPEC = StageSpec(
    "documents",
    params=("run.seed", "run.accelerator", "run.precision", "documents"),
    outputs=(FOLDER,),
)
MODEL = "topics.safetensors"
THREADS = 1
"""Many small products: beside another busy process two threads wait for each other most of the time."""


def documents(stage: Stage) -> None:
    settings = stage.section(Documents)
    set_threads(THREADS)
    corpus = load_corpus(settings)
    with stage.progress(settings.seeds, stage.name) as progress:
        for number in range(settings.seeds):
            run_seed(stage, corpus, settings, number)
            progress.update(number + 1)
    told = [read_json(stage.work / f"{number}.json") for number in range(settings.seeds)]
    perplexities, precisions = [one["perplexity"] for one in told], [one["precision"] for one in told]
    folder = stage.output(FOLDER)
    model = load_topics(stage.work / MODEL, corpus.words)
    save_topics(folder / MODEL, model, corpus.words)
    write_story(folder, tell(corpus, settings, perplexities, precisions, topic_words(model, corpus.words)))
    stage.write_metrics({"perplexity": mean_by_name(perplexities), "precision": mean_by_name(precisions)})


def run_seed(stage: Stage, corpus: Corpus, settings: Documents, number: int) -> None:
    """Leaves the scores of a machine in the resume folder; those that are there already are not made again."""
    kept, run = stage.work / f"{number}.json", stage.run
    if kept.is_file():
        return
    seed = derive_seed(run.seed, "documents", number)
    train, test = hold_out(corpus, settings, seed)
    how = How(
        seed=seed,
        accelerator=resolve_accelerator(run.accelerator),
        precision=run.precision,
        work=stage.work / str(number),
    )
    model = fit_topics(corpus.counts[train], settings, how)
    if number == 0:
        save_topics(stage.work / MODEL, model, corpus.words)
    precision = measure_retrieval(model, corpus, train, test, seed)
    found = measure_perplexity(model, corpus.counts[train], corpus.counts[test], settings, seed)
    write_json(kept, {"precision": precision, "perplexity": found})


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stages.documents",
        description="Lists the texts whose topics are most like those of a given one. Without options: the DVC stage.",
    )
    parser.add_argument("--like", type=Path, required=True, help="a text file")
    parser.add_argument("--top", type=int, default=10, help="how many texts; 10 without it")
    parser.add_argument("--model", type=Path, default=FOLDER / MODEL, help="another topics.safetensors")
    return parser.parse_args(words)


def list_like(words: Sequence[str]) -> str:
    """Subjects and names of the texts that are most like one, a line each."""
    command, params = parse(words), load_params(Path("params.yaml"))
    set_threads(THREADS)
    corpus = load_corpus(params.section(Documents))
    model = load_topics(command.model, corpus.words)
    query = count_in(split_words(command.like.read_text("utf-8", "replace")), corpus.words)
    if not query.any():
        raise ValueError(f"--like {command.like} has none of the {len(corpus.words)} counted words: give another")
    best = nearest_by_cosine(encode(model, query[None]), encode(model, corpus.counts), command.top)[0]
    rows = np.asarray(best).tolist()
    return "\n".join(f"{corpus.subject_names[corpus.subjects[row]]:20} {corpus.names[row]}" for row in rows)


def main(words: list[str]) -> int:
    """The exit code of the stage, or of the command when there are words."""
    return run_command(SPEC.name, lambda: list_like(words)) if words else run_stage(SPEC, documents)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
