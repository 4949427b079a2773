"""Oracles: a dense RBM of the same filters, enumeration of the blocks, autograd, finite differences, chi-square."""

import itertools
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from pipeline.models.conv_estimators import compute_phase
from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.losses import Batch
from pipeline.models.pooling import block_softmax, join_blocks, split_blocks
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli, sample_blocks

KINDS = pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_crbm(shape: tuple[int, int, int], num_filters: int, kernel_size: int, **options: Any) -> ConvRBM:
    model, generator = ConvRBM(shape, num_filters, kernel_size, **options).double(), seeded(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 1, generator=generator)
    return model


def images(count: int, *shape: int) -> Tensor:
    return torch.rand(count, *shape, generator=seeded(2), dtype=torch.float64)


def as_batch(x: Tensor) -> Batch:
    return Batch(x, torch.full((len(x),), -1))


def contrast(model: ConvRBM, v_data: Tensor, v_model: Tensor) -> list[Tensor]:
    """The gradient of mean F(v_data) - mean F(v_model), in closed form."""
    data, other = compute_phase(model, v_data).statistics, compute_phase(model, v_model).statistics
    return [negative - positive for positive, negative in zip(data, other, strict=True)]


def block_states(model: ConvRBM) -> Tensor:
    """Every state of the detection units: each block has none or one of its units on."""
    filters, rows, columns = model.output_shape
    units = model.pool_size**2
    one_block = torch.cat([torch.zeros(1, units), torch.eye(units)]).double()
    choices = itertools.product(one_block, repeat=filters * rows * columns)
    stacked = torch.stack([torch.stack(choice) for choice in choices])
    return stacked.view(-1, filters, rows, columns, units).permute(0, 4, 1, 2, 3)


def dense_twin(model: ConvRBM) -> RBM:
    """The dense RBM over all pixels whose weights are the shifted filters; for pool_size 1."""
    channels, height, width = model.input_shape
    filters, rows, columns = model.output_shape
    weight = torch.zeros(channels, height, width, filters, rows, columns, dtype=torch.float64)
    side = model.kernel_size
    for f, i, j in itertools.product(range(filters), range(rows), range(columns)):
        weight[:, i : i + side, j : j + side, f, i, j] = model.weight[f].detach()
    twin = RBM(channels * height * width, filters * rows * columns, visible=model.visible).double()
    with torch.no_grad():
        twin.weight.copy_(weight.view(twin.num_visible, -1))
        twin.hidden_bias.copy_(model.hidden_bias.repeat_interleave(rows * columns))
        twin.visible_bias.copy_(model.visible_bias.repeat_interleave(height * width))
    return twin


@KINDS
def test_without_pooling_it_equals_a_dense_rbm_of_the_same_filters(visible: str) -> None:
    model = random_crbm((2, 5, 6), 3, 3, pool_size=1, visible=visible)
    twin, v = dense_twin(model), images(4, 2, 5, 6)
    h = sample_bernoulli(torch.full((4, 1, 3, 3, 4), 0.5, dtype=torch.float64), seeded())
    torch.testing.assert_close(model.energy(v, h), twin.energy(v.flatten(1), h.flatten(1)))
    torch.testing.assert_close(model.free_energy(v), twin.free_energy(v.flatten(1)))
    torch.testing.assert_close(model.hidden_probabilities(v).flatten(1), twin.hidden_probabilities(v.flatten(1)))
    torch.testing.assert_close(model.visible_mean(h).flatten(1), twin.visible_mean(h.flatten(1)))


@KINDS
def test_free_energy_and_conditionals_match_enumeration_of_the_blocks(visible: str) -> None:
    model = random_crbm((1, 3, 5), 2, 2, pool_size=2, visible=visible)
    h = block_states(model)
    assert len(h) == 5**4
    for v in images(3, 1, 3, 5):
        energies = model.energy(v.expand(len(h), -1, -1, -1), h)
        torch.testing.assert_close(model.free_energy(v[None])[0], -torch.logsumexp(-energies, 0))
        by_hand = torch.einsum("n,nsfrq->sfrq", torch.softmax(-energies, 0), h)
        torch.testing.assert_close(model.detection_probabilities(v[None])[0], by_hand)
        torch.testing.assert_close(model.hidden_probabilities(v[None])[0], by_hand.sum(0))


@pytest.mark.parametrize("scale", [3, 100])  # above 60 the largest input of a block is taken off first
def test_block_probabilities_match_the_softmax_with_a_zero_and_stay_finite(scale: float) -> None:
    inputs = scale * torch.randn(50, 4, 7, generator=seeded(), dtype=torch.float64)
    units, pooled, log_normaliser = block_softmax(inputs)
    with_off = torch.cat([inputs, torch.zeros(50, 1, 7, dtype=torch.float64)], 1)
    torch.testing.assert_close(units, torch.softmax(with_off, 1)[:, :4])
    torch.testing.assert_close(pooled, torch.sigmoid(torch.logsumexp(inputs, 1)))
    torch.testing.assert_close(log_normaliser, torch.logsumexp(with_off, 1))
    extreme = torch.tensor([[[1e4, -1e4]], [[-1e4, -1e4]], [[1e4, 1e4]]]).transpose(1, 2)
    units, pooled, log_normaliser = block_softmax(extreme)
    torch.testing.assert_close(units[:, :, 0], torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.5, 0.5]]))
    torch.testing.assert_close(pooled[:, 0], torch.tensor([1.0, 0.0, 1.0]))
    assert torch.isfinite(log_normaliser).all()


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("offset", [0, 80])
def test_block_softmax_has_the_gradients_of_its_formulas(used: tuple[int, ...], offset: float) -> None:
    inputs = 2 * torch.randn(3, 4, 2, generator=seeded(), dtype=torch.float64)
    inputs[0, :2, 0] += offset
    inputs.requires_grad_()

    def outputs(x: Tensor) -> tuple[Tensor, ...]:
        return tuple(block_softmax(x)[number] for number in used)

    assert torch.autograd.gradcheck(outputs, inputs)


def test_sampled_blocks_have_the_pooled_probability() -> None:
    model = random_crbm((1, 4, 4), 1, 3, pool_size=2)
    probabilities = model.detection_probabilities(images(1, 1, 4, 4)).detach()
    h = sample_blocks(probabilities.expand(20_000, -1, -1, -1, -1), seeded())
    assert h.sum(1).max() == 1
    counts = h.sum(0).flatten()
    expected = 20_000 * probabilities.flatten()
    off, expected_off = 20_000 - counts.sum(), 20_000 - expected.sum()
    observed = [*counts.tolist(), off.item()]
    assert stats.chisquare(observed, [*expected.tolist(), expected_off.item()]).pvalue > 0.001


def test_blocks_are_split_and_joined_place_by_place() -> None:
    maps = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6)
    blocks = split_blocks(maps, 2)
    for row, column in itertools.product(range(2), range(2)):
        assert torch.equal(blocks[:, 2 * row + column], maps[:, :, row::2, column::2])
    assert torch.equal(join_blocks(blocks, 2), maps)


@pytest.mark.parametrize("channels", [1, 3, 6])  # few channels take another path down
@pytest.mark.parametrize(("kernel", "pool"), [(3, 1), (4, 2), (3, 3)])
def test_visible_inputs_are_minus_the_derivative_of_the_energy(channels: int, kernel: int, pool: int) -> None:
    model = random_crbm((channels, 9, 8), 2, kernel, pool_size=pool, visible="bernoulli")
    h = sample_blocks(torch.full((3, pool**2, *model.output_shape), 0.9 / pool**2, dtype=torch.float64), seeded())
    v = images(3, channels, 9, 8).requires_grad_()
    (slope,) = torch.autograd.grad(model.energy(v, h).sum(), v)
    torch.testing.assert_close(model.visible_mean(h), torch.sigmoid(-slope))


def test_detection_units_outside_whole_blocks_do_not_exist() -> None:
    model = random_crbm((1, 7, 6), 2, 3, pool_size=3)
    assert model.output_shape == (2, 1, 1)
    v = images(2, 1, 7, 6)
    changed = v.clone()
    changed[..., 5:, :] = 0.3
    changed[..., :, 5:] = 0.3
    torch.testing.assert_close(model.hidden_probabilities(v), model.hidden_probabilities(changed))
    mean = model.visible_mean(torch.ones(1, 9, 2, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(mean[..., 5:, :], torch.sigmoid(model.visible_bias).expand(1, 1, 2, 6))


@KINDS
@pytest.mark.parametrize("channels", [1, 5])
def test_cd_gradient_matches_autograd_and_finite_differences(visible: str, channels: int) -> None:
    model = random_crbm((channels, 7, 7), 3, 3, pool_size=2, visible=visible)
    v_data, v_model = images(6, channels, 7, 7), images(9, channels, 7, 7).flip(0)
    parameters = (model.weight, model.hidden_bias, model.visible_bias)

    def reference() -> Tensor:
        return model.free_energy(v_data).mean() - model.free_energy(v_model).mean()

    with torch.no_grad():
        closed = contrast(model, v_data, v_model)
    for gradient, expected in zip(closed, torch.autograd.grad(reference(), parameters), strict=True):
        torch.testing.assert_close(gradient, expected)
    for parameter, gradient in zip(parameters, closed, strict=True):
        first, values = parameter.data.view(-1), []
        for step in (1e-5, -1e-5):
            first[0] += step
            values.append(reference().item())
            first[0] -= step
        assert gradient.flatten()[0].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-5)


def test_the_training_loss_is_nats_per_detection_place_and_its_gradient_too() -> None:
    model, batch = random_crbm((1, 7, 7), 3, 3, pool_size=2), as_batch(images(8, 1, 7, 7))
    losses = model.training_losses(batch, 0, seeded())
    gap = losses.parts["free_energy_data"] - losses.parts["free_energy_model"]
    torch.testing.assert_close(losses.total.detach(), gap / 16)
    losses.total.backward()
    end = model.sample_visible(model.sample_hidden(batch.images, generator := seeded()), generator)
    closed = contrast(model, batch.images, end)
    for parameter, gradient in zip((model.weight, model.hidden_bias, model.visible_bias), closed, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / 16)


def test_sparsity_adds_cost_times_excess_activity_to_the_hidden_biases_alone() -> None:
    plain = random_crbm((1, 7, 7), 3, 3, pool_size=2)
    sparse = random_crbm((1, 7, 7), 3, 3, pool_size=2, sparsity_target=0.05, sparsity_cost=2.0)
    batch = as_batch(images(8, 1, 7, 7))
    for model in (plain, sparse):
        model.training_losses(batch, 0, seeded()).total.backward()
    assert plain.hidden_bias.grad is not None
    assert sparse.hidden_bias.grad is not None
    activity = plain.detection_probabilities(batch.images).mean((0, 1, 3, 4))
    torch.testing.assert_close(sparse.hidden_bias.grad - plain.hidden_bias.grad, 2 * (activity.detach() - 0.05))
    assert torch.equal(sparse.weight.grad, plain.weight.grad)  # type: ignore[arg-type]


def test_units_start_at_the_sparsity_target_and_responses_at_one_scale() -> None:
    model = ConvRBM((3, 28, 28), 16, 7, sparsity_target=0.03, sparsity_cost=1.0)
    x = torch.rand(32, 3, 28, 28, generator=seeded()) * 0.5
    model.initialise(as_batch(x), seeded())
    silent = torch.zeros(1, 4, 16, 1, 1) + model.hidden_bias.detach().view(1, 1, -1, 1, 1)
    torch.testing.assert_close(block_softmax(silent)[0], torch.full_like(silent, 0.03))
    responses = F.conv2d(x, model.weight.detach())
    assert responses.square().mean().sqrt().item() == pytest.approx(0.33, rel=0.2)
    torch.testing.assert_close(torch.sigmoid(model.visible_bias.detach()), x.mean((0, 2, 3)))


def test_gaussian_channels_are_standardised_and_given_back() -> None:
    model, x = ConvRBM((3, 9, 9), 4, 3, visible="gaussian"), torch.rand(64, 3, 9, 9, generator=seeded()) * 0.2 + 0.5
    model.initialise(as_batch(x), seeded())
    v = model.standardise(x)
    torch.testing.assert_close(v.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(v.std((0, 2, 3)), torch.ones(3))
    h = model.detection_probabilities(v)
    torch.testing.assert_close(
        model.decode(h), model.visible_mean(h) * v.new_tensor(0.2 / 12**0.5) + 0.6, atol=0.02, rtol=0
    )
    with pytest.raises(ValueError, match="std must be > 0"):
        model.set_statistics(torch.zeros(3), torch.zeros(3))


def test_training_raises_the_exact_log_likelihood() -> None:
    """3x4 images of vertical bars; log Z over the 4096 images."""
    columns = sample_bernoulli(torch.full((256, 1, 1, 4), 0.3), seeded())
    batch = as_batch(columns.expand(-1, 1, 3, 4).contiguous())
    every = torch.tensor(list(itertools.product((0.0, 1.0), repeat=12))).view(-1, 1, 3, 4)
    model = ConvRBM((1, 3, 4), 4, 2, pool_size=1)
    model.initialise(batch, seeded(1))

    @torch.no_grad()
    def log_likelihood() -> float:
        return float(-model.free_energy(batch.images).mean() - torch.logsumexp(-model.free_energy(every), 0))

    before, generator = log_likelihood(), seeded(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5)
    for step in range(300):
        optimizer.zero_grad()
        model.training_losses(batch, step, generator).total.backward()
        optimizer.step()
    assert log_likelihood() > before + 2


def test_equal_seeds_give_equal_bits() -> None:
    def run() -> ConvRBM:
        model, batch = ConvRBM((1, 12, 12), 4, 5, sparsity_cost=1.0), as_batch(images(8, 1, 12, 12).float())
        model.initialise(batch, seeded(5))
        model.training_losses(batch, 0, seeded(6)).total.backward()
        return model

    first, second = run(), run()
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.weight.grad, second.weight.grad)  # type: ignore[arg-type]
