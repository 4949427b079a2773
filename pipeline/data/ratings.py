"""Ratings of items by users: a csv, or a MovieLens folder as it comes.

MovieLens: Harper & Konstan 2015. A folder holds ratings.csv and movies.csv (latest), u.data and u.item (100k) or
ratings.dat and movies.dat (1M, 10M).
"""

import csv
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

MAX_VALUES = 10

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ratings:
    """N ratings. users, items, values: numbers into the names and the scale.  scale: the K values that occur, rising.

    times: seconds, or nothing but zeros where none are given.  titles: of items by name, where there are any.
    """

    users: Numbers
    items: Numbers
    values: Numbers
    times: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    user_names: Sequence[str]
    item_names: Sequence[str]
    titles: dict[str, str]

    def __len__(self) -> int:
        return len(self.users)

    @property
    def shape(self) -> tuple[int, int]:
        """Users and items."""
        return len(self.user_names), len(self.item_names)

    @property
    def amounts(self) -> npt.NDArray[np.float64]:
        """The ratings in their own unit, (N,)."""
        return self.scale[self.values]

    def chosen(self, index: npt.NDArray[np.int64]) -> Self:
        """These ratings alone, of the same users and items in the same scale."""
        return replace(
            self,
            users=self.users[index],
            items=self.items[index],
            values=self.values[index],
            times=self.times[index],
        )

    def title(self, item: int) -> str:
        name = self.item_names[item]
        return self.titles.get(name, name)


@dataclass(frozen=True)
class _Layout:
    """How a file of ratings or titles is written."""

    ratings: str
    titles: str
    separator: str
    encoding: str


_LAYOUTS = (
    _Layout("ratings.csv", "movies.csv", ",", "utf-8-sig"),
    _Layout("u.data", "u.item", "\t", "latin-1"),
    _Layout("ratings.dat", "movies.dat", "::", "latin-1"),
)


def load_ratings(path: Path) -> Ratings:
    """A csv file with columns user, item, rating and perhaps timestamp, header or not; or a MovieLens folder.

    Raises ValueError naming file, line, value, rule and remedy.
    """
    if path.is_file():
        return _index(path, _read_rows(path, ",", "utf-8-sig"), {})
    found = [layout for layout in _LAYOUTS if (path / layout.ratings).is_file()]
    if not found:
        names = ", ".join(layout.ratings for layout in _LAYOUTS)
        raise ValueError(f"recommend.ratings {path} is neither a csv file nor a folder with one of {names}: correct it")
    layout = found[0]
    titles = _read_titles(path / layout.titles, layout) if (path / layout.titles).is_file() else {}
    return _index(path / layout.ratings, _read_rows(path / layout.ratings, layout.separator, layout.encoding), titles)


def _lines(path: Path, separator: str, encoding: str) -> Iterator[list[str]]:
    with path.open(encoding=encoding, newline="") as handle:
        if separator == ",":
            yield from csv.reader(handle)
        else:
            yield from (line.rstrip("\r\n").split(separator) for line in handle)


def _read_rows(path: Path, separator: str, encoding: str) -> Iterator[tuple[int, str, str, float, float]]:
    """Line number, user, item, rating, timestamp."""
    for number, words in enumerate(_lines(path, separator, encoding), start=1):
        if not words or (number == 1 and len(words) > 2 and not _is_number(words[2])):
            continue
        if len(words) not in (3, 4):
            raise ValueError(f"{path}, line {number}: wanted user, item, rating[, timestamp], got {len(words)} columns")
        numbers = words[2:]
        if not all(_is_number(word) for word in numbers):
            raise ValueError(f"{path}, line {number}: rating and timestamp must be numbers, got {', '.join(numbers)}")
        yield number, words[0], words[1], float(words[2]), float(words[3]) if len(words) == 4 else 0.0


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _read_titles(path: Path, layout: _Layout) -> dict[str, str]:
    separator = "|" if layout.titles == "u.item" else layout.separator
    return {words[0]: words[1] for words in _lines(path, separator, layout.encoding) if len(words) > 1}


def _index(path: Path, rows: Iterable[tuple[int, str, str, float, float]], titles: dict[str, str]) -> Ratings:
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    found: dict[tuple[int, int], int] = {}
    amounts, times = [], []
    for number, user, item, amount, time in rows:
        pair = users.setdefault(user, len(users)), items.setdefault(item, len(items))
        if found.setdefault(pair, number) != number:
            raise ValueError(
                f"{path}, line {number}: user {user} has rated item {item} in line {found[pair]} already: keep one"
            )
        amounts.append(amount)
        times.append(time)
    if not amounts:
        raise ValueError(f"{path} holds no ratings: give one with lines of user, item, rating[, timestamp]")
    scale, values = np.unique(np.array(amounts), return_inverse=True)
    if not 2 <= len(scale) <= MAX_VALUES:
        raise ValueError(
            f"{path} has {len(scale)} different ratings, {scale[:3].tolist()} .. {scale[-1]}: a scale has 2 to "
            f"{MAX_VALUES} values, so round them"
        )
    pairs = np.array(list(found), dtype=np.int64)
    return Ratings(pairs[:, 0], pairs[:, 1], values, np.array(times), scale, list(users), list(items), titles)
