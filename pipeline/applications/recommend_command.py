"""The command line of `stages.recommend`: the best items for a user."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.applications.rating_machines import Recommender, mark_rated, predict_amounts, score_items
from pipeline.data.ratings import Ratings
from pipeline.metrics.ranking import rank_items


@dataclass(frozen=True)
class Command:
    """user: a name as in the ratings.  The rest as the options."""

    user: str
    top: int
    model: Path | None
    ratings: Path | None


@dataclass(frozen=True)
class Suggestion:
    """rating: the expected one, in the unit of the ratings."""

    item: str
    title: str
    rating: float


def parse_command(words: Sequence[str]) -> Command | None:
    """None without options: the stage is wanted. Exits on a misspelt one."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.recommend",
        description="Lists the items that a user has not rated and most probably will. Without options: the DVC stage.",
    )
    parser.add_argument("--user", help="as named in the ratings")
    parser.add_argument("--top", type=int, default=10, help="how many items; 10 without it")
    parser.add_argument("--model", type=Path, help="another rating.safetensors, with ranking.safetensors beside it")
    parser.add_argument("--ratings", type=Path, help="what the model was trained on; recommend.ratings without it")
    if not words:
        return None
    given = parser.parse_args(words)
    if given.user is None:
        parser.error("give --user")
    if given.top < 1:
        parser.error(f"--top must be >= 1, got {given.top}")
    return Command(given.user, given.top, given.model, given.ratings)


def list_best(recommender: Recommender, ratings: Ratings, user: str, top: int) -> list[Suggestion]:
    """The items a user most probably rates of those he has not, with the rating that is expected; best first.

    Raises ValueError for a user without ratings.
    """
    names = list(ratings.user_names)
    if user not in names:
        raise ValueError(f"--user {user} has no rating: give one of the {len(names)} users, such as {names[0]}")
    number = names.index(user)
    own = ratings.chosen(np.flatnonzero(ratings.users == number))
    scores = score_items(recommender.ranking, own)[number : number + 1]
    best = rank_items(scores, mark_rated(own)[number : number + 1], top)[0]
    best = best[best >= 0]
    amounts = predict_amounts(recommender.rating, ratings, recommender.side, np.full(len(best), number), best)
    return [
        Suggestion(ratings.item_names[item], ratings.title(item), float(amount))
        for item, amount in zip(best.tolist(), amounts, strict=True)
    ]


def format_list(suggestions: Sequence[Suggestion]) -> str:
    lines = [f"{'':3} {'item':>8}  expected  title"]
    lines += [
        f"{place:3} {row.item:>8}  {row.rating:8.2f}  {row.title}" for place, row in enumerate(suggestions, start=1)
    ]
    return "\n".join(lines)
