"""The machines that recommend: one that predicts ratings, and one that ranks items by what others have rated."""

# U users, I items, N ratings, R ratings that are asked for, K values

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.artifacts import Json
from pipeline.config.recommend import Recommend
from pipeline.data.ratings import Ratings
from pipeline.metrics.ranking import Marks, Scores
from pipeline.metrics.ratings import Amounts, Index
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.rating_rbm import RatingRBM
from pipeline.models.rbm import RBM
from pipeline.seeding import derive_seed, make_generator
from pipeline.training.plan import FitPlan
from pipeline.training.rating_stream import RatingStream, RatingTable
from pipeline.training.stream import BatchStream
from pipeline.weights import load_weights, save_weights

ASKED_AT_ONCE = 4096
KIND, RANK_KIND = "rating_rbm", "ranking_rbm"


@dataclass(frozen=True, kw_only=True)
class How:
    """Where and from which seed a machine is fitted. work: folder for its checkpoints, None keeps none."""

    seed: int
    accelerator: str
    precision: str
    work: Path | None = None


def tabulate(ratings: Ratings, side: str) -> RatingTable:
    """side item: an example for each item, a group of units for each user; user: the other way round."""
    users, items = torch.from_numpy(ratings.users), torch.from_numpy(ratings.items)
    rows, groups, shape = (items, users, ratings.shape[::-1]) if side == "item" else (users, items, ratings.shape)
    return RatingTable(rows, groups, torch.from_numpy(ratings.values), shape=shape, num_values=len(ratings.scale))


def fit_rating_machine(
    ratings: Ratings, settings: Recommend, side: str, how: How, *, objective: str = "pseudo_likelihood"
) -> RatingRBM:
    """Trained on these ratings and no others."""
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    table, seed = tabulate(ratings, side), derive_seed(how.seed, "ratings", side, objective)
    model = RatingRBM(table.num_groups, table.num_values, settings.num_hidden, objective=objective)
    model.start(table.counts(), make_generator(seed, "weights"))
    stream = RatingStream(table, batch_size=settings.batch_size, seed=derive_seed(seed, "batches"))
    plan = FitPlan(
        steps=settings.epochs * stream.steps_per_pass,
        steps_per_epoch=stream.steps_per_pass,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        schedule="linear_tail",
        seed=derive_seed(seed, "fit"),
        accelerator=how.accelerator,
        precision=how.precision,
    )
    fit(model, stream, plan, checkpoint=None if how.work is None else how.work / f"{side}-{objective}.ckpt")
    return model


@torch.no_grad()
def predict_values(model: RatingRBM, known: Ratings, side: str, users: Index, items: Index) -> Scores:
    """P(value) of ratings that are not among the known ones: (R,), (R,) -> (R, K)."""
    table = tabulate(known, side)
    examples, groups = (torch.from_numpy(index) for index in ((items, users) if side == "item" else (users, items)))
    found = torch.empty(len(users), len(known.scale))
    order = torch.argsort(examples, stable=True)
    for index in order.split(ASKED_AT_ONCE):
        rows, place = examples[index].unique(return_inverse=True)
        logits = model.logits(table.visible(rows), place, groups[index])
        found[index] = torch.softmax(logits, -1)
    return found.double().numpy()


def predict_amounts(model: RatingRBM, known: Ratings, side: str, users: Index, items: Index) -> Amounts:
    """The expected rating, in the unit of the ratings: the least squared error that P(value) allows."""
    return predict_values(model, known, side, users, items) @ known.scale


def mark_rated(ratings: Ratings) -> Marks:
    """Who has rated what, (U, I)."""
    marks = np.zeros(ratings.shape, dtype=np.bool_)
    marks[ratings.users, ratings.items] = True
    return marks


def fit_ranking_machine(ratings: Ratings, settings: Recommend, how: How) -> RBM:
    """Bernoulli units over the items, on for what a user has rated, whatever the value; CD-1."""
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    seed = derive_seed(how.seed, "ranking")
    marks = torch.from_numpy(mark_rated(ratings))
    marks = marks[marks.any(1)]
    rows = marks.to(torch.uint8) * 255  # a stream reads bytes as shares of 255
    batch_size = min(settings.batch_size, len(rows))
    model = RBM(rows.shape[1], settings.rank_hidden)
    model.initialise(Batch(rows.float() / 255, torch.full((len(rows),), UNLABELLED)), make_generator(seed, "weights"))
    shares = (marks.sum(0) + 0.1) / (len(marks) + 1)  # most items are far rarer than the 1 % that digits start from
    with torch.no_grad():
        model.visible_bias.copy_(torch.logit(shares))
    stream = BatchStream(
        rows, torch.full((len(rows),), UNLABELLED), batch_size=batch_size, seed=derive_seed(seed, "batches")
    )
    steps_per_pass = -(-len(rows) // batch_size)
    plan = FitPlan(
        steps=settings.rank_epochs * steps_per_pass,
        steps_per_epoch=steps_per_pass,
        lr=settings.rank_lr,
        schedule="linear_tail",
        seed=derive_seed(seed, "fit"),
        accelerator=how.accelerator,
        precision=how.precision,
    )
    fit(model, stream, plan, checkpoint=None if how.work is None else how.work / "ranking.ckpt")
    return model


@torch.no_grad()
def score_items(model: RBM, known: Ratings) -> Scores:
    """Logits of an item's unit given E[h | what the user has rated], (U, I)."""
    h = model.hidden_probabilities(torch.from_numpy(mark_rated(known)).float())
    return (h @ model.weight.t() + model.visible_bias).double().numpy()


@dataclass(frozen=True)
class Recommender:
    """Both machines, with what they were trained on."""

    rating: RatingRBM
    ranking: RBM
    side: str


def save_recommender(folder: Path, recommender: Recommender, ratings: Ratings) -> None:
    """rating.safetensors and ranking.safetensors, each with the names of users and items in its sidecar."""
    rating, ranking = recommender.rating, recommender.ranking
    told = {"users": list(ratings.user_names), "items": list(ratings.item_names), "scale": ratings.scale.tolist()}
    config = told | {"num_hidden": rating.num_hidden, "side": recommender.side}
    save_weights(folder / "rating.safetensors", rating.state_dict(), kind=KIND, config=config)
    config = told | {"num_hidden": ranking.num_hidden}
    save_weights(folder / "ranking.safetensors", ranking.state_dict(), kind=RANK_KIND, config=config)


def load_recommender(path: Path, ratings: Ratings) -> Recommender:
    """From rating.safetensors with ranking.safetensors beside it.

    Raises ValueError as `load_weights` does, and when users, items or scale are not those of `ratings`.
    """
    state, config = load_weights(path, kind=KIND)
    rank_path = path.with_name("ranking.safetensors")
    rank_state, rank_config = load_weights(rank_path, kind=RANK_KIND)
    for file, told in ((path, config), (rank_path, rank_config)):
        _require_same(file, told, ratings)
    side = config["side"]
    groups = len(ratings.user_names if side == "item" else ratings.item_names)
    rating = RatingRBM(groups, len(ratings.scale), config["num_hidden"])
    rating.load_state_dict(state)
    ranking = RBM(len(ratings.item_names), rank_config["num_hidden"])
    ranking.load_state_dict(rank_state)
    return Recommender(rating.eval(), ranking.eval(), side)


def _require_same(path: Path, config: Json, ratings: Ratings) -> None:
    for what, found in (("users", ratings.user_names), ("items", ratings.item_names), ("scale", ratings.scale)):
        wanted, given = config[what], list(found)
        if wanted != given:
            different = next((pair for pair in zip(wanted, given, strict=False) if pair[0] != pair[1]), None)
            first = (
                f"the first that differs is {different[0]} against {different[1]}" if different else "some are missing"
            )
            raise ValueError(
                f"{path} knows {len(wanted)} {what}, the ratings have {len(given)}, and {first}: give the model that "
                "was trained on these ratings, or train one with `dvc repro recommend`"
            )
