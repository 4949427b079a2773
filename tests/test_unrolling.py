"""Oracles of the networks that start from a DBN: its mean field, its layers' decode, masks drawn one by one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.generators import Vae
from pipeline.config.load import load_params
from pipeline.models.autoencoder import DeepAutoencoder
from pipeline.models.dbn import DBN
from pipeline.models.dense_stack import DenseStack, count_nats
from pipeline.models.losses import UNLABELLED, Batch
from pipeline.models.mlp import MLP
from pipeline.models.unrolling import dense_layers, init_encoder_from_dbn, upward_maps
from pipeline.models.vae import ConditionalVAE
from pipeline.weights import load_weights, save_weights
from tests.readme_tree import ROOT
from tests.test_dbn import conv, dense, random_dbn, seeded

SHAPE = (1, 4, 4)


def stack(*sizes: int, **changes: Any) -> DBN:
    """Random layers of these sizes over 4x4 images; the last has `changes`."""
    *lower, top = sizes
    configs = [dense(size, "prepare") for size in lower]
    return random_dbn([*configs, dense(top, "prepare", **changes)], SHAPE)


def images(count: int = 6) -> Tensor:
    return torch.rand(count, *SHAPE, generator=seeded(3))


def labelled(count: int = 6) -> Batch:
    return Batch(images(count), torch.arange(count) % 3)


def mlp(dbn: DBN, **options: Any) -> MLP:
    network = MLP([16, *(layer.output_shape[0] for layer in dbn.rbms()), 3], **options)
    network.init_from_dbn(dbn, seeded(4))
    return network


# --- unrolled without training


def test_an_unrolled_autoencoder_encodes_by_mean_field_and_decodes_by_the_layers_own_decode() -> None:
    dbn = stack(9, 7, 3, hidden="gaussian")
    network = DeepAutoencoder([16, 9, 7, 3])
    network.init_from_dbn(dbn)
    codes = network.encode(images())
    torch.testing.assert_close(codes, dbn.mean_field(images()))
    x = codes
    for layer in reversed(dbn.rbms()):
        x = layer.decode(x)
    torch.testing.assert_close(network.decode(codes), x)
    error = (dbn.reconstruct(images()) - images()).square().flatten(1).sum(1)
    torch.testing.assert_close(network.squared_error(images()), error)


def test_the_decoders_weights_are_its_own_after_the_start() -> None:
    network = DeepAutoencoder([16, 5, 3])
    network.init_from_dbn(stack(5, 3, hidden="gaussian"))
    first, last = network.encoder.linears()[0], network.decoder.linears()[-1]
    assert torch.equal(first.weight, last.weight.t())
    network.training_losses(labelled(), 0, seeded()).total.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.1 * parameter.grad)
    assert not torch.allclose(first.weight, last.weight.t())


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian", "gaussian_variance"])
def test_an_mlp_computes_mean_field_and_a_linear_head(visible: str) -> None:
    dbn = random_dbn([dense(9, "prepare", visible=visible), dense(7, "prepare")], SHAPE)
    if visible != "bernoulli":
        dense_layers(dbn)[0].set_statistics(torch.linspace(0.1, 0.9, 16), torch.linspace(0.2, 3.0, 16))
    network = mlp(dbn, dropout=0.5, input_dropout=0.2)
    head = network.stack.linears()[-1]
    expected = dbn.mean_field(images()) @ head.weight.t() + head.bias
    torch.testing.assert_close(network(images()), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.predict_log_probabilities(images()).exp(), torch.softmax(expected, 1))


def test_weights_are_scaled_so_that_a_units_mean_input_under_dropout_is_the_pretrained_one() -> None:
    """Srivastava et al. 2014, sec. 6.1: the mean over all masks, each with its probability."""
    dbn, rate = stack(5, 3), 0.25
    network = mlp(dbn, input_dropout=rate)
    rbm, x = dense_layers(dbn)[0], images(1)
    x[:, :, 1:] = 0  # 4 pixels, 16 masks
    masks = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 4)
    share = (masks * (1 - rate) + (1 - masks) * rate).prod(1)
    kept = torch.cat([masks, torch.zeros(16, 12)], 1) * x.flatten(1) / (1 - rate)
    inputs = network.stack.linears()[0](kept)
    torch.testing.assert_close((share[:, None] * inputs).sum(0), rbm.hidden_inputs(x.flatten(1))[0])


def test_a_vaes_dense_encoder_computes_mean_field_and_comes_back_from_its_config() -> None:
    vae, pictures = small_vae(hidden_sizes=[9, 7]), torch.rand(6, 1, 28, 28, generator=seeded(3))
    dbn = random_dbn([dense(9, "prepare"), dense(7, "prepare")], (1, 28, 28))
    init_encoder_from_dbn(vae, dbn)
    torch.testing.assert_close(vae.encoder(pictures), dbn.mean_field(pictures))
    back = ConditionalVAE.from_config(json.loads(json.dumps(vae.to_config())))
    back.load_state_dict(vae.state_dict())
    batch = Batch(pictures, torch.arange(6) % 2)
    losses = [each.training_losses(batch, 0, seeded()).total for each in (vae, back)]
    assert torch.equal(losses[0], losses[1])
    losses[0].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in vae.encoder.parameters())


def small_vae(hidden_sizes: Sequence[int]) -> ConditionalVAE:
    section = load_params(ROOT / "params.yaml").section(Vae)
    return ConditionalVAE((1, 28, 28), 2, config=section, hidden_sizes=hidden_sizes, generator=seeded())


# --- training


@pytest.mark.parametrize("linear_top", [True, False])
def test_a_stack_is_torchs_own_layers(linear_top: bool) -> None:
    network = DenseStack([16, 5, 3], linear_top=linear_top)
    network.init_random(seeded())
    first, second = network.linears()
    last: list[nn.Module] = [] if linear_top else [nn.Sigmoid()]
    theirs = nn.Sequential(nn.Flatten(), first, nn.Sigmoid(), second, *last)
    torch.testing.assert_close(network(images()), theirs(images()))


def test_random_weights_have_glorots_variance_for_logistic_and_linear_layers() -> None:
    network = DenseStack([300, 200, 100], linear_top=True)
    network.init_random(seeded())
    variances = [float(layer.weight.detach().var()) for layer in network.linears()]
    np.testing.assert_allclose(variances, [16 * 2 / 500, 2 / 300], rtol=0.03)


def test_dropout_zeroes_its_share_and_keeps_the_mean_with_draws_of_the_generator_alone() -> None:
    network = MLP([16, 40, 3], input_dropout=0.2, dropout=0.5)
    network.init_random(seeded())
    x = torch.ones(4000, 16)
    seen: list[Tensor] = []
    for layer in network.stack.linears():
        layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(x, seeded())
    network(x)
    (pixels, hidden, _, plain) = seen
    assert (pixels == 0).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (hidden == 0).float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert set(pixels.unique().tolist()) == {0, 1.25}
    assert torch.equal(network(x, seeded(5)), network(x, seeded(5)))
    assert not torch.equal(network(x, seeded(5)), network(x, seeded(6)))
    assert (plain != 0).all()


def test_norms_are_limited_to_max_norm_and_shorter_ones_left_alone() -> None:
    network = MLP([16, 5, 3], max_norm=2.0)
    network.init_random(seeded())
    first = network.stack.linears()[0]
    with torch.no_grad():
        first.weight[0].fill_(3.0)
        first.weight[1].fill_(0.1)
    before = first.weight.detach().clone()
    network.training_losses(labelled(), 0, seeded())
    torch.testing.assert_close(first.weight[0], before[0] / 6)  # 3 * sqrt(16) / 2
    assert torch.equal(first.weight[1], before[1])
    assert all(float(layer.weight.detach().norm(dim=1).max()) <= 2 + 1e-5 for layer in network.stack.linears())


def test_losses_are_cross_entropies_by_their_formulas() -> None:
    network = DeepAutoencoder([16, 5, 3])
    network.init_random(seeded())
    x = images().flatten(1).double()
    network.double()
    mean = network.decode(network.encode(x)).double()
    found = network.training_losses(Batch(x, torch.zeros(6)), 0, seeded())
    expected = -(x * mean.log() + (1 - x) * (1 - mean).log()).sum(1).mean()
    torch.testing.assert_close(found.total.double(), expected, rtol=1e-5, atol=1e-5)
    assert float(found.parts["squared_error"]) == pytest.approx(float(network.squared_error(x).mean()), rel=1e-5)
    network.loss = "squared_error"
    other = network.training_losses(Batch(x, torch.zeros(6)), 0, seeded()).total
    torch.testing.assert_close(other.double(), (x - mean).square().sum(1).mean(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(count_nats(torch.zeros(1, 16), x[:1].float()), torch.tensor([16 * np.log(2)]).float())


def test_rows_without_a_label_do_not_count_for_an_mlp() -> None:
    network = mlp(stack(5))
    batch = labelled()
    hidden = Batch(batch.images, batch.labels.where(torch.arange(6) < 4, UNLABELLED))
    first = Batch(batch.images[:4], batch.labels[:4])
    losses = [network.validation_losses(each, 0, seeded()) for each in (hidden, first)]
    torch.testing.assert_close(losses[0].total, losses[1].total)


# --- files and errors


@pytest.mark.parametrize(
    "network", [DeepAutoencoder([16, 5, 3], loss="squared_error"), MLP([16, 5, 3], dropout=0.5, max_norm=2.0)]
)
def test_saved_networks_come_back(network: DeepAutoencoder | MLP, tmp_path: Path) -> None:
    network.init_random(seeded())
    path = tmp_path / "network.safetensors"
    save_weights(path, network.state_dict(), kind="network", config=network.to_config())
    state, config = load_weights(path, kind="network")
    back = type(network).from_config(json.loads(json.dumps(config)))
    back.load_state_dict(state)
    batch = labelled()
    losses = [each.training_losses(batch, 0, seeded()).total for each in (network, back)]
    assert torch.equal(losses[0], losses[1])


def test_networks_that_do_not_fit_a_dbn_are_refused_with_a_remedy() -> None:
    with pytest.raises(ValueError, match=r"code layer is linear: the top .* must be gaussian, got bern"):
        DeepAutoencoder([16, 5, 3]).init_from_dbn(stack(5, 3))
    with pytest.raises(
        ValueError, match="loss of an autoencoder must be one of cross_entropy, squared_error, got 'l1'"
    ):
        DeepAutoencoder([16, 5, 3], loss="l1")
    with pytest.raises(ValueError, match="visible units of layer 1 must be bernoulli, got gaussian"):
        DeepAutoencoder([16, 3]).init_from_dbn(stack(3, visible="gaussian", hidden="gaussian"))
    with pytest.raises(ValueError, match=r"\[\(5, 16\), .*, must be those .* lowest layers, \[\(4, 16\), "):
        DeepAutoencoder([16, 4, 3]).init_from_dbn(stack(5, 3, hidden="gaussian"))
    with pytest.raises(ValueError, match="convolutional encoder can't start from dense layers"):
        init_encoder_from_dbn(small_vae([]), stack(5))
    with pytest.raises(ValueError, match="network's 2 hidden layers, got 1"):
        MLP([16, 5, 4, 3]).init_from_dbn(stack(5), seeded())
    with pytest.raises(ValueError, match="hidden units of layer 1 must be bernoulli, got relu"):
        MLP([16, 5, 3]).init_from_dbn(stack(5, hidden="relu"), seeded())
    with pytest.raises(ValueError, match="DBN of dense layers alone, got a conv one as layer 1"):
        upward_maps(DBN([conv(2, 3)], SHAPE))


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"max_norm": -1.0}, "max_norm must be >= 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(options: dict[str, float], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        MLP([16, 5, 3], **options)


def test_a_stack_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="sizes must name the inputs and at least one layer"):
        DenseStack([16])
