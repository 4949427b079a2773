"""Compares recommending machines with their rivals over several splits, and tells the story."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt

from pipeline.applications.rating_machines import (
    How,
    Recommender,
    fit_ranking_machine,
    fit_rating_machine,
    mark_rated,
    predict_amounts,
    score_items,
)
from pipeline.applications.rating_rivals import (
    ALS_GRID,
    SURPRISE_GRID,
    has,
    mark_relevant,
    predict_bias,
    predict_surprise,
    predict_truncated_svd,
    rank_als,
    rank_popular,
)
from pipeline.applications.story import Drawing, Story, Table, TableRow
from pipeline.config.recommend import Recommend
from pipeline.data.rating_splits import split_by_time, split_random
from pipeline.data.ratings import Ratings
from pipeline.metrics.ranking import Scores, score_ranking
from pipeline.metrics.ratings import Amounts, score_ratings
from pipeline.seeding import derive_seed, make_numpy_rng

ORDER = 50
LENGTH = 10
"""Places of the ranking that are looked at."""
RBM_NAMES = {"item": "RBM, an example per item", "user": "RBM, an example per user"}
BIAS, TRUNCATED, SURPRISE = "user + item bias", "truncated SVD + bias", "SVD (scikit-surprise)"
RANKING, POPULAR, ALS = "RBM of what was rated", "popularity", "ALS (implicit)"
BASELINES = (BIAS, TRUNCATED, SURPRISE, POPULAR, ALS)

Result = dict[str, dict[str, float]]
"""Scores of a split by method and measure."""


def hold_out(ratings: Ratings, settings: Recommend, seed: int, number: int) -> tuple[Ratings, Ratings]:
    """Training and test ratings of split `number`; by time there is one split, whatever the number."""
    if settings.split == "time":
        return split_by_time(ratings, settings.test_fraction)
    return split_random(ratings, settings.test_fraction, make_numpy_rng(seed, "recommend", "split", number))


def predict_all(train: Ratings, test: Ratings, settings: Recommend, how: How) -> dict[str, Amounts]:
    """What each method predicts for the pairs of `test`, whose values it does not look at."""
    asked, predicted = (test.users, test.items), {}
    for side in settings.sides:
        machine = fit_rating_machine(train, settings, side, how)
        predicted[RBM_NAMES[side]] = predict_amounts(machine, train, side, *asked)
    if len(settings.sides) > 1:
        predicted["mean of the RBMs"] = np.mean([predicted[RBM_NAMES[side]] for side in settings.sides], axis=0)
    predicted[BIAS] = predict_bias(train, _rng(how))(*asked)
    predicted[TRUNCATED] = predict_truncated_svd(train, _rng(how))(*asked)
    if has("surprise"):
        predicted[SURPRISE] = predict_surprise(train, _rng(how), SURPRISE_GRID)(*asked)
    return predicted


def rank_all(train: Ratings, settings: Recommend, how: How) -> dict[str, Scores]:
    """What each method makes of every item for every user, (U, I)."""
    ranked = {RANKING: score_items(fit_ranking_machine(train, settings, how), train), POPULAR: rank_popular(train)}
    if has("implicit"):
        ranked[ALS] = rank_als(train, settings.relevant, _rng(how), ALS_GRID)
    return ranked


def compare(train: Ratings, test: Ratings, settings: Recommend, how: How) -> tuple[Result, Result, Amounts]:
    """Errors of the ratings, scores of the rankings, and the first RBM's predictions of `test`."""
    predicted = predict_all(train, test, settings, how)
    errors = {name: asdict(score_ratings(found, test.amounts, test.scale)) for name, found in predicted.items()}
    seen, wanted = mark_rated(train), mark_relevant(test, settings.relevant)
    rankings = {
        name: asdict(score_ranking(scores, seen, wanted, LENGTH))
        for name, scores in rank_all(train, settings, how).items()
    }
    return errors, rankings, next(iter(predicted.values()))


def fit_recommender(ratings: Ratings, settings: Recommend, how: How) -> Recommender:
    """Both machines on all ratings, for use."""
    side, how = settings.sides[0], replace(how, seed=derive_seed(how.seed, "all"))
    return Recommender(
        fit_rating_machine(ratings, settings, side, how), fit_ranking_machine(ratings, settings, how), side
    )


def picture_predictions(predicted: Amounts, test: Ratings) -> npt.NDArray[np.uint8]:
    """How often each true value (row, the lowest on top) is given each prediction, rounded to the scale (column).

    (K, K), black where always.
    """
    nearest = np.abs(predicted[:, None] - test.scale).argmin(axis=1)
    counts = np.zeros((len(test.scale), len(test.scale)))
    np.add.at(counts, (test.values, nearest), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.rint(255 * (1 - shares)), dtype=np.uint8)


# --- the story


def tell_off(path: str) -> Story:
    sentence = (
        f"Switched off: recommend.ratings is {path}. No package that this project needs ships real ratings; set it to "
        "a csv file of user,item,rating[,timestamp] or to a MovieLens folder."
    )
    return Story(ORDER, "Recommendations", sentence)


def tell(
    ratings: Ratings, settings: Recommend, errors: Sequence[Result], rankings: Sequence[Result], drawing: Drawing
) -> Story:
    """errors, rankings: a result for each split."""
    rmse, ndcg = means(errors, "rmse"), means(rankings, "ndcg")
    best = min((name for name in rmse if name not in BASELINES), key=rmse.__getitem__)
    rival = min((name for name in rmse if name in BASELINES), key=rmse.__getitem__)
    leader = max((name for name in ndcg if name in BASELINES), key=ndcg.__getitem__)
    users, items = ratings.shape
    how = f"{len(errors)} {settings.split} split{'s' if len(errors) > 1 else ''}"
    facts = f"{len(ratings)} ratings of {items} items by {users} users; {settings.test_fraction:.0%} held out, {how}"
    closer = best if rmse[best] < rmse[rival] else rival
    ahead = RANKING if ndcg[RANKING] > ndcg[leader] else leader
    sentence = (
        f"{best} predicts ratings with an RMSE of {rmse[best]:.4f}, {rival} with {rmse[rival]:.4f}: {closer} is better "
        f"here. In the ranking {RANKING} has nDCG@{LENGTH} {ndcg[RANKING]:.3f}, {leader} {ndcg[leader]:.3f}: {ahead} "
        "is better."
    )
    if not (has("surprise") and has("implicit")):
        sentence += " SVD of scikit-surprise and ALS of implicit stand beside where they are installed."
    tables = [
        _table(f"Held-out ratings, in their own unit, mean +- sd; {facts}", errors, ("rmse", "mae"), 4),
        _table(
            f"The first {LENGTH} of all items that a user has not rated; hits are held-out ratings >= "
            f"{settings.relevant:g}; {facts}",
            rankings,
            ("ndcg", "precision", "recall"),
            3,
        ),
    ]
    return Story(ORDER, "Recommendations", sentence, tables, [drawing])


def means(results: Sequence[Result], measure: str) -> dict[str, float]:
    """By method, over the splits."""
    return {name: float(np.mean([result[name][measure] for result in results])) for name in results[0]}


def _table(caption: str, results: Sequence[Result], measures: Sequence[str], digits: int) -> Table:
    rows = []
    for name in results[0]:
        values = []
        for measure in measures:
            found = np.array([result[name][measure] for result in results])
            spread = f" +- {found.std(ddof=1):.{digits}f}" if len(found) > 1 else ""
            values.append(f"{found.mean():.{digits}f}{spread}")
        rows.append(TableRow(name, values, name in BASELINES))
    heads = {"rmse": "RMSE", "mae": "MAE", "ndcg": f"nDCG@{LENGTH}", "precision": f"precision@{LENGTH}"}
    return Table(caption, [heads.get(measure, f"{measure}@{LENGTH}") for measure in measures], rows)


def _rng(how: How) -> np.random.Generator:
    """The same validation part for every rival."""
    return make_numpy_rng(how.seed, "recommend", "validation")
