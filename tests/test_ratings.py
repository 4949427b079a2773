"""Reading and splitting ratings, and their scores: written files, sums by hand, scikit-learn's nDCG, least squares."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from pipeline.data.rating_splits import split_by_time, split_random
from pipeline.data.ratings import Ratings, load_ratings
from pipeline.metrics.ranking import rank_items, score_ranking
from pipeline.metrics.ratings import fit_biases, score_ratings

LINES = [("u1", "a", "4.5", "30"), ("u2", "a", "3", "10"), ("u1", "b", "0.5", "20"), ("u3", "c", "4.5", "5")]


def write(path: Path, separator: str, *, header: str = "", newline: str = "\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((header + newline.join(separator.join(line) for line in LINES) + newline).encode())
    return path


def as_lines(ratings: Ratings) -> list[tuple[str, str, float, float]]:
    return [
        (ratings.user_names[user], ratings.item_names[item], amount, time)
        for user, item, amount, time in zip(ratings.users, ratings.items, ratings.amounts, ratings.times, strict=True)
    ]


def test_all_layouts_hold_the_same_ratings(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "own.csv", ","),
        write(tmp_path / "latest" / "ratings.csv", ",", header="userId,movieId,rating,timestamp\r\n", newline="\r\n"),
        write(tmp_path / "100k" / "u.data", "\t"),
        write(tmp_path / "1m" / "ratings.dat", "::"),
    ]
    (tmp_path / "latest" / "movies.csv").write_text('movieId,title,genres\na,"Alien, the (1979)",Horror\n')
    (tmp_path / "100k" / "u.item").write_bytes("b|Amélie|01-Jan-2001\n".encode("latin-1"))
    (tmp_path / "1m" / "movies.dat").write_bytes("c::Cube (1997)::Horror\n".encode("latin-1"))
    found = [load_ratings(file if file.name == "own.csv" else file.parent) for file in files]
    expected = [(user, item, float(amount), float(time)) for user, item, amount, time in LINES]
    assert [as_lines(ratings) for ratings in found] == [expected] * 4
    assert found[0].scale.tolist() == [0.5, 3.0, 4.5]
    assert [ratings.title(item) for item, ratings in enumerate(found[1:])] == [
        "Alien, the (1979)",
        "Amélie",
        "Cube (1997)",
    ]
    assert found[1].title(1) == "b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("u,a,3\nu,a,4\n", r"line 2: user u has rated item a in line 1 already: keep one"),
        ("u,a,3\nu,b,good\n", r"line 2: rating and timestamp must be numbers, got good"),
        ("u,a,3\nu,b\n", r"line 2: wanted user, item, rating\[, timestamp\], got 2 columns"),
        ("u,a,3\nu,b,3\n", r"has 1 different ratings, \[3.0\] .. 3.0: a scale has 2 to 10 values"),
        ("user,item,rating\n", r"holds no ratings"),
        ("".join(f"u,{item},{item}\n" for item in range(11)), r"has 11 different ratings, .* so round them"),
    ],
)
def test_ratings_that_cannot_be_used_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_ratings(tmp_path / "r.csv")


def test_a_path_without_ratings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"neither a csv file nor a folder with one of ratings.csv, u.data, ratings.dat"
    ):
        load_ratings(tmp_path)


def table(rng: np.random.Generator, users: int = 12, items: int = 9) -> Ratings:
    rated = np.argwhere(rng.random((users, items)) < 0.6)
    return Ratings(
        users=rated[:, 0],
        items=rated[:, 1],
        values=rng.integers(0, 5, len(rated)),
        times=rng.permutation(len(rated)).astype(float),
        scale=np.arange(1.0, 6.0),
        user_names=[str(user) for user in range(users)],
        item_names=[str(item) for item in range(items)],
        titles={},
    )


def test_a_random_split_is_a_partition_with_the_wanted_share() -> None:
    ratings = table(np.random.default_rng(0))
    train, test = split_random(ratings, 0.25, np.random.default_rng(1))
    assert len(test) == round(0.25 * len(ratings))
    assert sorted(as_lines(train) + as_lines(test)) == sorted(as_lines(ratings))


def test_a_split_by_time_holds_out_the_latest_of_every_user() -> None:
    ratings = table(np.random.default_rng(0))
    train, test = split_by_time(ratings, 0.4)
    for user in range(ratings.shape[0]):
        own, held = train.times[train.users == user], test.times[test.users == user]
        assert len(held) == int(0.4 * (len(own) + len(held)))
        assert len(held) == 0 or own.max() < held.min()
    assert len(train) + len(test) == len(ratings)
    with pytest.raises(ValueError, match=r"recommend.split must be random for ratings without timestamps"):
        split_by_time(Ratings(**vars(ratings) | {"times": np.zeros(len(ratings))}), 0.4)
    with pytest.raises(ValueError, match=r"recommend.test_fraction 0.01 leaves no user a rating to test"):
        split_by_time(ratings, 0.01)


def test_biases_are_the_damped_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    ratings = table(rng)
    found = fit_biases(ratings.users, ratings.items, ratings.amounts, ratings.shape, user_damping=3.0, item_damping=2.0)
    design = np.zeros((len(ratings), sum(ratings.shape)))
    design[np.arange(len(ratings)), ratings.users] = 1
    design[np.arange(len(ratings)), ratings.shape[0] + ratings.items] = 1
    damping = np.diag(np.repeat([3.0, 2.0], ratings.shape))
    solution = np.linalg.solve(design.T @ design + damping, design.T @ (ratings.amounts - ratings.amounts.mean()))
    np.testing.assert_allclose(np.concatenate([found.users, found.items]), solution, atol=1e-6)
    np.testing.assert_allclose(found.predict(ratings.users, ratings.items), design @ solution + found.mean, atol=1e-6)


def test_errors_are_of_clipped_predictions() -> None:
    errors = score_ratings(np.array([7.0, 1.0, 2.0]), np.array([5.0, 3.0, 2.0]), np.array([1.0, 3.0, 5.0]))
    assert errors.rmse == pytest.approx(np.sqrt(4 / 3))
    assert errors.mae == pytest.approx(2 / 3)


def test_the_ndcg_of_a_full_ranking_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    scores, seen = rng.random((30, 40)), rng.random((30, 40)) < 0.3
    relevant = (rng.random((30, 40)) < 0.2) & ~seen
    found = score_ranking(scores, seen, relevant, 10)
    expected = [
        ndcg_score(relevant[user][~seen[user]][None], scores[user][~seen[user]][None], k=10)
        for user in range(30)
        if relevant[user].any()
    ]
    assert found.ndcg == pytest.approx(np.mean(expected))
    assert found.users == len(expected)


def test_precision_and_recall_count_hits_among_unseen_items() -> None:
    scores = np.array([[9.0, 8, 7, 6, 5], [1, 2, 3, 4, 5]])
    seen = np.array([[True, False, False, False, False], [False] * 5])
    relevant = np.array([[False, True, False, False, True], [False] * 5])
    found = score_ranking(
        scores, seen, relevant, 2
    )  # the first user's list is 1, 2: one hit; the second does not count
    assert (found.precision, found.recall, found.users) == (0.5, 0.5, 1)
    assert rank_items(scores, seen, 2).tolist() == [[1, 2], [4, 3]]
    assert rank_items(scores[:1], np.array([[True, True, True, True, False]]), 3).tolist() == [[4, -1, -1]]


def test_a_ranking_of_what_was_seen_is_refused() -> None:
    marks = np.array([[True, False]])
    with pytest.raises(ValueError, match="a relevant item must not be among the seen ones"):
        score_ranking(np.zeros((1, 2)), marks, marks)
    with pytest.raises(ValueError, match=r"no held-out rating is relevant: lower recommend.relevant"):
        score_ranking(np.zeros((1, 2)), marks, np.zeros((1, 2), dtype=bool))
