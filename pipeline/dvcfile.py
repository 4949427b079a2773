"""Keeps the deps of dvc.yaml true: each stage depends on every source file that it can execute.

`python -m pipeline.dvcfile` tells what is out of date and exits with 1; `--write` mends it (`make deps`).
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.provenance import import_closure

DVC_YAML = Path("dvc.yaml")


def with_true_deps(tree: Any, root: Path) -> list[str]:
    """Replaces the .py deps of every stage of a parsed dvc.yaml by its import closure, keeping the other deps.

    Returns one line per file that was missing or superfluous.
    """
    changes: list[str] = []
    for name, stage in tree["stages"].items():
        body = stage.get("do", stage)
        others = [dep for dep in body["deps"] if not str(dep).endswith(".py")]
        listed = {str(dep) for dep in body["deps"]} - set(map(str, others))
        code = [file.as_posix() for file in import_closure(f"stages.{name}", root)]
        changes += [f"{name}: {file} is missing" for file in sorted(set(code) - listed)]
        changes += [f"{name}: {file} is listed but never imported" for file in sorted(listed - set(code))]
        if listed != set(code):
            body["deps"] = others + code
    return changes


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="mend dvc.yaml")
    options = parser.parse_args(arguments)
    yaml = YAML()
    yaml.width = 120
    yaml.indent(mapping=2, sequence=4, offset=2)
    tree = yaml.load(DVC_YAML)
    changes = with_true_deps(tree, Path.cwd())
    for change in changes:
        print(change)
    if changes and options.write:
        yaml.dump(tree, DVC_YAML)
        return 0
    return 1 if changes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
