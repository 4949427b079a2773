"""The conditional RBM of ratings: enumeration of values and hidden states, finite differences, the plain RBM."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.models.rating_rbm import RatingRBM
from pipeline.training.rating_stream import RatingStream, RatingTable
from tests.rbm_oracles import as_batch, finite_difference, seeded, states

GROUPS, VALUES, HIDDEN = 4, 3, 3


def machine(*, rated_scale: float = 1.0, objective: str = "pseudo_likelihood") -> RatingRBM:
    model = RatingRBM(GROUPS, VALUES, HIDDEN, objective=objective).double()
    generator = seeded(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 1, generator=generator)
        model.rated_weight.mul_(rated_scale)
    return model


def rating_rows() -> tuple[RatingTable, Tensor]:
    """Five examples, one of them without a rating, as a table and as values by group, -1 where there is none."""
    values = torch.tensor([[0, 2, -1, 1], [1, -1, -1, 0], [-1, -1, -1, -1], [2, 0, 1, -1], [-1, -1, 2, -1]])
    rows, groups = (values >= 0).nonzero(as_tuple=True)
    order = torch.tensor([3, 0, 7, 5, 1, 2, 8, 4, 6])
    rows, groups = rows[order], groups[order]
    table = RatingTable(rows, groups, values[rows, groups], shape=(5, GROUPS), num_values=VALUES)
    return table, values


def by_enumeration(model: RatingRBM, known: dict[int, int], asked: int) -> Tensor:
    """p(value of `asked` | known), summing exp(-E) over hidden states: E = -b v - (c + sum_r D_r) h - v W h."""
    W_GKH = model.weight.detach().view(GROUPS, VALUES, HIDDEN) - model.rated_weight.detach()[:, None]
    b_GK, c = model.visible_bias.detach().view(GROUPS, VALUES), model.hidden_bias.detach()
    given = c + sum(model.rated_weight.detach()[group] for group in known)
    h_NH = states(HIDDEN)
    total = []
    for value in range(VALUES):
        both = {**known, asked: value}
        field = given + sum(W_GKH[group, rating] for group, rating in both.items())
        bias = sum(b_GK[group, rating] for group, rating in both.items())
        total.append(torch.logsumexp(h_NH @ field, 0) + bias)
    return torch.softmax(torch.stack(total), 0)


def test_a_rating_given_the_others_is_that_of_the_enumerated_machine() -> None:
    model, (table, values) = machine(), rating_rows()
    logits, truth = model.left_out_logits(table.visible(torch.arange(5)).double())
    place = 0
    for row in values.tolist():
        rated = {group: value for group, value in enumerate(row) if value >= 0}
        for group, value in rated.items():
            known = {other: rating for other, rating in rated.items() if other != group}
            expected = by_enumeration(model, known, group)
            torch.testing.assert_close(torch.softmax(logits[place], 0).detach(), expected)
            assert truth[place] == value
            place += 1
    assert place == len(logits) == 9


def test_a_rating_that_is_not_there_is_predicted_from_all_that_are() -> None:
    model, (table, _) = machine(), rating_rows()
    v = table.visible(torch.tensor([3, 2])).double()
    logits = model.logits(v, torch.tensor([0, 1]), torch.tensor([3, 1]))
    found = torch.softmax(logits, 1).detach()
    torch.testing.assert_close(found[0], by_enumeration(model, {0: 2, 1: 0, 2: 1}, 3))
    torch.testing.assert_close(found[1], by_enumeration(model, {}, 1))


def test_without_a_rated_weight_it_is_the_plain_rbm_of_ratings() -> None:
    """p(value | others) from free energies of the plain machine with each value in turn."""
    model, (table, values) = machine(rated_scale=0.0), rating_rows()
    v = table.visible(torch.tensor([0])).double()
    logits, _ = model.left_out_logits(v)
    for place, group in enumerate((values[0] >= 0).nonzero()[:, 0].tolist()):
        tried = v.repeat(VALUES, 1).view(VALUES, GROUPS, VALUES)
        tried[:, group] = torch.eye(VALUES)
        expected = torch.softmax(-model.free_energy(tried.flatten(1)), 0)
        torch.testing.assert_close(torch.softmax(logits[place], 0), expected)


def test_the_pseudo_likelihood_has_the_gradient_of_finite_differences() -> None:
    model, (table, _) = machine(), rating_rows()
    batch = as_batch(table.visible(torch.arange(5)).double())
    model.training_losses(batch, 0, seeded()).total.backward()
    learned = (model.weight, model.visible_bias, model.hidden_bias, model.rated_weight)
    for parameter in learned:
        assert parameter.grad is not None
        slope = finite_difference(parameter, lambda: model.validation_losses(batch, 0, seeded()).total)
        assert slope == pytest.approx(parameter.grad.flatten()[0].item(), abs=1e-6)


def test_contrastive_divergence_leaves_the_rated_weight_alone() -> None:
    model, (table, _) = machine(objective="cd"), rating_rows()
    model.training_losses(as_batch(table.visible(torch.arange(5)).double()), 0, seeded()).total.backward()
    assert model.rated_weight.grad is None
    assert model.weight.grad is not None
    assert (model.weight.grad != 0).any()
    with pytest.raises(ValueError, match="objective must be one of pseudo_likelihood, cd, got 'mse'"):
        RatingRBM(2, 2, 2, objective="mse")


def test_visible_biases_start_at_shares_shrunk_to_those_of_all() -> None:
    counts = torch.tensor([[90.0, 10.0], [0.0, 0.0]])
    model = RatingRBM(2, 2, 3)
    model.start(counts, seeded())
    all_of_them = 91 / 102
    expected = np.log([(90 + 10 * all_of_them) / 110, (10 + 10 * (1 - all_of_them)) / 110])
    np.testing.assert_allclose(model.visible_bias[:2].detach().numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(torch.exp(model.visible_bias[2]).item(), all_of_them, rtol=1e-5)


def test_a_table_of_ratings_is_one_hot_where_rated() -> None:
    table, values = rating_rows()
    chosen = torch.tensor([4, 0, 2, 0])
    expected = torch.nn.functional.one_hot(values.clamp(min=0), VALUES) * (values >= 0)[..., None]
    assert torch.equal(table.visible(chosen), expected[chosen].flatten(1).float())
    assert torch.equal(table.counts(), expected.sum(0).float())
    assert table.rated_rows().tolist() == [0, 1, 3, 4]


def test_a_stream_passes_over_all_that_are_rated_and_gives_workers_their_parts() -> None:
    table, _ = rating_rows()
    stream = RatingStream(table, batch_size=3, seed=0)
    four = torch.cat([stream.batch(step).images for step in range(4)])  # twelve rows: three passes over four
    every = table.visible(table.rated_rows()).sum(0)
    for number in range(3):
        assert torch.equal(four[4 * number : 4 * number + 4].sum(0), every)
    whole = stream.batch(2).images
    parts = [stream.batch(2, slice(0, 1)).images, stream.batch(2, slice(1, 3)).images]
    assert torch.equal(torch.cat(parts), whole)
    assert RatingStream(table, batch_size=99, seed=0).batch_size == 4
