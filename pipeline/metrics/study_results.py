"""The trials of a study, gathered by arm and label budget with their seeds in one order, so that rows pair up."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from pipeline.metrics.classification import Scores
from pipeline.metrics.statistics import Correct
from pipeline.metrics.verdicts import Key

Trial = tuple[str, int, int]
"""Arm, label budget, seed."""


def list_trials(rows: Sequence[Mapping[str, str]]) -> list[Trial]:
    """The trials of study/trials.csv, sorted by budget, then seed, arms in the order in which they first appear.

    Raises ValueError where a trial is listed twice or an arm lacks one that another has: they could not be paired.
    """
    trials = [(row["arm"], int(row["budget"]), int(row["seed"])) for row in rows]
    arms = list(dict.fromkeys(arm for arm, _, _ in trials))
    wanted = {(arm, budget, seed) for arm in arms for _, budget, seed in trials}
    missing = sorted(wanted - set(trials))
    if missing:
        arm, budget, seed = missing[0]
        raise ValueError(
            f"the study has no trial of arm {arm} at {budget} labels with seed {seed}, so its arms cannot be paired: "
            "run `dvc repro --force study`"
        )
    if len(set(trials)) < len(trials):
        raise ValueError("the study lists a trial twice: run `dvc repro --force study`")
    return sorted(trials, key=lambda trial: (arms.index(trial[0]), *trial[1:]))


def stack_correct(correct: Mapping[Trial, Correct]) -> dict[Key, Correct]:
    """Which test images each trial got right, (N,) each -> (S, N) by arm and budget, rows in order of the seeds."""
    grouped: defaultdict[Key, list[Correct]] = defaultdict(list)
    for arm, budget, seed in sorted(correct, key=lambda trial: trial[2]):
        grouped[arm, budget].append(correct[arm, budget, seed])
    return {(arm, budget): np.stack(grouped[arm, budget]) for arm, budget, _ in correct}


def mean_scores(scores: Mapping[Trial, Scores]) -> dict[Key, Scores]:
    """Each score's mean over the seeds."""
    grouped: defaultdict[Key, list[Scores]] = defaultdict(list)
    for (arm, budget, _), row in scores.items():
        grouped[arm, budget].append(row)
    names = [field.name for field in fields(Scores)]
    return {
        key: Scores(**{name: float(np.mean([getattr(row, name) for row in rows])) for name in names})
        for key, rows in grouped.items()
    }
