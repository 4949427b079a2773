"""What an application tells the report: a sentence, tables in which its baselines stand beside it, and pictures.

An application writes story.json into its own out; the report renders every one of them alike and knows none by name.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.artifacts import read_json, write_json

STORY_FILE = "story.json"


@dataclass(frozen=True)
class TableRow:
    """values: text to show, one a column.  baseline: a simple method that the others must beat."""

    name: str
    values: Sequence[str]
    baseline: bool = False


@dataclass(frozen=True)
class Table:
    """columns: what the values of a row are; the row names need no heading.  caption: n, seeds, splits, units."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[TableRow]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.values) != len(self.columns):
                raise ValueError(
                    f"row {row.name!r} has {len(row.values)} values, the table {len(self.columns)} columns"
                )


@dataclass(frozen=True)
class Drawing:
    """A png or svg.  path: from the project's root.  alt: what it shows, for readers who cannot see it."""

    path: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Story:
    """order: place in the report, lower is earlier.  title: a heading.  sentence: the answer, with its numbers."""

    order: int
    title: str
    sentence: str
    tables: Sequence[Table] = ()
    drawings: Sequence[Drawing] = ()


def write_story(folder: Path, story: Story) -> None:
    write_json(folder / STORY_FILE, asdict(story))


def read_stories(folder: Path) -> list[Story]:
    """The stories of all applications below `folder`, in their order."""
    return sorted((_read_story(path) for path in folder.glob(f"*/{STORY_FILE}")), key=lambda told: told.order)


def _read_story(path: Path) -> Story:
    told = read_json(path)
    return Story(
        **told
        | {
            "tables": [
                Table(**table | {"rows": [TableRow(**row) for row in table["rows"]]}) for table in told["tables"]
            ],
            "drawings": [Drawing(**drawing) for drawing in told["drawings"]],
        }
    )
