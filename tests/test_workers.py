"""Several workers train the model that one would: DESIGN's contract, over torch.distributed without Ray."""

import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from scipy import stats

from pipeline.row_noise import (
    RowGenerator,
    Shard,
    draw_integers,
    draw_normal,
    draw_thresholds,
    draw_uniform,
    own_rows,
    shard_generator,
)
from pipeline.seeding import make_generator
from pipeline.training.stream import BatchStream
from tests.worker_fits import MODELS, fit_model, make_stream

TOLERANCE = 2e-4
"""Of losses and weights after six updates: sums in another order, in 32 bits."""


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("workers")
    command = [sys.executable, "-m", "tests.worker_fits"]
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
    workers = [subprocess.Popen([*command, str(rank), "2", str(folder)], env=environment) for rank in range(2)]
    assert [worker.wait(300) for worker in workers] == [0, 0]
    return torch.load(folder / "fits.pt")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_two_workers_train_the_model_that_one_trains(name: str, two_workers: Any) -> None:
    history, state = fit_model(name)
    shared_history, shared_state = two_workers[name]
    assert len(history) == len(shared_history) == 3
    for one, two in zip(history, shared_history, strict=True):
        assert one.keys() == two.keys()
        for key, value in one.items():
            assert math.isclose(value, two[key], rel_tol=TOLERANCE, abs_tol=TOLERANCE), (key, value, two[key])
    for key, tensor in state.items():
        torch.testing.assert_close(shared_state[key], tensor, rtol=TOLERANCE, atol=TOLERANCE, msg=key)


@pytest.mark.slow
def test_more_workers_than_validation_batches_give_the_losses_of_one(two_workers: Any) -> None:
    history, _ = fit_model("vae", num_validation=20)
    for one, two in zip(history, two_workers["one batch"][0], strict=True):
        assert two == pytest.approx(one, rel=TOLERANCE)


@pytest.mark.slow
def test_workers_that_were_stopped_go_on_to_the_same_bits(two_workers: Any) -> None:
    history, state = two_workers["dense rbm"]
    resumed_history, resumed_state = two_workers["resumed"]
    assert resumed_history == history
    for key, tensor in state.items():  # the persistent chains among them
        assert torch.equal(resumed_state[key], tensor), key


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_row_gets_the_same_noise_however_many_workers_share_the_batch(size: int) -> None:
    def draw(shard: Shard) -> list[torch.Tensor]:
        generator, rows = shard_generator(7, "noise", shard=shard), 150 // shard.size
        return [
            draw_uniform((rows, 3), generator),
            draw_normal((rows, 2, 2), generator),
            draw_integers(-2, 3, rows, generator),
            draw_thresholds(torch.empty(rows, 5), generator),
            draw_uniform((rows,), generator),
        ]

    parts = [draw(Shard(rank, size)) for rank in range(size)]
    for number, whole in enumerate(draw(Shard())):
        assert torch.equal(torch.cat([part[number] for part in parts]), whole)


def test_noise_is_uniform_and_normal_and_differs_from_block_to_block() -> None:
    generator = RowGenerator(0, "noise")
    uniform, normal, whole = (
        draw_uniform((256, 200), generator),
        draw_normal((256, 200), generator),
        draw_integers(-2, 3, 50_000, generator),
    )
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(uniform.var()) == pytest.approx(1 / 12, abs=0.002)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02)
    assert float(normal.var()) == pytest.approx(1, abs=0.03)
    assert torch.bincount(whole + 2).tolist() == pytest.approx([10_000] * 5, rel=0.05)
    blocks = uniform.split(64)
    assert all(not torch.equal(blocks[0], block) for block in blocks[1:])


def test_thresholds_are_uniform_to_their_last_bit_and_uncorrelated_within_a_row() -> None:
    drawn = draw_thresholds(torch.empty(640, 5, 41), RowGenerator(0, "noise")).flatten(1)
    whole = drawn.double() * 2**24
    assert torch.equal(whole, whole.floor())
    bits = whole.long()
    assert 0 <= int(bits.min()) < int(bits.max()) < 2**24
    for observed in (bits.flatten() >> 16, bits.flatten() >> 8 & 255, (bits[:, 0] & 255) // 16):
        assert stats.chisquare(torch.bincount(observed)).pvalue > 0.001
    correlations = torch.corrcoef(drawn.t()) - torch.eye(drawn.shape[1])
    assert float(correlations.abs().max()) < 5.5 / 640**0.5


def test_an_ordinary_generator_draws_what_torch_draws() -> None:
    drawn = draw_normal((100, 4), make_generator(1))
    assert torch.equal(drawn, torch.empty(100, 4).normal_(generator=make_generator(1)))
    assert own_rows(10, make_generator(1)) == slice(0, 10)


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_the_shards_of_a_batch_are_the_batch(size: int, augmented: bool) -> None:
    stream = make_stream(augmented)
    whole = stream.batch(4)
    parts = [stream.batch(4, Shard(rank, size).rows(stream.batch_size)) for rank in range(size)]
    assert torch.equal(torch.cat([part.labels for part in parts]), whole.labels)
    torch.testing.assert_close(torch.cat([part.images for part in parts]), whole.images, rtol=0, atol=1e-6)


def test_a_batch_that_cannot_be_shared_equally_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"a batch of 6 can't be shared equally by 4 workers: make batch_size a mult"):
        Shard(1, 4).rows(BatchStream(torch.zeros(9, 1, 4, 4), torch.zeros(9), batch_size=6, seed=0).batch_size)
