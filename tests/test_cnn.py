"""Oracles: the DBN's mean field, torch's own layers and cross-entropy, the statistics that initialisation promises."""

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.config.pretrain import Layer
from pipeline.models.cnn import ConvNet
from pipeline.models.dbn import DBN
from pipeline.models.losses import Batch
from tests.test_dbn import conv, dense, images, random_dbn, seeded

SMALL: list[Layer] = [conv(6, 5), conv(8, 3, "pretrain/conv1"), dense(12)]


def network(activation: str = "relu", *, shape: tuple[int, int, int] = (1, 28, 28), **options: Any) -> ConvNet:
    net = ConvNet(SMALL, shape, 4, activation=activation, **options)
    net.init_random(seeded())
    return net


def stripes(count: int, seed: int = 0) -> Batch:
    """Four classes: horizontal, vertical and two diagonal gratings of random phase, with noise."""
    generator = seeded(seed)
    labels = torch.arange(count) % 4
    phase = 6.28 * torch.rand(count, 1, 1, generator=generator)
    row, column = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    waves = torch.stack([row, column, (row + column) / 1.4, (row - column) / 1.4])[labels]
    noise = 0.1 * torch.rand(count, 28, 28, generator=generator)
    return Batch((0.45 + 0.45 * torch.sin(waves + phase) + noise)[:, None].clamp(0, 1), labels)


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
def test_pretrained_features_are_the_mean_field_of_the_dbn(visible: str, shape: tuple[int, int, int]) -> None:
    layers: list[Layer] = [
        conv(32, 7, visible=visible),
        conv(48, 4, "pretrain/conv1", visible=visible),
        dense(64, visible=visible),
    ]
    dbn, x = random_dbn(layers, shape), images(16, *shape)
    with torch.no_grad():
        for layer in dbn.rbms():
            layer.weight.mul_(0.3)
    for depth in (1, 2, 3):
        lower = DBN(layers[:depth], shape)
        lower.load_state_dict({k: v for k, v in dbn.state_dict().items() if int(k.split(".")[1]) < depth})
        net = ConvNet(layers[:depth], shape, 10, activation="probabilistic", dropout=0.5)
        net.init_from_dbn(lower, x, seeded())
        torch.testing.assert_close(net.features(x), lower.mean_field(x).flatten(1), atol=1e-6, rtol=0)
        assert net.features(x).std() > 0.01


def test_the_head_sees_standardised_features() -> None:
    dbn, x = random_dbn(SMALL, (1, 28, 28)), images(300, 1, 28, 28)
    net = ConvNet(SMALL, (1, 28, 28), 4, activation="probabilistic")
    net.init_from_dbn(dbn, x, seeded())
    features = dbn.mean_field(x)
    torch.testing.assert_close(net.feature_mean, features.mean(0))
    floor = 0.1 * features.var(0).mean().sqrt()
    torch.testing.assert_close(net.feature_std, features.std(0).clamp(min=floor.item()))
    expected = (features - features.mean(0)) / net.feature_std @ net.head_weight.t() + net.head_bias
    torch.testing.assert_close(net(x), expected, atol=1e-5, rtol=1e-4)


def test_a_dbn_of_another_geometry_is_refused() -> None:
    net = ConvNet(SMALL, (1, 28, 28), 4, activation="probabilistic")
    with pytest.raises(ValueError, match="don't fit the network's"):
        net.init_from_dbn(random_dbn([conv(6, 5), conv(9, 3), dense(12)], (1, 28, 28)), images(4, 1, 28, 28), seeded())
    with pytest.raises(ValueError, match="activation must be one of relu, probabilistic, got 'tanh'"):
        ConvNet(SMALL, (1, 28, 28), 4, activation="tanh")


def test_relu_network_matches_convolution_relu_and_pooling_in_the_usual_order() -> None:
    net, x = network(), images(5, 1, 28, 28)
    for weight, bias in list(zip(net.weights, net.biases, strict=True))[:2]:
        with torch.no_grad():
            bias.normal_(0, 0.1, generator=seeded(4))
        x = F.max_pool2d(F.relu(F.conv2d(x, weight, bias)), 2)
    x = F.relu(F.linear(x.flatten(1), net.weights[2], net.biases[2]))
    torch.testing.assert_close(net(images(5, 1, 28, 28)), F.linear(x, net.head_weight, net.head_bias))


def test_dropout_is_drawn_from_the_generator_and_keeps_the_mean() -> None:
    net, x = ConvNet([conv(6, 5)], (1, 28, 28), 4, dropout=0.4), images(2, 1, 28, 28)
    net.init_random(seeded())
    assert torch.equal(net.train()(x), net.eval()(x))
    assert torch.equal(net(x, seeded(1)), net(x, seeded(1)))
    assert not torch.equal(net(x, seeded(1)), net(x, seeded(2)))
    generator = seeded(3)
    with torch.no_grad():
        drawn = torch.stack([net(x, generator) for _ in range(2000)])
    standard_error = drawn.std(0) / 2000**0.5
    assert ((drawn.mean(0) - net(x)).abs() < 5 * standard_error).all()


def test_dropout_rates_are_half_before_the_dense_layer_and_full_before_the_head() -> None:
    net = ConvNet([dense(4000, "prepare")], (1, 28, 28), 2, dropout=0.4)
    with torch.no_grad():
        net.weights[0].copy_(torch.ones(4000, 784) / 784)
        net.head_weight.fill_(1 / 4000)
    ones = torch.ones(50, 1, 28, 28)
    features = net.features(ones, seeded())
    kept = features[:, 0] * 0.8  # share of 784 inputs kept
    assert kept.mean().item() == pytest.approx(0.8, abs=0.01)
    logits = net(ones, seeded())[:, 0] / features[:, 0] * 0.6  # share of 4000 features kept
    assert logits.mean().item() == pytest.approx(0.6, abs=0.01)


def test_losses_ignore_unlabelled_images() -> None:
    net, batch = network(), stripes(12)
    labels = batch.labels.clone()
    labels[::3] = -1
    seen = labels >= 0
    losses = net.training_losses(Batch(batch.images, labels), 0, seeded())
    logits = net(batch.images[seen])
    torch.testing.assert_close(losses.total, F.cross_entropy(logits, labels[seen]))
    accuracy = (logits.argmax(1) == labels[seen]).float().mean()
    torch.testing.assert_close(losses.parts["accuracy"], accuracy)
    nothing = net.training_losses(Batch(batch.images, torch.full((12,), -1)), 0, seeded())
    nothing.total.backward()
    assert nothing.total.item() == 0
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_validation_is_without_dropout() -> None:
    net, batch = network(dropout=0.5), stripes(12)
    expected = F.cross_entropy(net(batch.images), batch.labels)
    torch.testing.assert_close(net.validation_losses(batch, 0, seeded()).total, expected.detach())


def test_log_probabilities_are_normalised_and_do_not_depend_on_the_batch() -> None:
    net, x = network(), images(300, 1, 28, 28)
    together = net.predict_log_probabilities(x)
    torch.testing.assert_close(together.exp().sum(1), torch.ones(300))
    torch.testing.assert_close(together, F.log_softmax(net(x), 1).detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[:7], net.predict_log_probabilities(x[:7]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "probabilistic"])
def test_random_weights_start_neither_dead_nor_saturated(activation: str) -> None:
    net = ConvNet([conv(32, 7), conv(48, 4), dense(128)], (1, 28, 28), 10, activation=activation)
    net.init_random(seeded())
    features = ((net.features(stripes(200).images) - net.feature_mean) / net.feature_std).detach()
    assert 0.1 < features.std(0).mean() < 3
    assert (features.std(0) > 1e-6).float().mean() > 0.5  # positive inputs: some ReLUs never fire on four gratings
    if activation == "probabilistic":
        raw = net.features(stripes(200).images)
        assert ((raw > 0.02) & (raw < 0.98)).float().mean() > 0.8


@pytest.mark.parametrize("activation", ["relu", "probabilistic"])
def test_training_learns_and_equal_seeds_give_equal_bits(activation: str) -> None:
    def run() -> ConvNet:
        net, generator = network(activation, dropout=0.2), seeded(1)
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for step in range(100):
            optimizer.zero_grad()
            net.training_losses(stripes(32, step), step, generator).total.backward()
            optimizer.step()
        return net

    first, second = run(), run()
    held_out = stripes(200, 1000)
    assert first.validation_losses(held_out, 0, seeded()).parts["accuracy"] > 0.95
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_a_network_survives_json_and_its_state() -> None:
    net = network("probabilistic", dropout=0.25)
    twin = ConvNet.from_config(json.loads(json.dumps(net.to_config())))
    assert twin.to_config() == net.to_config()
    twin.load_state_dict(net.state_dict())
    x: Tensor = images(3, 1, 28, 28)
    assert torch.equal(twin(x), net(x))
