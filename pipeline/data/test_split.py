"""The test split. Only stages/evaluate.py imports this module: choices are made on validation data."""

from pathlib import Path

from pipeline.data.prepared import Split, load_manifest, load_split


def load_test(folder: Path) -> Split:
    """The folder written by `write_test`. Raises ValueError as `load_prepared` does."""
    return load_split(folder, load_manifest(folder), "")
