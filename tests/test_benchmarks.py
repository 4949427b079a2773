import sys
from pathlib import Path

import pytest

from benchmarks.record import RESULTS, Row, record
from benchmarks.results_page import PAGE, render_page
from pipeline.artifacts import read_json

ROOT = Path(__file__).parent.parent


@pytest.fixture
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["speed.py", "--quick"])


@pytest.mark.usefixtures("_in_a_folder")
def test_a_missed_bar_is_exit_code_1_and_said() -> None:
    fast = Row(name="fast", value=1.0, unit="s", bar=2.0, goal=0.5)
    exact = Row(name="exact", value=0.7, unit="1", bar=0.9, better="higher", low=0.6, high=0.8, seeds=5)
    assert record("speed", [fast]) == 0
    assert "missed" not in render_page(RESULTS)
    assert record("speed", [fast, exact]) == 1
    page = render_page(RESULTS)
    assert "| exact | 0.7 1 | 0.6 to 0.8 | 5 |  | >= 0.9 **missed** |" in page
    assert "`python -m benchmarks.speed --quick`" in page


@pytest.mark.usefixtures("_in_a_folder")
def test_a_record_has_the_keys_of_the_contract() -> None:
    record("speed", [Row(name="fast", value=1.0, unit="s")])
    value = read_json(RESULTS / "speed.json")
    assert {"command", "commit", "hardware", "rows"} == set(value)
    contract = {"name", "value", "unit", "low", "high", "seeds", "baseline", "bar", "goal"}
    assert contract <= set(value["rows"][0])


def test_the_results_page_is_made_from_the_recorded_files() -> None:
    assert (ROOT / PAGE).read_text() == render_page(ROOT / RESULTS), "run `python -m benchmarks.results_page`"
