"""Ratings of MovieLens: errors against biases and a tuned SVD, rankings against popularity and ALS.

Settings were chosen on a validation part of the training ratings of a split under another seed (1000): of the same
ratings, so that some of those that are tested here took part in the choice.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.published.digits import Effort
from benchmarks.record import Row
from pipeline.applications.rating_machines import How
from pipeline.applications.recommend import (
    ALS,
    BIAS,
    POPULAR,
    RANKING,
    RBM_NAMES,
    SURPRISE,
    TRUNCATED,
    Result,
    compare,
    hold_out,
    means,
)
from pipeline.config.load import load_params
from pipeline.config.recommend import Recommend
from pipeline.data.ratings import Ratings, load_ratings
from pipeline.data.sources import MIRROR
from pipeline.device import resolve_accelerator
from pipeline.seeding import derive_seed

SEED, SPLITS, BELOW_BIAS = 0, 5, 0.98
PUBLISHED = {"ml-100k": 0.910, "ml-1m": 0.854}
"""RMSE of GC-MC (u1 split) and of I-RBM (90/10, 5 splits); I-AutoRec has .831 on ml-1m."""


def measure_latest(effort: Effort) -> list[Row]:
    """Random 90/10; bars: 2 % below the biases, not above the tuned SVD, ranking above popularity."""
    if find_spec("surprise") is None and not effort.quick:
        raise SystemExit("scikit-surprise is not installed, whose SVD is part of the bar: pip install '.[recommend]'")
    errors, rankings = _run(_load("ml-latest-small"), _settings(effort.quick), splits=1 if effort.quick else SPLITS)
    rmse, ndcg = means(errors, "rmse"), means(rankings, "ndcg")
    rows = [_row(f"{_short(name)}, RMSE", "stars", errors, name, "rmse", baseline=rmse[BIAS]) for name in rmse]
    rows[0] = replace(rows[0], bar=None if effort.quick else min(BELOW_BIAS * rmse[BIAS], rmse[SURPRISE]))
    places = [_row(f"{_short(name)}, nDCG@10", "1", rankings, name, "ndcg", baseline=ndcg[POPULAR]) for name in ndcg]
    places[0] = replace(places[0], bar=None if effort.quick else ndcg[POPULAR])
    return rows + places


def measure_time(effort: Effort) -> list[Row]:
    """The latest tenth of every user's ratings held out; two seeds of the machines, without bars."""
    settings = replace(_settings(effort.quick), split="time")
    errors, rankings = _run(_load("ml-latest-small"), settings, splits=1 if effort.quick else 2)
    rows = [_row(f"{_short(name)}, by time, RMSE", "stars", errors, name, "rmse") for name in errors[0]]
    return rows + [_row(f"{_short(name)}, by time, nDCG@10", "1", rankings, name, "ndcg") for name in rankings[0]]


def measure_100k(effort: Effort) -> list[Row]:
    """Random 90/10 of MovieLens-100k."""
    return _published("ml-100k", effort.quick)


def measure_1m(effort: Effort) -> list[Row]:
    """Random 90/10 of MovieLens-1M."""
    return _published("ml-1m", effort.quick)


def _published(name: str, quick: bool) -> list[Row]:
    settings = replace(_settings(quick), batch_size=64)  # an item has hundreds of ratings, and memory goes with them
    errors, _ = _run(_load(name), settings, splits=1 if quick else SPLITS)
    return [
        _row(
            f"{_short(RBM_NAMES['item'])}, {name}, RMSE",
            "stars",
            errors,
            RBM_NAMES["item"],
            "rmse",
            baseline=PUBLISHED[name],
        )
    ]


def _settings(quick: bool) -> Recommend:
    settings = load_params(Path("params.yaml")).section(Recommend)
    return replace(settings, epochs=1, rank_epochs=1, num_hidden=8) if quick else settings


def _load(name: str) -> Ratings:
    folder = Path(os.environ.get(MIRROR, "data")) / name
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there: put MovieLens' files into it, or set {MIRROR}")
    return load_ratings(folder)


def _run(ratings: Ratings, settings: Recommend, *, splits: int) -> tuple[list[Result], list[Result]]:
    errors, rankings = [], []
    for number in range(splits):
        train, test = hold_out(ratings, settings, SEED, number)
        how = How(seed=derive_seed(SEED, "recommend", number), accelerator=resolve_accelerator("auto"), precision="32")
        found = compare(train, test, settings, how)
        errors.append(found[0])
        rankings.append(found[1])
        print(f"split {number}: {found[0]} {found[1]}", file=sys.stderr, flush=True)
    return errors, rankings


def _row(
    name: str, unit: str, results: Sequence[Result], method: str, measure: str, baseline: float | None = None
) -> Row:
    """The mean over the splits, and one standard deviation to either side."""
    found = np.array([result[method][measure] for result in results])
    mean, spread = float(found.mean()), float(found.std(ddof=1)) if len(found) > 1 else 0.0
    return Row(
        name=name,
        value=mean,
        unit=unit,
        low=mean - spread,
        high=mean + spread,
        seeds=len(found),
        baseline=baseline,
        better="higher" if measure == "ndcg" else "lower",
    )


def _short(name: str) -> str:
    """Fits a column."""
    short = {RBM_NAMES["item"]: "item RBM", RBM_NAMES["user"]: "user RBM", RANKING: "RBM", BIAS: "bias"}
    return (short | {TRUNCATED: "truncated SVD", SURPRISE: "SVD", ALS: "ALS"}).get(name, name)
