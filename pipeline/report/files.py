"""Files that the report would show, and which of them were looked for and not found."""

from pathlib import Path

from pipeline.report.content import Picture


class Files:
    """Below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.left_out: list[str] = []

    def has(self, path: Path) -> bool:
        """Whether the file exists; remembers it as left out where it does not."""
        if (self.root / path).is_file():
            return True
        self.left_out.append(f"{path.as_posix()} is missing: `dvc repro` makes it.")
        return False

    def picture(self, path: Path, alt: str) -> Picture | None:
        return Picture(self.root / path, alt) if self.has(path) else None
