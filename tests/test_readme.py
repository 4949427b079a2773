import re

from tests.readme_tree import README, ROOT, first_sentence, with_tree


def test_the_tree_in_the_readme_is_the_tree() -> None:
    text = README.read_text()
    assert with_tree(text) == text, "run `python -m tests.readme_tree`"


def test_every_file_says_in_a_sentence_what_it_is() -> None:
    files = [file for folder in ("pipeline", "stages", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
    assert [file for file in files if file.name != "__init__.py" and len(first_sentence(file)) < 10] == []


def test_every_make_target_and_command_in_the_readme_exists() -> None:
    text = README.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets
