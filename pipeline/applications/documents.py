"""Trains replicated softmax RBMs on texts, compares them with a unigram model and LSA, and tells the story."""

# N documents, V words, T topics

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.applications.story import Story, Table, TableRow
from pipeline.config.documents import EMBEDDED, Documents
from pipeline.data.documents import Corpus, count_words, load_embedded, load_folder
from pipeline.metrics.document_annealing import anneal_documents, perplexity
from pipeline.metrics.retrieval import precision_at
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.rbm import RBM
from pipeline.seeding import derive_seed, make_generator, make_numpy_rng
from pipeline.training.plan import FitPlan
from pipeline.training.stream import BatchStream
from pipeline.weights import load_weights, save_weights

ORDER, NEAREST, WORDS_OF_A_TOPIC, KIND = 60, 10, 8, "topic_rbm"
ENOUGH_CHAINS = 10
"""Effective ones, by the median over lengths, below which the story warns of its perplexity."""
MACHINE, UNIGRAM, CHANCE, WORDS = "replicated softmax RBM", "unigram", "chance", "TF-IDF of words"


@dataclass(frozen=True, kw_only=True)
class How:
    """Where and from which seed a machine is fitted. work: folder for its checkpoint, None keeps none."""

    seed: int
    accelerator: str
    precision: str
    work: Path | None = None


def load_corpus(settings: Documents) -> Corpus:
    if settings.texts == EMBEDDED:
        texts, source = load_embedded()
        return count_words(texts, settings.num_words, f"docstrings of {source}")
    return count_words(load_folder(Path(settings.texts).expanduser()), settings.num_words, settings.texts)


def hold_out(corpus: Corpus, settings: Documents, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the training and of the test documents."""
    order = make_numpy_rng(seed, "documents", "split").permutation(len(corpus.counts))
    count = min(max(round(settings.test_fraction * len(order)), 1), len(order) - 1)
    return np.sort(order[count:]), np.sort(order[:count])


def fit_topics(counts: np.ndarray, settings: Documents, how: How) -> RBM:
    """counts: float32 (N, V). A document's words are counts, so its length is its own."""
    from pipeline.training.fit import fit  # Lightning takes seconds to import: only where a model is fitted

    x, seed = torch.from_numpy(counts), derive_seed(how.seed, "documents")
    unlabelled = torch.full((len(x),), UNLABELLED)
    model = RBM(
        x.shape[1], settings.num_topics, visible="replicated_softmax", gibbs_steps=settings.gibbs_steps, centred=True
    )
    model.initialise(Batch(x, unlabelled), make_generator(seed, "weights"))
    batch_size = min(settings.batch_size, len(x))
    stream = BatchStream(x, unlabelled, batch_size=batch_size, seed=derive_seed(seed, "batches"))
    steps = -(-len(x) // batch_size)
    plan = FitPlan(
        steps=settings.epochs * steps,
        steps_per_epoch=steps,
        lr=settings.lr,
        schedule="linear_tail",
        seed=derive_seed(seed, "fit"),
        accelerator=how.accelerator,
        precision=how.precision,
    )
    fit(model, stream, plan, checkpoint=None if how.work is None else how.work / "topics.ckpt")
    return model


def unigram(counts: np.ndarray) -> torch.Tensor:
    """Log shares of the words, one more of each than there are, (V,)."""
    total = torch.from_numpy(counts).double().sum(0) + 1
    return torch.log(total / total.sum())


def measure_perplexity(
    model: RBM, train: np.ndarray, test: np.ndarray, settings: Documents, seed: int
) -> dict[str, float]:
    """Of a word of the first ais_documents test documents; the machine's from estimates of log Z, which flatter it."""
    v, base = torch.from_numpy(test[: settings.ais_documents]).double(), unigram(train)
    lengths, place = v.sum(1).unique(return_inverse=True)
    model = model.double()
    found = anneal_documents(
        model,
        base,
        lengths,
        num_chains=settings.ais_chains,
        num_temperatures=settings.ais_temperatures,
        generator=make_generator(seed, "documents", "annealing"),
    )
    with torch.no_grad():
        log_p = -model.free_energy(v) - found.log_z[place]
    model.float()
    return {
        MACHINE: perplexity(log_p, v.sum(1)),
        UNIGRAM: perplexity(v @ base, v.sum(1)),
        "ess": float(found.ess.median()),
    }


@torch.no_grad()
def encode(model: RBM, counts: np.ndarray) -> np.ndarray:
    """P(topic | document), (N, T)."""
    return model.hidden_probabilities(torch.from_numpy(counts)).numpy()


def measure_retrieval(model: RBM, corpus: Corpus, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, float]:
    """Precision of the nearest training documents, by method; LSA has as many numbers a document as the machine."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer

    counts, topics = corpus.counts, model.num_hidden
    weigh = TfidfTransformer(sublinear_tf=True).fit(counts[train])
    weighted = [weigh.transform(counts[part]) for part in (train, test)]
    lsa = TruncatedSVD(min(topics, counts.shape[1] - 1), random_state=seed % 2**32).fit(weighted[0])
    vectors = {
        MACHINE: [encode(model, counts[part]) for part in (train, test)],
        f"LSA-{lsa.n_components}": [lsa.transform(part) for part in weighted],
        WORDS: [part.toarray() for part in weighted],
    }
    subjects, wanted = corpus.subjects[train], corpus.subjects[test]
    found = {name: precision_at(query, wanted, stored, subjects) for name, (stored, query) in vectors.items()}
    return found | {CHANCE: float((subjects == wanted[:, None]).mean())}


def topic_words(model: RBM, words: Sequence[str]) -> list[list[str]]:
    """The words with the largest weights of each topic, (T, WORDS_OF_A_TOPIC)."""
    order = model.weight.detach().topk(min(WORDS_OF_A_TOPIC, len(words)), dim=0).indices.t()
    return [[words[word] for word in topic] for topic in order.tolist()]


def save_topics(path: Path, model: RBM, words: Sequence[str]) -> None:
    save_weights(path, model.state_dict(), kind=KIND, config={"words": list(words), "num_topics": model.num_hidden})


def load_topics(path: Path, words: Sequence[str]) -> RBM:
    """Raises ValueError as `load_weights` does, and when it counts other words than `words`."""
    state, config = load_weights(path, kind=KIND)
    if config["words"] != list(words):
        raise ValueError(
            f"{path} counts {len(config['words'])} words, the texts have {len(words)}, and not the same ones: give the "
            "model that was trained on these texts, or train one with `dvc repro documents`"
        )
    model = RBM(len(words), config["num_topics"], visible="replicated_softmax", centred=True)
    model.load_state_dict(state)
    return model.eval()


def tell(
    corpus: Corpus,
    settings: Documents,
    perplexities: Sequence[dict[str, float]],
    precisions: Sequence[dict[str, float]],
    topics: Sequence[Sequence[str]],
) -> Story:
    """perplexities, precisions: one for each seed; topics: of the first machine."""
    p, r = mean_by_name(perplexities), mean_by_name(precisions)
    rival = max((name for name in r if name != MACHINE), key=r.__getitem__)
    ess = p.pop("ess")
    sizes = f"{len(corpus.counts)} texts, {len(corpus.words)} words, {len(corpus.subject_names)} subjects"
    facts = f"{sizes}: {corpus.source}"
    seeds = f"{settings.test_fraction:.0%} held out, {settings.seeds} splits and seeds, mean +- sd"
    sentence = (
        f"On held-out texts {MACHINE} has a perplexity of {p[MACHINE]:.0f} a word, a {UNIGRAM} model {p[UNIGRAM]:.0f}. "
        f"Of the {NEAREST} nearest texts {r[MACHINE]:.1%} are of the same subject by its topics, {r[rival]:.1%} by "
        f"{rival}: {MACHINE if r[MACHINE] > r[rival] else rival} is better there."
    )
    if ess < ENOUGH_CHAINS:
        sentence += f" The perplexity is too low by an unknown amount: log Z rests on {ess:.0f} effective chains alone."
    caption = (
        f"Perplexity of a word ({settings.ais_documents} documents a seed; annealing with a median of {ess:.0f} "
        f"effective chains of {settings.ais_chains}, and its log Z, too low in expectation, flatters); {facts}; {seeds}"
    )
    tables = [
        Table(caption, ["perplexity"], [_row(name, perplexities, 1) for name in p]),
        Table(
            f"Of the {NEAREST} nearest texts, of the same subject; {facts}; {seeds}",
            [f"precision@{NEAREST}"],
            [_row(name, precisions, 3) for name in r],
        ),
        Table(
            "Words with the largest weights of a topic, seed 0",
            ["words"],
            [TableRow(f"topic {number}", [", ".join(words)]) for number, words in enumerate(topics)],
        ),
    ]
    return Story(ORDER, "Documents", sentence, tables)


def mean_by_name(results: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([result[name] for result in results])) for name in results[0]}


def _row(name: str, results: Sequence[dict[str, float]], digits: int) -> TableRow:
    found = np.array([result[name] for result in results])
    spread = f" +- {found.std(ddof=1):.{digits}f}" if len(found) > 1 else ""
    return TableRow(name, [f"{found.mean():.{digits}f}{spread}"], name != MACHINE)
