"""The tree in README.md, from the first sentence of every file: `python -m tests.readme_tree` rewrites it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- tree: python -m tests.readme_tree -->\n", "<!-- end of tree -->\n"


def first_sentence(file: Path) -> str:
    """Of the module's docstring, without the full stop."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text())) or "").split())
    return re.split(r"(?<=[a-z0-9)`])\.(?: |$)", text)[0]


def tree() -> str:
    """Files by folder, one line each."""
    lines = []
    for top in ("stages", "pipeline", "cluster", "benchmarks"):
        files = [file for file in sorted((ROOT / top).rglob("*.py")) if file.name != "__init__.py"]
        for folder in sorted({file.parent for file in files}):
            lines.append(f"{folder.relative_to(ROOT).as_posix()}/")
            lines += [f"  {file.name:22} {first_sentence(file)}" for file in files if file.parent == folder]
    return "```\n" + "\n".join(lines) + "\n```\n"


def with_tree(text: str) -> str:
    head, rest = text.split(BEGIN)
    return head + BEGIN + tree() + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(with_tree(README.read_text()))
