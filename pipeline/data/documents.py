"""Texts with a subject each, as counts of words: a folder of files, or the docstrings of scipy and scikit-learn.

Docstrings because they are real prose on some twenty subjects (the subpackages) that is there wherever this is
installed, without a download; they change a little from release to release, so the releases are told.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distribution, version
from pathlib import Path

import numpy as np
import numpy.typing as npt

PACKAGES = {"scipy": "scipy", "sklearn": "scikit-learn"}
"""Import name and distribution."""
LEAST_WORDS = 20
"""Of the counted ones; shorter texts are left out."""
LEAST_TEXTS = 20
"""Of an embedded subject; smaller subpackages are left out."""
COMMON, RARE = 0.3, 5
"""Words in more than this share of the texts, or in fewer than so many, are not counted."""


@dataclass(frozen=True)
class Text:
    name: str
    subject: str
    words: Sequence[str]


@dataclass(frozen=True)
class Corpus:
    """counts: float32 (N, V) of `words`.  subjects: (N,) numbers into subject_names.  source: told with results."""

    counts: npt.NDArray[np.float32]
    words: Sequence[str]
    names: Sequence[str]
    subjects: npt.NDArray[np.int64]
    subject_names: Sequence[str]
    source: str


def split_words(text: str) -> list[str]:
    """Runs of three letters and more, in lower case; lines that show code or its output are left out."""
    prose = re.sub(r"^\s*(>>>|\.\.\. |\.\. ).*$", " ", text.split("\nExamples\n")[0], flags=re.MULTILINE)
    return re.findall(r"[a-z]{3,}", prose.lower())


def load_folder(path: Path) -> list[Text]:
    """The .txt files of every folder in `path`, whose name is their subject."""
    if not path.is_dir():
        raise ValueError(f"documents.texts {path} is not a folder: give one with a folder of .txt files per subject")
    files = sorted(path.glob("*/*.txt"))
    if not files:
        raise ValueError(f"documents.texts {path} has no <subject>/<name>.txt: put each text into its subject's folder")
    return [
        Text(f"{file.parent.name}/{file.stem}", file.parent.name, split_words(file.read_text("utf-8", "replace")))
        for file in files
    ]


def load_embedded() -> tuple[list[Text], str]:
    """Docstrings of the public classes and functions of PACKAGES, by subpackage; and which releases they are of."""
    texts: dict[tuple[str, ...], Text] = {}
    for package, name in PACKAGES.items():
        root = Path(str(distribution(name).locate_file(package)))
        for file in sorted(root.glob("*/**/*.py")):
            subject = file.relative_to(root).parts[0]
            if "tests" not in file.parts and not subject.startswith("_") and subject != "externals":
                for label, words in _docstrings(file):
                    texts.setdefault(tuple(words), Text(label, subject, words))  # what is inherited is there once
    sizes = Counter(text.subject for text in texts.values())
    kept = [text for text in texts.values() if sizes[text.subject] >= LEAST_TEXTS]
    return kept, " and ".join(f"{name} {version(name)}" for name in PACKAGES.values())


def _docstrings(file: Path) -> Iterator[tuple[str, list[str]]]:
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            words = split_words(ast.get_docstring(node) or "")
            if len(words) >= LEAST_WORDS:
                yield node.name, words


def count_words(texts: Sequence[Text], num_words: int, source: str) -> Corpus:
    """Counts of the `num_words` most frequent words that are neither common nor rare.

    Raises ValueError when fewer than two texts with LEAST_WORDS of them are left.
    """
    found_in = Counter(word for text in texts for word in set(text.words))
    total = Counter(word for text in texts for word in text.words)
    most = COMMON * len(texts)
    usable = [word for word, count in found_in.items() if min(RARE, most) <= count <= max(most, 1)]
    words = sorted(sorted(usable, key=lambda word: (-total[word], word))[:num_words])
    counts = np.stack([count_in(text.words, words) for text in texts])
    kept = np.flatnonzero(counts.sum(1) >= LEAST_WORDS).tolist()
    if len(kept) < 2:
        raise ValueError(
            f"documents.texts: {len(kept)} of {len(texts)} texts from {source} have {LEAST_WORDS} of the counted "
            "words: give more and longer ones"
        )
    subject_names = sorted({texts[row].subject for row in kept})
    return Corpus(
        counts[kept],
        words,
        [texts[row].name for row in kept],
        np.array([subject_names.index(texts[row].subject) for row in kept]),
        subject_names,
        source,
    )


def count_in(text: Sequence[str], words: Sequence[str]) -> npt.NDArray[np.float32]:
    """How often each of `words` is in the text, (V,)."""
    found = Counter(text)
    return np.array([found[word] for word in words], dtype=np.float32)
