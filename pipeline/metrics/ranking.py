"""How well a full ranking of items finds the held-out ones: Jaervelin & Kekaelaeinen 2002 (nDCG).

Every item that a user has not rated in training is a candidate; nothing is sampled, which would change the order of
methods (Krichene & Rendle 2020). Ties fall to the item with the lower number.
"""

# U users, I items

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RankingScores:
    """Means over the users with a relevant item, in [0, 1]; users: how many they are."""

    ndcg: float
    precision: float
    recall: float
    users: int


def rank_items(scores: Scores, seen: Marks, length: int) -> npt.NDArray[np.int64]:
    """The best items that were not seen, best first: (U, I) -> (U, min(length, I)).

    A user with fewer unseen items than `length` gets -1 in the places that are left.
    """
    kept = np.where(seen, -np.inf, scores)
    top = np.argsort(-kept, axis=1, kind="stable")[:, :length]
    return np.where(np.take_along_axis(seen, top, axis=1), -1, top)


def score_ranking(scores: Scores, seen: Marks, relevant: Marks, length: int = 10) -> RankingScores:
    """nDCG, precision and recall of the first `length` places.

    scores: finite (U, I).  seen: ratings of the training part, which are no candidates.  relevant: (U, I).
    precision counts hits among `length` places, recall among a user's relevant items; the ideal list of nDCG has the
    relevant items on top.  Raises ValueError when no user has a relevant item or one was seen.
    """
    if (seen & relevant).any():
        raise ValueError("a relevant item must not be among the seen ones: test ratings are in the training part")
    users = np.flatnonzero(relevant.any(axis=1))
    if len(users) == 0:
        raise ValueError("no held-out rating is relevant: lower recommend.relevant in params.yaml")
    top = rank_items(scores[users], seen[users], length)
    hits = np.take_along_axis(relevant[users], np.maximum(top, 0), axis=1) & (top >= 0)
    count = relevant[users].sum(axis=1)
    gain = 1 / np.log2(np.arange(length) + 2)
    ideal = np.cumsum(gain)[np.minimum(count, length) - 1]
    return RankingScores(
        ndcg=float(((hits * gain[: hits.shape[1]]).sum(axis=1) / ideal).mean()),
        precision=float(hits.sum(axis=1).mean() / length),
        recall=float((hits.sum(axis=1) / count).mean()),
        users=len(users),
    )
