"""Softmax and replicated softmax units: smaller machines, sums over all documents, chi-square, finite differences."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_categories, sample_counts
from pipeline.row_noise import RowGenerator
from tests.rbm_oracles import as_batch, finite_difference, learned, seeded, states, tiny, train


def ratings(count: int, num_values: int, missing: float, seed: int = 0) -> Tensor:
    """Three groups, one value each, none where it is missing: (count, 3 * num_values)."""
    generator = seeded(seed)
    values = torch.nn.functional.one_hot(torch.randint(num_values, (count, 3), generator=generator), num_values)
    rated = torch.rand(count, 3, 1, generator=generator) >= missing
    return (values * rated).flatten(1).double()


@torch.no_grad()
def test_a_missing_rating_leaves_the_machine_without_that_group() -> None:
    whole, part = (tiny(size, 3, visible="softmax", num_values=4) for size in (12, 8))
    kept = [0, 1, 2, 3, 8, 9, 10, 11]
    part.weight.copy_(whole.weight[kept])
    part.visible_bias.copy_(whole.visible_bias[kept])
    part.hidden_bias.copy_(whole.hidden_bias)
    v = ratings(10, 4, missing=0.0)
    v[:, 4:8] = 0
    torch.testing.assert_close(whole.hidden_probabilities(v), part.hidden_probabilities(v[:, kept]))
    torch.testing.assert_close(whole.free_energy(v), part.free_energy(v[:, kept]))
    torch.testing.assert_close(whole.log_partition(v), part.log_partition(v[:, kept]))
    torch.testing.assert_close(whole.visible_mean(states(3), v[:8])[:, kept], part.visible_mean(states(3)))
    assert torch.equal(whole.visible_mean(states(3), v[:8])[:, 4:8], torch.zeros(8, 4).double())
    assert (whole.decode(states(3)) > 0).all()  # a prediction for what was not rated


@pytest.mark.parametrize("exact", [False, True])
def test_missing_ratings_contribute_no_gradient(exact: bool) -> None:
    model = tiny(12, 3, visible="softmax", num_values=4, gibbs_steps=3, exact=exact)
    v = ratings(50, 4, missing=0.5)
    v[:, 4:8] = 0  # nobody rated the second item
    model.training_losses(as_batch(v), 0, seeded()).total.backward()
    for gradient in (model.weight.grad, model.visible_bias.grad):
        assert gradient is not None
        assert torch.equal(gradient[4:8], torch.zeros_like(gradient[4:8]))
        assert (gradient[:4] != 0).all()


@torch.no_grad()
def test_chains_give_values_to_the_rated_items_alone() -> None:
    model, v = tiny(12, 3, visible="softmax", num_values=4), ratings(200, 4, missing=0.5)
    end = model.gibbs(v, 3, seeded())
    assert torch.equal(end.view(200, 3, 4).sum(2), v.view(200, 3, 4).sum(2))
    assert not torch.equal(end, v)


def test_the_exact_gradient_of_incomplete_ratings_is_that_of_their_likelihood() -> None:
    model, v = tiny(12, 3, scale=0.5, visible="softmax", num_values=4, exact=True), ratings(9, 4, missing=0.4)

    @torch.no_grad()
    def loss() -> Tensor:
        return (model.free_energy(v) + model.log_partition(v)).mean()

    losses = model.training_losses(as_batch(v), 0, seeded())
    losses.total.backward()
    torch.testing.assert_close(losses.total.detach(), loss())
    for parameter in learned(model):
        assert parameter.grad is not None
        assert finite_difference(parameter, loss) == pytest.approx(parameter.grad.flatten()[0].item(), abs=1e-6)


def test_softmax_training_learns_which_ratings_go_together() -> None:
    """Whoever likes one item likes all: log 2 nats, against 3 log 2 for independent items."""
    like = torch.randint(0, 2, (400, 1), generator=seeded()).expand(-1, 3)
    x = torch.nn.functional.one_hot(like * 2, 3).flatten(1).float()
    model = RBM(9, 4, visible="softmax", num_values=3)
    model.initialise(as_batch(x), seeded(1))
    expected = torch.log((x.sum(0) + 1) / 403)  # one rating more of each of three values
    torch.testing.assert_close(model.visible_bias.detach(), expected)
    train(model, x, lr=0.1, steps=400)
    with torch.no_grad():
        assert float((model.free_energy(x) + model.log_partition(x)).mean()) < 1.0


def test_categories_are_drawn_with_their_probabilities() -> None:
    p = torch.tensor([[0.2, 0.0, 0.5, 0.3], [0.0, 0.0, 0.0, 0.0]])
    drawn = sample_categories(p.expand(20_000, 2, 4), seeded())
    assert drawn[:, 1].sum() == 0
    assert torch.equal(drawn[:, 0].sum(1), torch.ones(20_000))
    assert drawn[:, 0, 1].sum() == 0
    observed = drawn[:, 0, [0, 2, 3]].sum(0)
    assert stats.chisquare(observed.numpy(), np.array([4000.0, 10_000.0, 6000.0])).pvalue > 0.001


def test_softmax_units_in_groups_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="num_values must be >= 2 and divide num_visible, 10, got 4"):
        RBM(10, 3, visible="softmax", num_values=4)
    with pytest.raises(ValueError, match=r"num_chains must be 0 with Softmax units, whose .* got 5: use CD"):
        RBM(12, 3, visible="softmax", num_values=4, num_chains=5)
    with pytest.raises(ValueError, match=r"visible must be one of bernoulli, .*, softmax, got 'poisson'"):
        RBM(12, 3, visible="poisson")


def documents(count: int, num_words: int, longest: int, seed: int = 0) -> Tensor:
    """Word counts of documents of 1 to `longest` words."""
    generator = seeded(seed)
    lengths = torch.randint(1, longest + 1, (count, 1), generator=generator).double()
    return sample_counts(torch.full((count, num_words), 1 / num_words).double() * lengths, generator)


def test_hidden_biases_count_once_for_every_word() -> None:
    """Salakhutdinov & Hinton 2009, eqs. 3-6, written out."""
    model, v = tiny(5, 3, visible="replicated_softmax"), documents(1, 5, 12)
    W, b, c = (p.detach().numpy() for p in (model.weight, model.visible_bias, model.hidden_bias))
    counts, h = v[0].numpy(), np.array([1.0, 0.0, 1.0])
    length = counts.sum()
    inputs = length * c + counts @ W
    np.testing.assert_allclose(model.hidden_probabilities(v)[0].detach().numpy(), 1 / (1 + np.exp(-inputs)))
    by_hand = -(counts @ W @ h) - counts @ b - length * c @ h
    assert model.energy(v, torch.tensor(h)[None]).item() == pytest.approx(by_hand)
    assert model.free_energy(v).item() == pytest.approx(-(counts @ b) - np.logaddexp(0, inputs).sum())
    share = np.exp(b + W @ h) / np.exp(b + W @ h).sum()
    np.testing.assert_allclose(model.visible_mean(torch.tensor(h)[None], v)[0].detach().numpy(), length * share)


def test_documents_of_all_lengths_have_the_gradient_of_their_likelihood() -> None:
    model = tiny(5, 3, scale=0.4, visible="replicated_softmax", exact=True)
    v = documents(12, 5, 9)
    words = torch.eye(5, dtype=torch.float64)
    three_words = torch.stack([one + two + three for one in words for two in words for three in words])
    by_sum = torch.logsumexp(-model.free_energy(three_words).detach(), 0)
    torch.testing.assert_close(model.log_partition(three_words[:1])[0], by_sum)

    @torch.no_grad()
    def loss() -> Tensor:
        return (model.free_energy(v) + model.log_partition(v)).mean()

    model.training_losses(as_batch(v), 0, seeded()).total.backward()
    for parameter in learned(model):
        assert parameter.grad is not None
        assert finite_difference(parameter, loss) == pytest.approx(parameter.grad.flatten()[0].item(), abs=1e-6)


@torch.no_grad()
def test_chains_keep_the_lengths_of_the_documents() -> None:
    model, v = tiny(5, 3, scale=0.4, visible="replicated_softmax"), documents(300, 5, 40)
    end = model.gibbs(v, 2, seeded())
    assert torch.equal(end.sum(1), v.sum(1))
    assert not torch.equal(end, v)


def test_two_topics_are_learned_from_counts() -> None:
    """Documents of 20 words, all from one half of the dictionary: a word costs log 4 nats, not log 8."""
    topic = torch.randint(0, 2, (400, 1), generator=seeded())
    share = torch.cat([(1 - topic).expand(-1, 4), topic.expand(-1, 4)], 1) / 4
    x = sample_counts(20 * share, seeded(1))
    model = RBM(8, 4, visible="replicated_softmax")
    model.initialise(as_batch(x), seeded(2))
    train(model, x, lr=0.01, steps=400)
    with torch.no_grad():
        nats = (model.free_energy(x) + model.log_partition(x)).mean().item() / 20
    assert np.log(4) < nats < np.log(4) + 0.1


@pytest.mark.parametrize("length", [1, 7, 50])
def test_counts_are_multinomial(length: int) -> None:
    p = torch.tensor([0.1, 0.0, 0.6, 0.3])
    drawn = sample_counts((length * p).expand(8000, 4), seeded())
    assert torch.equal(drawn.sum(1), torch.full((8000,), float(length)))
    assert drawn[:, 1].sum() == 0
    # words 0 and 2 together are binomial too, which they would not be if they were drawn apart
    for counts, share in ((drawn[:, 0], 0.1), (drawn[:, 2], 0.6), (drawn[:, 0] + drawn[:, 2], 0.7)):
        expected = 8000 * stats.binom.pmf(np.arange(length + 1), length, share)
        observed = np.bincount(counts.long().numpy(), minlength=length + 1)
        likely = expected >= 5
        rest = observed[~likely].sum(), 8000 - expected[likely].sum()
        cells = [*zip(observed[likely], expected[likely], strict=True), *([rest] if rest[1] > 1e-6 else [])]
        assert stats.chisquare(*np.array(cells).T).pvalue > 0.001


def test_the_words_of_a_document_do_not_change_with_its_neighbours() -> None:
    p = torch.tensor([0.1, 0.4, 0.2, 0.3])
    five, sixth = (30 * p).expand(5, 4), (400 * p)[None]
    alone = sample_counts(five, RowGenerator(0, "words", span=lambda rows: (0, rows + 1)))
    assert torch.equal(sample_counts(torch.cat([five, sixth]), RowGenerator(0, "words"))[:5], alone)
