"""Oracles: torch.distributions, counts, and sums over all black and white images."""

import itertools

import pytest
import torch
from torch import Tensor, distributions

from pipeline.models.corruption import CERTAIN, Gaussian, Masking, SaltAndPepper, Spoilt, evidence_log_likelihood
from pipeline.models.corruption import spoil_mixed as mix


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def whole(y: Tensor) -> Spoilt:
    return Spoilt(y, torch.zeros_like(y, dtype=torch.bool))


def test_gaussian_evidence_is_the_log_ratio_of_two_normals() -> None:
    y = torch.randn(3, 1, 4, 4, generator=seeded())
    expected = distributions.Normal(1.0, 0.3).log_prob(y) - distributions.Normal(0.0, 0.3).log_prob(y)
    torch.testing.assert_close(Gaussian(0.3).evidence(whole(y)), expected)


def test_gaussian_noise_has_its_deviation_and_is_not_clipped() -> None:
    x = torch.full((50, 1, 28, 28), 0.5)
    y = Gaussian(0.5).spoil(x, seeded()).y
    assert abs(float((y - x).std()) - 0.5) < 0.01
    assert float(y.min()) < -0.5
    assert float(y.max()) > 1.5


def test_salt_and_pepper_replaces_its_share_and_its_evidence_is_the_log_ratio() -> None:
    noise = SaltAndPepper(0.4)
    y = noise.spoil(torch.full((50, 1, 28, 28), 0.3), seeded()).y
    shares = [float((y == value).float().mean()) for value in (0.0, 0.3, 1.0)]
    assert shares == pytest.approx([0.2, 0.6, 0.2], abs=0.01)
    seen = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    # p(y = 1 | x = 1) = 0.6 + 0.2, p(y = 1 | x = 0) = 0.2
    expected = torch.tensor([0.2 / 0.8, 0.8 / 0.2]).log().view(1, 1, 1, 2)
    torch.testing.assert_close(noise.evidence(whole(seen)), expected)


def test_a_hole_is_a_square_inside_the_image_which_leaves_the_rest_as_it_is() -> None:
    x = torch.rand(40, 3, 28, 28, generator=seeded(1)).round()
    spoilt = Masking(5).spoil(x, seeded())
    assert torch.equal(spoilt.y[~spoilt.lost], x[~spoilt.lost])
    assert spoilt.lost.flatten(2).sum(2).eq(25).all()
    rows = spoilt.lost[:, 0].any(2).sum(1)
    assert rows.eq(5).all()
    evidence = Masking(5).evidence(spoilt)
    assert evidence[spoilt.lost].eq(0).all()
    assert torch.equal(evidence[~spoilt.lost], (2 * x[~spoilt.lost] - 1) * CERTAIN)


def test_a_hole_as_large_as_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match=r"side of 1 to 27 in images of 28 pixels, got 28: set denoise\.hole"):
        Masking(28).spoil(torch.zeros(1, 1, 28, 28), seeded())


def test_each_row_of_a_mixed_batch_is_spoilt_in_one_way() -> None:
    x = torch.full((300, 1, 8, 8), 0.25)
    y = mix({"a": SaltAndPepper(0.5), "b": Masking(3)}, x, seeded())
    holes = y.eq(0.5).flatten(1).sum(1)
    flipped = (y.eq(0) | y.eq(1)).flatten(1).sum(1)
    assert ((holes == 9) ^ (flipped > 0)).all()
    assert 100 < int((holes == 9).sum()) < 200


def test_the_likelihood_by_evidence_is_the_sum_over_all_black_and_white_images() -> None:
    logits, y, noise = torch.randn(2, 3, generator=seeded()), torch.randn(2, 3, generator=seeded(1)), Gaussian(0.7)
    total = torch.zeros(2)
    for pixels in itertools.product((0.0, 1.0), repeat=3):
        x = torch.tensor(pixels)
        given_z = distributions.Bernoulli(logits=logits).log_prob(x).sum(1)
        total += (given_z + distributions.Normal(x, 0.7).log_prob(y).sum(1)).exp()
    black = distributions.Normal(0.0, 0.7).log_prob(y).sum(1)
    torch.testing.assert_close(evidence_log_likelihood(logits, noise.evidence(whole(y))), total.log() - black)
