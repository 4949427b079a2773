"""Oracles: the layers' formulas written out, the adjoint of the linear way up, a json round trip."""

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.pretrain import ConvLayer, DenseLayer, Layer
from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.dbn import DBN, GreedyLayer, build_layer
from pipeline.models.losses import Batch
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli

TRAINING: dict[str, Any] = {
    "visible": "bernoulli",
    "steps": 1,
    "batch_size": 8,
    "lr": 0.1,
    "schedule": "linear_tail",
    "momentum": 0.5,
    "weight_decay": 0.0,
    "gibbs_steps": 1,
    "sparsity_target": 0.05,
    "sparsity_cost": 1.0,
}


def conv(num_filters: int, kernel_size: int, below: str = "prepare", **changes: Any) -> ConvLayer:
    options = {**TRAINING, "pool_size": 2, "persistent": False, **changes}
    return ConvLayer(kind="conv", below=below, num_filters=num_filters, kernel_size=kernel_size, **options)


def dense(num_hidden: int, below: str = "pretrain/conv2", **changes: Any) -> DenseLayer:
    options = {
        **TRAINING,
        "persistent": False,
        "num_temperatures": 1,
        "centred": False,
        "hidden": "bernoulli",
        **changes,
    }
    return DenseLayer(kind="dense", below=below, num_hidden=num_hidden, **options)


STACK: list[Layer] = [conv(5, 7), conv(6, 4, "pretrain/conv1"), dense(10)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_dbn(configs: list[Layer], shape: tuple[int, int, int]) -> DBN:
    dbn, generator = DBN(configs, shape), seeded(1)
    for layer in dbn.rbms():
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.normal_(0, 0.3, generator=generator)
        if layer.visible == "gaussian":
            spread = torch.rand(layer.mean.shape, generator=generator)
            layer.set_statistics(0.2 + 0.3 * spread, 0.5 + spread.flip(0))
    return dbn


def images(count: int, *shape: int) -> Tensor:
    return torch.rand(count, *shape, generator=seeded(2))


def as_batch(x: Tensor) -> Batch:
    return Batch(x, torch.full((len(x),), -1))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 28, 28), [(5, 11, 11), (6, 4, 4), (10,)]),
        ((3, 32, 32), [(5, 13, 13), (6, 5, 5), (10,)]),
        ((3, 64, 64), [(5, 29, 29), (6, 13, 13), (10,)]),
    ],
)
def test_the_stated_shapes_are_those_of_the_activations(
    shape: tuple[int, int, int], expected: list[tuple[int, ...]]
) -> None:
    dbn = random_dbn(STACK, shape)
    assert dbn.shapes == [shape, *expected]
    for depth in range(4):
        assert dbn.mean_field(images(2, *shape), depth).shape == (2, *dbn.shapes[depth])


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_mean_field_matches_the_formulas_layer_by_layer(visible: str) -> None:
    dbn = random_dbn([replace(config, visible=visible) for config in STACK], (3, 32, 32))
    x = images(4, 3, 32, 32)
    result = x
    for layer in dbn.rbms():
        if isinstance(layer, ConvRBM):
            scale, shift = (statistic.view(-1, 1, 1) for statistic in (layer.std, layer.mean))
            maps = F.conv2d((result - shift) / scale, layer.weight, layer.hidden_bias)
            side = maps.shape[-1] // 2 * 2
            blocks = maps[..., :side, :side].unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
            result = torch.sigmoid(torch.logsumexp(blocks, 4))
        else:
            flat = (result.flatten(1) - layer.mean) / layer.std
            result = torch.sigmoid(flat @ layer.weight + layer.hidden_bias)
    torch.testing.assert_close(dbn.mean_field(x), result, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_reconstruction_hands_the_bottom_up_detection_probabilities_down(visible: str) -> None:
    dbn, x = random_dbn([replace(conv(5, 7), visible=visible)], (3, 32, 32)), images(4, 3, 32, 32)
    layer = dbn.rbms()[0]
    assert isinstance(layer, ConvRBM)
    expected = layer.decode(layer.detection_probabilities(layer.standardise(x))).clamp(0, 1)
    torch.testing.assert_close(dbn.reconstruct(x), expected, atol=1e-6, rtol=1e-5)


def test_reconstruction_through_every_layer_is_an_image() -> None:
    dbn, x = random_dbn(STACK, (3, 32, 32)), images(4, 3, 32, 32)
    for depth in range(4):
        y = dbn.reconstruct(x, depth)
        assert y.shape == x.shape
        assert y.min() >= 0
        assert y.max() <= 1
    assert torch.equal(dbn.reconstruct(x, 0), x)


def test_reconstruction_shares_the_top_down_probability_by_the_bottom_up_softmax() -> None:
    dbn, x = random_dbn(STACK, (3, 32, 32)), images(4, 3, 32, 32)
    first, second, top = dbn.rbms()
    assert isinstance(first, ConvRBM)
    assert isinstance(second, ConvRBM)
    pooled = dbn.mean_field(x, 1)
    down = top.decode(top.encode(second.encode(pooled))).view(4, 6, 5, 5)
    for layer, below in ((second, pooled), (first, x)):
        bottom_up = layer.detection_probabilities(below)
        down = layer.decode(bottom_up / bottom_up.sum(1, keepdim=True) * down[:, None])
    torch.testing.assert_close(dbn.reconstruct(x), down, atol=1e-5, rtol=1e-5)


def linear_way_up(layers: list[ConvRBM | RBM], x: Tensor) -> Tensor:
    """Filters without biases, means instead of pooling: what `filter_images` is the adjoint of."""
    for layer in layers:
        if isinstance(layer, ConvRBM):
            x = F.avg_pool2d(F.conv2d(x * layer.std.view(-1, 1, 1), layer.weight), layer.pool_size)
        else:
            x = (x.flatten(1) * layer.std) @ layer.weight
    return x


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
def test_filter_images_are_the_adjoint_of_the_linear_way_up(visible: str) -> None:
    configs = [replace(config, visible=visible) for config in [*STACK, dense(7, "pretrain/dense")]]
    dbn = random_dbn(configs, (3, 32, 32))
    for depth in (3, 4):
        pictures = dbn.filter_images(depth)
        x = images(2, *pictures.shape[1:])
        expected = linear_way_up(dbn.rbms(depth), x)
        torch.testing.assert_close(torch.einsum("bcij,ncij->bn", x, pictures), expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(dbn.filter_images(1), dbn.rbms()[0].weight * dbn.rbms()[0].std.view(-1, 1, 1))
    second = dbn.filter_images(2)
    assert second.shape == (6, 3, 14, 14)
    x = images(2, 3, 14, 14)
    top = dbn.rbms()[1]
    expected = F.conv2d(linear_way_up(dbn.rbms(1), x) * top.std.view(-1, 1, 1), top.weight).flatten(1)
    torch.testing.assert_close(torch.einsum("bcij,ncij->bn", x, second), expected, atol=1e-4, rtol=1e-4)


def test_a_dbn_survives_json_and_its_state() -> None:
    dbn, x = random_dbn([*STACK[:2], dense(10, persistent=True)], (1, 28, 28)), images(3, 1, 28, 28)
    twin = DBN.from_config(json.loads(json.dumps(dbn.to_config())))
    assert twin.configs == dbn.configs
    twin.load_state_dict(dbn.state_dict())
    assert torch.equal(twin.mean_field(x), dbn.mean_field(x))


def test_extending_copies_the_layers_below() -> None:
    lower = random_dbn(STACK[:2], (1, 28, 28))
    higher = lower.extended(STACK[2])
    assert torch.equal(higher.mean_field(images(3, 1, 28, 28), 2), lower.mean_field(images(3, 1, 28, 28)))
    with torch.no_grad():
        lower.rbms()[0].weight.zero_()
    assert higher.rbms()[0].weight.abs().sum() > 0


def test_greedy_training_reaches_the_top_layer_alone() -> None:
    dbn = random_dbn(STACK[:2], (1, 28, 28)).extended(STACK[2])
    below = {name: tensor.clone() for name, tensor in dbn.layers[:2].state_dict().items()}
    model, batch = GreedyLayer(dbn), as_batch(images(16, 1, 28, 28))
    model.initialise(batch, seeded())
    losses = model.training_losses(batch, 0, seeded(1))
    losses.total.backward()
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == {f"dbn.layers.2.{name}" for name in ("weight", "visible_bias", "hidden_bias")}
    assert all(torch.equal(tensor, below[name]) for name, tensor in dbn.layers[:2].state_dict().items())
    on_activations = model.top.training_losses(as_batch(dbn.mean_field(batch.images, 2)), 0, seeded(1))
    torch.testing.assert_close(on_activations.total, losses.total)
    validation = model.validation_losses(batch, 0, seeded(1))
    torch.testing.assert_close(
        validation.parts["free_energy_data"], model.top.free_energy(dbn.mean_field(batch.images, 2).flatten(1)).mean()
    )


def test_a_kernel_larger_than_the_map_names_the_layer_and_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"layer 2, fed by pretrain/conv1\)\.kernel_size must be <= 10.*11x11.*got 11"):
        DBN([conv(5, 7), conv(6, 11, "pretrain/conv1")], (1, 28, 28))
    assert DBN([conv(5, 7), conv(6, 10, "pretrain/conv1")], (1, 28, 28)).shapes[-1] == (6, 1, 1)


def test_a_conv_layer_above_a_dense_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer 2, fed by pretrain/dense\)\.kind must be dense, got conv"):
        DBN([dense(10, "prepare"), conv(6, 3, "pretrain/dense")], (1, 28, 28))


def test_a_sparsity_target_that_pooling_cannot_reach_is_refused() -> None:
    with pytest.raises(ValueError, match=r"conv1\.sparsity_target must be < 0\.25.*pool_size 2, got 0\.3"):
        build_layer(conv(5, 7, sparsity_target=0.3), (1, 28, 28), "pretrain.layers.conv1")
    build_layer(conv(5, 7, sparsity_target=0.3, sparsity_cost=0.0), (1, 28, 28))


def test_persistent_layers_have_a_chain_per_image_of_the_batch() -> None:
    layer = build_layer(dense(10, persistent=True), (6, 4, 4))
    assert isinstance(layer, RBM)
    assert layer.chains.shape == (8, 96)
    layer = build_layer(conv(4, 3, persistent=True), (6, 4, 4))
    assert isinstance(layer, ConvRBM)
    assert layer.chains.shape == (8, 6, 4, 4)


def test_conv_layers_saved_before_they_could_be_persistent_are_read() -> None:
    config = DBN(STACK, (1, 28, 28)).to_config()
    for layer in config["layers"][:2]:
        del layer["persistent"]
    assert DBN.from_config(config).configs == STACK


def test_tempered_layers_have_as_many_chains_at_every_temperature() -> None:
    layer = build_layer(dense(10, persistent=True, num_temperatures=3), (6, 4, 4))
    assert isinstance(layer, RBM)
    assert layer.chains.shape == (8, 3, 96)


def test_centred_layers_keep_their_offsets_with_their_weights() -> None:
    names = DBN([dense(10, "prepare", centred=True)], (1, 8, 8)).state_dict().keys()
    assert {"layers.0.visible_offset", "layers.0.hidden_offset"} <= names


def test_rectified_units_are_for_the_top_layer() -> None:
    top = build_layer(dense(10, hidden="relu"), (6, 4, 4))
    assert isinstance(top, RBM)
    assert top.encode(images(5, 6, 4, 4) * 100).shape == (5, 10)
    with pytest.raises(
        ValueError, match=r"layer 1, fed by prepare\)\.hidden must be bernoulli below another layer.*relu"
    ):
        DBN([dense(10, "prepare", hidden="relu"), dense(5, "pretrain/dense")], (1, 8, 8))


def test_variances_are_learned_where_the_section_says_so() -> None:
    dbn = DBN([dense(10, "prepare", visible="gaussian_variance")], (1, 8, 8))
    assert dbn.state_dict()["layers.0.log_variance"].shape == (64,)


def test_sampled_training_feeds_the_top_layer_draws_from_the_way_up() -> None:
    stack: list[Layer] = [dense(12, "prepare"), dense(9, "pretrain/1"), dense(7, "pretrain/2", persistent=True)]
    dbn, batch = random_dbn(stack, (1, 4, 4)), as_batch(images(8, 1, 4, 4))
    model, generator = GreedyLayer(dbn, sampled=True), seeded(5)
    model.initialise(batch, seeded())
    found = model.training_losses(batch, 0, seeded(5))
    x = sample_bernoulli(batch.images, generator).flatten(1)
    for layer in dbn.rbms()[:-1]:
        assert bool(((x == 0) | (x == 1)).all())
        x = sample_bernoulli(layer.encode(x), generator)
    model.initialise(batch, seeded())  # the persistent chains back at their start
    expected = model.top.training_losses(as_batch(x), 0, generator)
    torch.testing.assert_close(found.total, expected.total)
    torch.testing.assert_close(found.parts["free_energy_model"], expected.parts["free_energy_model"])


def test_sampled_training_leaves_what_gaussian_units_see_as_it_is() -> None:
    dbn, batch = random_dbn([dense(12, "prepare", visible="gaussian")], (1, 4, 4)), as_batch(images(8, 1, 4, 4))
    found, expected = (
        GreedyLayer(dbn, sampled=sampled).training_losses(batch, 0, seeded(5)).total for sampled in (True, False)
    )
    assert torch.equal(found, expected)
