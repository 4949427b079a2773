"""How often the nearest documents are of the query's subject."""

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.floating]
Subjects = npt.NDArray[np.int64]


def nearest_by_cosine(queries: Vectors, stored: Vectors, count: int) -> npt.NDArray[np.int64]:
    """Places of the most similar rows of `stored`, best first: (Q, D), (N, D) -> (Q, count)."""
    q, s = (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12) for rows in (queries, stored))
    return np.argsort(-(q @ s.T), axis=1, kind="stable")[:, :count]


def precision_at(queries: Vectors, wanted: Subjects, stored: Vectors, subjects: Subjects, count: int = 10) -> float:
    """Share of the `count` nearest rows that have the query's subject, in [0, 1]."""
    return float((subjects[nearest_by_cosine(queries, stored, count)] == wanted[:, None]).mean())
