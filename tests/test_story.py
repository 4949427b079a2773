from pathlib import Path

import pytest

from pipeline.applications.story import Drawing, Story, Table, TableRow, read_stories, write_story


def test_stories_come_back_as_they_were_told_in_their_order(tmp_path: Path) -> None:
    table = Table("n = 10", ["AUROC", "AUPRC"], [TableRow("ours", ["96", "90"]), TableRow("PCA", ["95", "89"], True)])
    late = Story(2, "Denoising", "It denoises.")
    early = Story(1, "Anomalies", "It finds them.", [table], [Drawing("plots/a.png", "maps", "a caption")])
    write_story(tmp_path / "denoise", late)
    write_story(tmp_path / "anomaly", early)
    told = read_stories(tmp_path)
    assert [story.title for story in told] == ["Anomalies", "Denoising"]
    assert told[0] == early


def test_a_row_that_does_not_fit_its_columns_is_refused() -> None:
    with pytest.raises(ValueError, match="row 'ours' has 1 values, the table 2 columns"):
        Table("", ["AUROC", "AUPRC"], [TableRow("ours", ["96"])])


def test_no_application_no_story(tmp_path: Path) -> None:
    assert read_stories(tmp_path / "missing") == []
