"""How results come home: small files as lines of a job's log, because a log is what every cluster sends back.

Large outs take the DVC remote. A letter holds dvc.lock and what DVC does not cache, metrics/ first of all.
"""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

BEGIN, END = "=== layerwise results ===", "=== end of layerwise results ==="
FILES = ("dvc.lock",)
FOLDERS = ("metrics",)
LINE = 76
MAX_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Letter:
    """What a job leaves, besides the outs in the DVC remote."""

    lock_before: str | None
    """sha256 of the dvc.lock that the job was given; None where there was none."""
    files: dict[str, bytes]
    """By path, relative to the project's root."""


def write_letter(root: Path, lock_before: str | None) -> str:
    """The results below `root` as lines of text."""
    paths = [root / name for name in FILES if (root / name).is_file()]
    paths += [path for folder in FOLDERS for path in sorted((root / folder).rglob("*")) if path.is_file()]
    files = {path.relative_to(root).as_posix(): base64.b64encode(path.read_bytes()).decode() for path in paths}
    content = zlib.compress(json.dumps({"lock_before": lock_before, "files": files}).encode(), 9)
    text = base64.b64encode(content).decode()
    lines = [text[start : start + LINE] for start in range(0, len(text), LINE)]
    return "\n".join([BEGIN, hashlib.sha256(content).hexdigest(), *lines, END])


def read_letter(log: str) -> Letter | None:
    """The last letter in a log; None when there is none.

    Raises ValueError for a damaged one, and for files that are no results.
    """
    _, found, rest = log.rpartition(BEGIN + "\n")
    if not found:
        return None
    digest, _, text = rest.partition(END)[0].strip().partition("\n")
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        content = b""
    if hashlib.sha256(content).hexdigest() != digest:
        raise ValueError("the results in the job's log are damaged: fetch them with --attach, or submit again")
    unpacker = zlib.decompressobj()
    plain = unpacker.decompress(content, MAX_BYTES)
    if unpacker.unconsumed_tail:
        raise ValueError(f"the results in the job's log are larger than {MAX_BYTES} bytes: they are not from us")
    tree = json.loads(plain)
    files = {_checked(path): base64.b64decode(data) for path, data in tree["files"].items()}
    return Letter(tree["lock_before"], files)


def lines_for_people(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of a log without letters, as they come in chunks of any size."""
    inside = False
    for line in _lines(chunks):
        inside = inside or line == BEGIN
        if not inside:
            yield line
        inside = inside and line != END


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split("\n")
        yield from (line.rstrip("\r") for line in lines)
    if rest:
        yield rest


def open_letter(letter: Letter, root: Path) -> list[Path]:
    """Puts the files in their places below `root`; returns those that changed.

    Raises ValueError when dvc.lock is no longer the one that was sent: another run would be overwritten.
    """
    sent = letter.files.get("dvc.lock")
    theirs = hashlib.sha256(sent).hexdigest() if sent is not None else None
    if hash_lock(root) not in (letter.lock_before, theirs):
        raise ValueError(
            "dvc.lock changed here while the job ran: move yours away, then fetch the results with --attach"
        )
    changed = []
    for path, content in letter.files.items():
        target = root / path
        if target.is_file() and target.read_bytes() == content:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.part")
        draft.write_bytes(content)
        draft.replace(target)
        changed.append(target)
    return changed


def hash_lock(root: Path) -> str | None:
    """sha256 of dvc.lock, or None."""
    file = root / "dvc.lock"
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _checked(path: str) -> str:
    parts = PurePosixPath(path).parts
    if path not in FILES and not (parts[0] in FOLDERS and len(parts) > 1 and ".." not in parts):
        raise ValueError(f"the job sends {path!r}, which is no result of this pipeline: refused")
    return path
