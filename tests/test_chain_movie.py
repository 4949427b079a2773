"""Movies of Gibbs chains against enumeration of small stacks, and against the formula of a pooled layer's way down."""

import pytest
import torch

from pipeline.models.chain_movie import film_chains
from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.pictures import chain_strips
from tests.test_dbn import conv, dense, images, random_dbn, seeded
from tests.test_likelihood import exact_log_probabilities, states, tiny_dbn

CHAINS = 4000


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[4], [4, 3]])
def test_chains_from_noise_and_from_images_end_in_the_models_own_mean(sizes: list[int]) -> None:
    dbn = tiny_dbn(sizes, scale=0.7)
    exact = exact_log_probabilities(dbn).exp() @ states(6)
    start = torch.ones(CHAINS, *dbn.shapes[0], dtype=torch.float64)
    movie = film_chains(dbn, start, [0, 1, 40], seeded(3)).flatten(2)
    for half in movie[-1].split(CHAINS):
        assert float((half.mean(0) - exact).abs().max()) < 4.5 * 0.5 / CHAINS**0.5
    assert float((movie[0, :CHAINS].mean(0) - exact).abs().max()) > 0.05


@torch.no_grad()
def test_the_first_frame_of_a_single_layer_is_where_the_chains_start() -> None:
    dbn = random_dbn([dense(5, "prepare")], (1, 2, 3))
    start = (torch.rand(4, 1, 2, 3, generator=seeded(1)) < 0.5).float()
    movie = film_chains(dbn, start, [0], seeded(3))
    assert torch.equal(movie[0, :4], start)
    assert set(movie.unique().tolist()) == {0.0, 1.0}


@torch.no_grad()
def test_pooling_units_are_spread_evenly_over_their_blocks_on_the_way_down() -> None:
    dbn = random_dbn([conv(3, 3), dense(4, "pretrain/conv1")], (1, 8, 8))
    below, top = dbn.rbms()
    pooled = (torch.arange(27) % 2).float()
    top.weight.zero_()
    top.visible_bias.copy_((2 * pooled - 1) * 100)
    movie = film_chains(dbn, images(2, 1, 8, 8), [0, 1], seeded(3))
    assert isinstance(below, ConvRBM)
    expected = below.decode(pooled.view(1, 1, 3, 3, 3).expand(1, 4, 3, 3, 3) / 4)
    torch.testing.assert_close(movie[1], expected.expand(4, -1, -1, -1))


@pytest.mark.parametrize("layers", [[conv(3, 3, visible="gaussian")], [conv(3, 3), dense(4, visible="gaussian")]])
def test_strips_hold_chain_after_chain_in_order_of_frames(layers: list[object]) -> None:
    dbn = random_dbn(layers, (1, 8, 8))  # type: ignore[arg-type]
    start = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    strips = chain_strips(dbn, start, [0, 2, 5], seeded(3))
    movie = film_chains(dbn, start.float(), [0, 2, 5], seeded(3))
    assert strips.shape == (12, 1, 8, 8)
    expected = movie.transpose(0, 1).reshape(12, 1, 8, 8).mul(255).round().to(torch.uint8)
    assert bool((torch.from_numpy(strips) == expected).all())
