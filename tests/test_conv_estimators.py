"""Oracles: enumeration of every image and every state of the blocks; chains that must not lose a bit."""

import pytest
import torch
from torch import Tensor

from pipeline.models.conv_rbm import ConvRBM
from tests.rbm_oracles import as_batch, seeded, states

SHAPE = (1, 3, 3)


def tiny(**options: object) -> ConvRBM:
    """Three filters of 2x2 over one block: 512 images, one of five states for each filter."""
    model, generator = ConvRBM(SHAPE, 3, 2, **options).double(), seeded(1)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 1, generator=generator)
    return model


def gradients(model: ConvRBM, v: Tensor, step: int, generator: torch.Generator) -> list[Tensor]:
    model.zero_grad()
    model.training_losses(as_batch(v), step, generator).total.backward()
    return [p.grad.clone() for p in (model.weight, model.hidden_bias, model.visible_bias) if p.grad is not None]


def exact_gradients(model: ConvRBM, v: Tensor) -> list[Tensor]:
    """Of minus the mean log-likelihood per detection place, with log Z over all images, by autograd."""
    log_partition = torch.logsumexp(-model.free_energy(states(9).view(-1, *SHAPE)), 0)
    loss = (model.free_energy(v).mean() + log_partition) / model.num_detection_units
    return list(torch.autograd.grad(loss, (model.weight, model.hidden_bias, model.visible_bias)))


def long_run(model: ConvRBM, v: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Mean gradient at fixed parameters after a burn-in, and its standard error from ten groups of rounds."""
    generator = seeded(3)
    drawn = [gradients(model, v, step, generator) for step in range(rounds + 20)][20:]
    groups = torch.stack([torch.cat([g.flatten() for g in one]) for one in drawn]).view(10, rounds // 10, -1).mean(1)
    return groups.mean(0), groups.std(0) / 10**0.5


def test_the_bias_of_the_gradient_shrinks_with_k_and_is_gone_with_persistent_chains() -> None:
    v = torch.rand(300, *SHAPE, generator=seeded(2), dtype=torch.float64).round()
    expected = torch.cat([g.flatten() for g in exact_gradients(tiny(), v)])
    bias = {}
    for k in (1, 5):
        found, _ = long_run(tiny(gibbs_steps=k), v, 200)
        bias[k] = float((found - expected).norm())
    found, error = long_run(tiny(num_chains=300), v, 200)
    # ten almost independent means: 5 standard errors, with a floor for entries whose spread came out small
    assert ((found - expected).abs() < 5 * error + 0.002).all()
    assert bias[5] < 0.5 * bias[1]
    assert float((found - expected).norm()) < 0.2 * bias[1]


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_chains_start_at_random_move_on_in_training_alone_and_are_saved(visible: str) -> None:
    model = ConvRBM((2, 9, 9), 4, 3, visible=visible, num_chains=400, gibbs_steps=2)
    batch = as_batch(torch.rand(64, 2, 9, 9, generator=seeded()) * torch.tensor([0.4, 1.0]).view(-1, 1, 1))
    model.initialise(batch, seeded())
    start = model.chains.clone()
    mean = torch.tensor([0.2, 0.5]) if visible == "bernoulli" else torch.zeros(2)
    torch.testing.assert_close(start.mean((0, 2, 3)), mean, atol=0.03, rtol=0)
    model.validation_losses(batch, 0, seeded(1))
    assert torch.equal(model.chains, start)
    model.training_losses(batch, 0, seeded(1))
    generator = seeded(1)
    model.draw_blocks(batch.images, generator)  # for the reconstructions
    assert torch.equal(model.chains, model.gibbs(start, 2, generator))
    assert torch.equal(model.state_dict()["chains"], model.chains)


def test_models_without_chains_are_saved_as_ever() -> None:
    names = {"weight", "visible_bias", "hidden_bias", "mean", "std"}
    assert ConvRBM((1, 9, 9), 4, 3).state_dict().keys() == names
