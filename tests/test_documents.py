"""Topics of texts: annealing against enumeration, counts and precision by hand, two subjects that are told apart."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.applications.documents import (
    CHANCE,
    MACHINE,
    UNIGRAM,
    How,
    fit_topics,
    hold_out,
    load_corpus,
    load_topics,
    measure_perplexity,
    measure_retrieval,
    save_topics,
    topic_words,
)
from pipeline.applications.story import read_stories
from pipeline.config.documents import Documents
from pipeline.config.load import write_changed
from pipeline.data.documents import Text, count_words, load_embedded, load_folder, split_words
from pipeline.metrics.document_annealing import anneal_documents, perplexity
from pipeline.metrics.retrieval import precision_at
from pipeline.models.rbm import RBM
from pipeline.stage import run_stage
from stages.documents import SPEC, documents, main
from tests.rbm_oracles import seeded, tiny

ROOT = Path(__file__).parent.parent
SETTINGS = Documents(
    texts="texts",
    num_words=16,
    test_fraction=0.25,
    num_topics=4,
    seeds=1,
    epochs=60,
    batch_size=20,
    lr=0.02,
    gibbs_steps=1,
    ais_documents=10,
    ais_chains=50,
    ais_temperatures=200,
)
HOW = How(seed=0, accelerator="cpu", precision="32")


def test_annealed_log_partitions_of_all_lengths_are_the_enumerated_ones() -> None:
    model = tiny(5, 3, scale=0.7, visible="replicated_softmax")
    lengths = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    base = torch.tensor([0.1, 0.3, 0.2, 0.2, 0.2], dtype=torch.float64).log()
    found = anneal_documents(model, base, lengths, num_chains=2000, num_temperatures=100, generator=seeded())
    like = torch.zeros(3, 5, dtype=torch.float64)
    like[:, 0] = lengths
    torch.testing.assert_close(found.log_z, model.log_partition(like), atol=0.1, rtol=0)
    assert (found.ess > 200).all()


def test_a_machine_without_weights_is_annealed_without_error() -> None:
    """Its words are independent, so every chain has the same weight: log Z = H log 2 + D log sum exp(b)."""
    model = RBM(4, 3, visible="replicated_softmax").double()
    with torch.no_grad():
        model.visible_bias.copy_(torch.tensor([0.5, -0.2, 0.0, 1.0]))
    lengths, base = torch.tensor([7.0], dtype=torch.float64), model.visible_bias.detach().clone()
    found = anneal_documents(model, base, lengths, num_chains=5, num_temperatures=3, generator=seeded())
    expected = 3 * np.log(2) + 7 * torch.logsumexp(base, 0).item()
    assert found.log_z.item() == pytest.approx(expected)
    assert found.ess.item() == pytest.approx(5)
    with pytest.raises(ValueError, match="over bernoulli units is annealed here, got bernoulli, bernoulli"):
        anneal_documents(tiny(), base, lengths, num_chains=5, num_temperatures=3, generator=seeded())


def test_the_perplexity_of_equally_likely_words_is_their_number() -> None:
    lengths = torch.tensor([3.0, 8.0])
    assert perplexity(-lengths * np.log(50), lengths) == pytest.approx(50)


def test_precision_counts_neighbours_of_the_subject() -> None:
    stored = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    queries = np.array([[2.0, 0.1], [0.1, 0.2]])
    subjects = np.array([0, 1, 1, 1])
    assert precision_at(queries, np.array([0, 1]), stored, subjects, 2) == pytest.approx((1 / 2 + 2 / 2) / 2)


def test_words_are_those_of_prose() -> None:
    text = "Fit a GAUSSIAN mixture, fit it.\n>>> fit(mixture)\n\nExamples\n--------\nfit fit"
    assert split_words(text) == ["fit", "gaussian", "mixture", "fit"]


def test_words_that_are_common_or_rare_are_not_counted() -> None:
    rare, common = ["everywhere", *["left", "side"] * 15], ["everywhere", *["rest"] * 30]
    texts = [Text(str(number), "a", rare if number < 6 else common) for number in range(40)]
    texts[0] = Text("0", "a", [*rare, "once"])
    corpus = count_words(texts, 10, "here")
    assert corpus.words == ["left", "side"]
    assert corpus.counts.tolist() == [[15.0, 15.0]] * 6
    assert corpus.names == [str(number) for number in range(6)]
    with pytest.raises(ValueError, match="0 of 3 texts from here have 20 of the counted words"):
        count_words(texts[:3], 10, "here")


def write_texts(folder: Path) -> None:
    """Two subjects with eight words each, eighty texts of thirty words, a tenth of which are of the other subject."""
    rng = np.random.default_rng(0)
    words = np.array([[f"{name}{letter * 3}" for letter in "abcdefgh"] for name in ("sea", "sky")])
    for number in range(80):
        subject = number % 2
        kinds = np.where(rng.random(30) < 0.1, 1 - subject, subject)
        file = folder / ("sea", "sky")[subject] / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(" ".join(words[kinds, rng.integers(0, 8, 30)]))


def test_the_machine_tells_two_subjects_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.data.documents.COMMON", 1.0)
    write_texts(tmp_path / "texts")
    corpus = load_corpus(SETTINGS)
    assert corpus.subject_names == ["sea", "sky"]
    train, test = hold_out(corpus, SETTINGS, 0)
    assert sorted([*train, *test]) == list(range(80))
    model = fit_topics(corpus.counts[train], SETTINGS, HOW)
    found = measure_perplexity(model, corpus.counts[train], corpus.counts[test], SETTINGS, 0)
    # knowing the subject leaves 8 exp(0.33) = 11.1 words to choose from, not knowing it 16
    assert 10.5 < found[MACHINE] < 13.0 < 15.0 < found[UNIGRAM]
    precision = measure_retrieval(model, corpus, train, test, 0)
    assert precision[MACHINE] > 0.9 > 0.6 > precision[CHANCE]
    kinds = [{word[:3] for word in topic[:4]} for topic in topic_words(model, corpus.words)]
    assert {"sea"} in kinds or {"sky"} in kinds
    save_topics(tmp_path / "topics.safetensors", model, corpus.words)
    assert torch.equal(load_topics(tmp_path / "topics.safetensors", corpus.words).weight, model.weight)
    with pytest.raises(ValueError, match="counts 16 words, the texts have 15, and not the same ones"):
        load_topics(tmp_path / "topics.safetensors", corpus.words[:-1])


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no <subject>/<name>.txt"):
        load_folder(tmp_path)
    with pytest.raises(ValueError, match="is not a folder"):
        load_folder(tmp_path / "missing")


def test_the_embedded_texts_are_of_many_subjects() -> None:
    texts, source = load_embedded()
    subjects = {text.name: text.subject for text in texts}
    assert subjects["KMeans"] == "cluster"
    assert subjects["butter"] == "signal"
    assert len(set(subjects.values())) > 15
    assert len(texts) > 1000
    assert source.startswith("scipy ")


def test_the_stage_tells_of_topics_and_finds_texts_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.data.documents.COMMON", 1.0)
    few = ["texts=texts", "epochs=20", "lr=0.02", "num_topics=4", "ais_temperatures=5"]
    write_changed(ROOT / "params.yaml", Path("params.yaml"), [f"documents.{key}" for key in few])
    for name in ("stages", "pipeline"):
        Path(name).symlink_to(ROOT / name)
    write_texts(Path("texts"))
    assert run_stage(SPEC, documents) == 0
    (story,) = read_stories(Path("out/applications"))
    assert "80 texts, 16 words, 2 subjects: texts" in story.tables[0].caption
    assert "+-" in story.tables[1].rows[0].values[0]
    Path("query.txt").write_text("skyaaa skybbb skyccc skyddd skyaaa skyeee " * 5)
    capsys.readouterr()
    assert main(["--like", "query.txt", "--top", "3"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["sky"] * 3
    Path("query.txt").write_text("zzz")
    assert main(["--like", "query.txt"]) == 1
    assert "has none of the 16 counted words" in capsys.readouterr().err
