"""Files other stages read: arrays, tables, json. Written whole or not at all, checked on load, no pickles."""

import csv
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Json = Any  # what json.loads returns
Row = Mapping[str, object]


FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Has the OSError of a full disk or a used-up quota name `path`, which a failing write does not, and the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        remedy = "free some (`dvc gc --workspace` drops cached results of earlier runs) and run the same command again"
        raise OSError(error.errno, f"{error.strerror}: {remedy}", str(path)) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yields a temporary neighbour of `path`, renamed onto it when the block ends well and removed when it does not.

    When the disk is full, the OSError names `path` and the remedy.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explain_full_disk(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Json) -> None:
    """Sorted keys and a final newline: equal values give equal bytes. NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Json:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid json ({error}): delete it and rerun the stage that makes it") from error


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """csv with a header; the columns are the first row's keys, and every row must have the same ones."""
    if not rows:
        raise ValueError(f"{path}: a table needs at least one row")
    columns = list(rows[0])
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            if list(row) != columns:
                raise ValueError(f"{path}: columns {list(row)} differ from the first row's {columns}")
            writer.writerow({key: repr(value) if isinstance(value, float) else value for key, value in row.items()})


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """.npy, C order, so that `read_array` can map it."""
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.ascontiguousarray(array), allow_pickle=False)


def read_array(path: Path) -> npt.NDArray[Any]:
    """A read-only memory map of a .npy file."""
    return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]


def hash_file(path: Path) -> str:
    """sha256 of the file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def hash_tree(path: Path) -> str:
    """sha256 over a file, or over the names and contents of every file below a folder."""
    if path.is_file():
        return hash_file(path)
    digest = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{hash_file(file)}\n".encode())
    return digest.hexdigest()
