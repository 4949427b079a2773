"""What a stage's result depends on: the source files it imports, its parameters and its inputs."""

import ast
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.artifacts import hash_file, hash_tree

OWN_PACKAGES = ("pipeline", "stages")


def import_closure(module: str, root: Path) -> list[Path]:
    """Files below `root` that importing `module` can execute, itself included, sorted.

    Follows every import statement, also those inside functions; empty files are left out, because nothing in them
    can change a result.
    """
    found: set[Path] = set()
    queue = [module]
    while queue:
        file = _find(queue.pop(), root)
        if file is None or file in found:
            continue
        found.add(file)
        queue += _imports(root / file)
    return sorted(file for file in found if (root / file).stat().st_size > 0)


def _find(module: str, root: Path) -> Path | None:
    if module.split(".")[0] not in OWN_PACKAGES:
        return None
    base = Path(*module.split("."))
    for file in (base.with_suffix(".py"), base / "__init__.py"):
        if (root / file).is_file():
            return file
    return None


@cache
def _imports(file: Path) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return tuple(names)


def hash_inputs(params: dict[str, Any], inputs: Iterable[Path], code: Sequence[Path], root: Path) -> str:
    """sha256 over parameter values, the contents of the inputs and the source files, in hex.

    Raises ValueError when an input does not exist.
    """
    digest = hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode())
    for path in inputs:
        if not (root / path).exists():
            raise ValueError(f"{path} does not exist: run `dvc repro`, which makes it first, or `dvc pull`")
        digest.update(f"{path}={hash_tree(root / path)}\n".encode())
    for file in code:
        digest.update(f"{file}={hash_file(root / file)}\n".encode())
    return digest.hexdigest()
