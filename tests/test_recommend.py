"""Recommending: nothing of the test ratings reaches a machine, shuffled ratings give chance, structure is found."""

from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import numpy as np
import pytest

from pipeline.applications.rating_machines import (
    How,
    fit_rating_machine,
    load_recommender,
    mark_rated,
    predict_amounts,
    save_recommender,
)
from pipeline.applications.rating_rivals import has, mark_relevant, predict_surprise, rank_als
from pipeline.applications.recommend import (
    BIAS,
    LENGTH,
    POPULAR,
    RANKING,
    compare,
    fit_recommender,
    hold_out,
    predict_all,
    rank_all,
    tell,
)
from pipeline.applications.recommend_command import Command, list_best, parse_command
from pipeline.applications.story import Drawing, read_stories
from pipeline.config.recommend import Recommend
from pipeline.data.ratings import Ratings
from pipeline.metrics.ranking import score_ranking
from pipeline.metrics.ratings import score_ratings
from pipeline.stage import run_stage
from stages.recommend import SPEC, main, recommend

ROOT = Path(__file__).parent.parent
NAME = "RBM, an example per item"
SETTINGS = Recommend(
    ratings="ratings.csv",
    split="random",
    test_fraction=0.2,
    splits=1,
    sides=["item"],
    num_hidden=8,
    epochs=15,
    batch_size=16,
    lr=0.03,
    weight_decay=0.0,
    rank_hidden=8,
    rank_epochs=40,
    rank_lr=0.03,
    relevant=4.0,
)
HOW = How(seed=0, accelerator="cpu", precision="32")


def two_tastes(*, shuffled: bool = False) -> Ratings:
    """Users of two tastes: their own kind of items gets 4 or 5, the other 1 or 2, and they rate more of their own."""
    rng = np.random.default_rng(0)
    users, items = np.arange(40)[:, None] % 2, np.arange(60)[None] % 2
    own = users == items
    rated = np.argwhere(rng.random((40, 60)) < np.where(own, 0.5, 0.15))
    values = np.where(own[rated[:, 0], rated[:, 1]], 2, 0) + rng.integers(0, 2, len(rated))
    if shuffled:
        values = rng.permutation(values)
    names = [f"u{number}" for number in range(40)], [f"i{number}" for number in range(60)]
    times = rng.permutation(len(rated)).astype(float)
    return Ratings(rated[:, 0], rated[:, 1], values, times, np.array([1.0, 2.0, 4.0, 5.0]), *names, {"i1": "One"})


def test_the_machines_find_two_tastes() -> None:
    train, test = hold_out(two_tastes(), SETTINGS, 0, 0)
    errors, rankings, predicted = compare(train, test, SETTINGS, HOW)
    assert errors[NAME]["rmse"] < 0.85 < 1.0 < errors[BIAS]["rmse"]  # within a taste ratings have a deviation of 0.5
    assert rankings[RANKING]["ndcg"] > 1.2 * rankings[POPULAR]["ndcg"]
    told = tell(train, SETTINGS, [errors], [rankings], Drawing("p.png", "", ""))
    assert f"{NAME} is better here" in told.sentence
    assert len(predicted) == len(test)


def test_values_that_are_held_out_change_no_prediction() -> None:
    train, test = hold_out(two_tastes(), SETTINGS, 0, 0)
    quick = replace(SETTINGS, epochs=1, rank_epochs=1)
    other = replace(test, values=(test.values + 1) % 4)
    for name, found in predict_all(train, test, quick, HOW).items():
        np.testing.assert_array_equal(found, predict_all(train, other, quick, HOW)[name])
    assert len(set(zip(train.users, train.items, strict=True)) & set(zip(test.users, test.items, strict=True))) == 0


def test_shuffled_ratings_give_chance() -> None:
    """No method may then be better than the mean; a leak of the test ratings would be."""
    train, test = hold_out(two_tastes(shuffled=True), SETTINGS, 0, 0)
    chance = score_ratings(np.full(len(test), train.amounts.mean()), test.amounts, test.scale).rmse
    for name, found in predict_all(train, test, SETTINGS, HOW).items():
        assert score_ratings(found, test.amounts, test.scale).rmse > 0.98 * chance, name


def test_hits_that_are_shuffled_among_unseen_items_are_found_by_chance() -> None:
    train, test = hold_out(two_tastes(), SETTINGS, 0, 0)
    rng, seen, wanted = np.random.default_rng(0), mark_rated(train), mark_relevant(test, 4.0)
    shuffled = np.zeros_like(wanted)
    for user in range(len(wanted)):
        unseen = np.flatnonzero(~seen[user])
        shuffled[user, rng.permutation(unseen)[: wanted[user].sum()]] = True
    chance = np.mean([min(1, LENGTH / (~row).sum()) for row, hit in zip(seen, wanted, strict=True) if hit.any()])
    for name, scores in rank_all(train, SETTINGS, HOW).items():
        if name in (RANKING, POPULAR):
            assert score_ranking(scores, seen, shuffled).recall == pytest.approx(chance, abs=0.1), name
    assert score_ranking(rank_all(train, SETTINGS, HOW)[RANKING], seen, wanted).recall > chance + 0.15


def test_a_fit_that_was_stopped_ends_with_the_same_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = hold_out(two_tastes(), SETTINGS, 0, 0)
    quick = replace(SETTINGS, epochs=4)
    asked = (train, "item", test.users, test.items)
    whole = predict_amounts(fit_rating_machine(train, quick, "item", HOW), *asked)
    kept = replace(HOW, work=tmp_path)
    fit_rating_machine(train, quick, "item", kept)
    assert (
        tmp_path / "item-pseudo_likelihood.ckpt"
    ).is_file()  # after the third of four passes: the last is made again
    np.testing.assert_array_equal(predict_amounts(fit_rating_machine(train, quick, "item", kept), *asked), whole)


@pytest.mark.skipif(not (has("surprise") and has("implicit")), reason="scikit-surprise or implicit is not installed")
@pytest.mark.filterwarnings("ignore:OpenBLAS is configured")
def test_libraries_stand_beside() -> None:
    train, test = hold_out(two_tastes(), SETTINGS, 0, 0)
    rng = np.random.default_rng(0)
    predicted = predict_surprise(train, rng, [(4, 60, 0.02)])(test.users, test.items)
    assert score_ratings(predicted, test.amounts, test.scale).rmse < 0.9
    scores = rank_als(train, 4.0, rng, [(4, 0.1, 1.0)])
    assert score_ranking(scores, mark_rated(train), mark_relevant(test, 4.0)).ndcg > 0.2


def write_ratings(folder: Path, ratings: Ratings) -> None:
    lines = zip(ratings.users, ratings.items, ratings.amounts, strict=True)
    (folder / "ratings.csv").write_text("".join(f"u{user},i{item},{amount}\n" for user, item, amount in lines))


def test_the_stage_leaves_a_story_and_machines_that_recommend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    copyfile(ROOT / "params.yaml", "params.yaml")
    for name in ("stages", "pipeline"):
        Path(name).symlink_to(ROOT / name)
    write_ratings(tmp_path, two_tastes())
    changed = [
        f"recommend.{key}={getattr(SETTINGS, key)}" for key in ("ratings", "num_hidden", "epochs", "batch_size", "lr")
    ]
    assert run_stage(SPEC, recommend, [*changed, "recommend.rank_epochs=5", "recommend.splits=2"]) == 0
    (story,) = read_stories(Path("out/applications"))
    assert [table.columns[0] for table in story.tables] == ["RMSE", f"nDCG@{LENGTH}"]
    assert "+-" in story.tables[0].rows[0].values[0]
    assert Path(story.drawings[0].path).is_file()
    capsys.readouterr()
    assert main(["--user", "u3", "--top", "4", "--ratings", "ratings.csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    rated = {f"i{item}" for user, item in zip(two_tastes().users, two_tastes().items, strict=True) if user == 3}
    assert not {line.split()[1] for line in lines[1:]} & rated
    assert main(["--user", "nobody", "--top", "4", "--ratings", "ratings.csv"]) == 1
    assert "--user nobody has no rating: give one of the 40 users" in capsys.readouterr().err


def test_without_ratings_the_stage_says_that_it_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    copyfile(ROOT / "params.yaml", "params.yaml")
    for name in ("stages", "pipeline"):
        Path(name).symlink_to(ROOT / name)
    assert run_stage(SPEC, recommend, []) == 0
    (story,) = read_stories(Path("out/applications"))
    assert story.sentence.startswith("Switched off: recommend.ratings is data.")
    assert story.tables == []


def test_a_model_of_other_ratings_is_refused_by_name(tmp_path: Path) -> None:
    ratings = two_tastes()
    quick = replace(SETTINGS, epochs=1, rank_epochs=1)
    recommender = fit_recommender(ratings, quick, HOW)
    save_recommender(tmp_path, recommender, ratings)
    loaded = load_recommender(tmp_path / "rating.safetensors", ratings)
    assert list_best(loaded, ratings, "u7", 5) == list_best(recommender, ratings, "u7", 5)
    fewer = replace(ratings, user_names=ratings.user_names[:-1])
    with pytest.raises(
        ValueError, match=r"rating.safetensors knows 40 users, the ratings have 39, and some are missing"
    ):
        load_recommender(tmp_path / "rating.safetensors", fewer)
    renamed = replace(ratings, item_names=["film", *ratings.item_names[1:]])
    with pytest.raises(ValueError, match=r"knows 60 items, .* have 60, and the first that differs is i0 against film"):
        load_recommender(tmp_path / "rating.safetensors", renamed)


def test_the_command_line_asks_for_a_user() -> None:
    assert parse_command([]) is None
    assert parse_command(["--user", "42", "--top", "3"]) == Command("42", 3, None, None)
    with pytest.raises(SystemExit):
        parse_command(["--top", "3"])
