"""Up-down fine-tuning against autograd and enumeration: its gradients, what they are the gradient of, what it gains."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from pipeline.models.dbn import DBN
from pipeline.models.dbn_sampling import Chains, sample_dbn
from pipeline.models.updown import Directed, UntiedDBN
from pipeline.training.rows import RowFit, fit_stack, fit_updown
from tests.rbm_oracles import as_batch, seeded, states
from tests.test_dbn import conv, dense

SIZES = [5, 4, 3, 2]


def make_model(sizes: list[int], scale: float = 0.8, **options: int) -> UntiedDBN:
    """Weights at random, other ones in each direction."""
    model, generator = UntiedDBN(sizes, **options).double(), seeded(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, scale, generator=generator)
    return model


def log_conditional(logits: Tensor, states: Tensor) -> Tensor:
    """log of the product of Bernoulli probabilities: (..., U) -> (...)."""
    p = torch.sigmoid(logits)
    return (states * p.log() + (1 - states) * (1 - p).log()).sum(-1)


def enumerate_bound(model: UntiedDBN, v: Tensor) -> Tensor:
    """The bound of each row in nats, (B,), by all states of the one layer below the top; can be differentiated."""
    (layer,) = model.layers()
    h = states(model.top.num_visible).to(v)
    log_q = log_conditional(layer.up(v)[:, None], h)
    log_p = log_conditional(layer.down(h)[None], v[:, None]) - model.top.free_energy(h)
    return (log_q.exp() * (log_p - log_q)).sum(1) - model.top.log_partition()


def test_closed_form_gradients_are_those_of_autograd() -> None:
    model = make_model(SIZES, gibbs_steps=2)
    v, top = states(5)[::3], model.top
    model.training_losses(as_batch(v), 0, seeded(2)).total.backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    generator = seeded(2)  # draws the same states again, in the same order
    with torch.no_grad():
        wake = model._wake(v, generator)
        end = top.gibbs(wake[-1], 2, generator)
        sleep = model._dream(end, generator)
    loss = top.free_energy(wake[-1]).mean() - top.free_energy(end).mean()
    for layer, (low, high), (dreamt, above) in zip(model.layers(), pairwise(wake), pairwise(sleep), strict=True):
        loss = loss - log_conditional(layer.down(high), low).mean() - log_conditional(layer.up(dreamt), above).mean()
    model.zero_grad()
    loss.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=name)
    assert len(found) == 2 * 4 + 3


def test_the_wake_gradient_is_in_expectation_that_of_the_enumerated_bound() -> None:
    """Of the generative weights; the recognition weights follow another objective, and the top's is CD."""
    model = make_model([5, 4, 3])
    (layer,) = model.layers()
    v = states(5)[7]
    exact = torch.autograd.grad(-enumerate_bound(model, v[None]).sum(), (layer.generative, layer.generative_bias))
    count = 40_000
    model.training_losses(as_batch(v.expand(count, -1)), 0, seeded(3)).total.backward()
    for found, expected in zip((layer.generative.grad, layer.generative_bias.grad), exact, strict=True):
        assert found is not None
        assert float((found - expected).abs().max()) < 4.5 * 0.5 / count**0.5  # terms are in [-1, 1]
        assert float(expected.abs().max()) > 0.1


def test_the_sleep_gradient_vanishes_in_expectation_where_recognition_is_the_true_posterior() -> None:
    """One hidden unit makes Q exact: its logit is linear in v. Below a top that is in its own equilibrium."""
    model = make_model([4, 1, 1])
    (layer,) = model.layers()
    with torch.no_grad():
        rate = torch.softmax(-model.top.free_energy(states(1)), 0)
        shift = torch.nn.functional.softplus(layer.generative_bias) - torch.nn.functional.softplus(
            layer.generative_bias + layer.generative[:, 0]
        )
        layer.recognition.copy_(layer.generative)
        layer.recognition_bias.fill_(float(torch.log(rate[1] / rate[0]) + shift.sum()))
        model.top.gibbs_steps = 50
    model.training_losses(as_batch(states(4)[5].expand(40_000, -1)), 0, seeded(4)).total.backward()
    for parameter in (layer.recognition, layer.recognition_bias):
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) < 4.5 * 0.5 / 200
    with torch.no_grad():
        layer.recognition_bias.add_(1)
    model.zero_grad()
    model.training_losses(as_batch(states(4)[5].expand(40_000, -1)), 0, seeded(4)).total.backward()
    assert layer.recognition_bias.grad is not None
    assert float(layer.recognition_bias.grad) > 0.05


def bars(count: int, seed: int) -> Tensor:
    """4x4 images of whole rows, or of whole columns, each line on with probability 0.3: (count, 16)."""
    generator = seeded(seed)
    lines = (torch.rand(count, 4, generator=generator) < 0.3).float()[:, :, None].expand(-1, 4, 4)
    turned = torch.rand(count, 1, 1, generator=generator) < 0.5
    return torch.where(turned, lines, lines.mT).reshape(count, 16)


def fine_tune(seed: int) -> tuple[float, float]:
    """The enumerated bound of held-out bars, greedy and after up-down."""
    layers = [dense(count, batch_size=20, momentum=0.5, sparsity_cost=0.0, lr=0.1) for count in (8, 8)]
    how = RowFit(epochs=20, seed=seed, accelerator="cpu", precision="32", sampled=True)
    greedy, _ = fit_stack(bars(500, seed), layers, how)
    model = UntiedDBN.from_dbn(greedy, gibbs_steps=3)
    held_out = bars(500, 100 + seed)
    before = enumerate_bound(model, held_out).mean().item()
    history = fit_updown(bars(500, seed), model, layers[0], how)
    assert history[-1]["train/wake"] < history[0]["train/wake"]
    return before, enumerate_bound(model, held_out).mean().item()


def test_the_exact_bound_of_held_out_rows_improves_over_the_greedy_start_for_every_seed() -> None:
    gains = [after - before for before, after in map(fine_tune, range(4))]
    assert min(gains) > 0
    assert sum(gains) / 4 > 0.2


@torch.no_grad()
def test_it_starts_as_the_greedy_stack() -> None:
    dbn, generator = DBN([dense(count) for count in (4, 3, 2)], (1, 1, 5)), seeded(1)
    for parameter in dbn.parameters():
        parameter.normal_(0, 1, generator=generator)
    model, v = UntiedDBN.from_dbn(dbn), states(5).float()
    assert torch.equal(model.encode(v), dbn.mean_field(v))
    chains = Chains(num_chains=50, burn_in=5, num_frames=2)
    assert torch.equal(model.sample(chains, seeded(2)), sample_dbn(dbn, chains, seeded(2)).flatten(2))
    assert all(isinstance(layer, Directed) for layer in model.layers())
    model.top.weight.zero_()
    assert bool(dbn.rbms()[-1].weight.any())


def test_other_layers_than_dense_ones_of_bernoulli_units_are_refused() -> None:
    with pytest.raises(ValueError, match="needs dense layers of bernoulli units, got conv bernoulli: build such a DBN"):
        UntiedDBN.from_dbn(DBN([conv(4, 5)], (1, 28, 28)))
    with pytest.raises(ValueError, match="got dense gaussian"):
        UntiedDBN.from_dbn(DBN([dense(4, visible="gaussian")], (1, 1, 5)))
