import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.data.transforms import Strengths, affine_elastic, sample_affine, sample_displacement

STILL = Strengths(rotation_deg=0, log_scale=0, shear=0, translation=0, elastic=0)


def images(batch: int = 4, channels: int = 1, side: int = 28) -> Tensor:
    return torch.rand(batch, channels, side, side, generator=seeded(7))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("channels", "side"), [(1, 28), (3, 32), (3, 64)])
def test_zero_strengths_leave_images_as_they_are(channels: int, side: int) -> None:
    x = images(channels=channels, side=side)
    np.testing.assert_allclose(affine_elastic(x, seeded(0), STILL), x, atol=1e-5)


def test_equal_generators_give_equal_bits_and_others_do_not() -> None:
    x = images()
    first, again, other = (affine_elastic(x, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_every_image_of_a_batch_is_moved_its_own_way_and_channels_alike() -> None:
    x = images(batch=1, channels=1).expand(5, 3, 28, 28)
    moved = affine_elastic(x, seeded(0))
    assert moved.shape == x.shape
    assert torch.equal(moved[:, 0], moved[:, 2])
    assert all(not torch.allclose(moved[0], moved[index]) for index in range(1, 5))


def test_values_stay_within_the_range_of_the_image() -> None:
    x = images(batch=16)
    moved = affine_elastic(x, seeded(0))
    assert moved.min() >= x.min() - 1e-6
    assert moved.max() <= x.max() + 1e-6


@pytest.mark.parametrize(
    ("strengths", "bound"),
    [
        (Strengths(rotation_deg=15, log_scale=0, shear=0, translation=0, elastic=0), math.radians(15)),
        (Strengths(rotation_deg=0, log_scale=0.15, shear=0, translation=0, elastic=0), 0.15),
        (Strengths(rotation_deg=0, log_scale=0, shear=0.2, translation=0, elastic=0), 0.2),
        (Strengths(rotation_deg=0, log_scale=0, shear=0, translation=0.1, elastic=0), 0.1),
    ],
)
def test_each_affine_strength_spans_plus_minus_its_bound(strengths: Strengths, bound: float) -> None:
    theta = sample_affine(2000, seeded(0), strengths)
    values = {
        "rotation_deg": torch.atan2(theta[:, 1, 0], theta[:, 0, 0]),
        "log_scale": theta[:, 0, 0].log(),
        "shear": theta[:, 0, 1],
        "translation": theta[:, 0, 2] / 2,
    }
    name = next(key for key in values if getattr(strengths, key))
    assert bound * 0.99 < values[name].max() <= bound * 1.0001
    assert -bound * 1.0001 <= values[name].min() < -bound * 0.99
    area = torch.linalg.det(theta[:, :, :2])
    if name != "log_scale":
        np.testing.assert_allclose(area, 1, rtol=1e-5)


def test_an_affine_map_is_what_interpolation_by_hand_gives() -> None:
    x = images(batch=1)
    strengths = Strengths(rotation_deg=15, log_scale=0.15, shear=0.2, translation=0.07, elastic=0)
    matrix = sample_affine(1, seeded(3), strengths)[0].double()
    moved = affine_elastic(x, seeded(3), strengths)[0, 0]
    for row, column in [(14, 14), (9, 20), (17, 6)]:
        place = torch.tensor([(2 * column + 1) / 28 - 1, (2 * row + 1) / 28 - 1, 1.0], dtype=torch.float64)
        source_x, source_y = (((matrix @ place) + 1) * 28 - 1) / 2
        left, top = int(source_x.floor()), int(source_y.floor())
        u, v = float(source_x) - left, float(source_y) - top
        corners = x[0, 0, top : top + 2, left : left + 2].double()
        weights = torch.tensor([[(1 - v) * (1 - u), (1 - v) * u], [v * (1 - u), v * u]], dtype=torch.float64)
        assert float(moved[row, column]) == pytest.approx(float((corners * weights).sum()), abs=1e-4)


@pytest.mark.parametrize("side", [28, 64])
def test_elastic_displacement_has_its_strength_and_smoothness_everywhere(side: int) -> None:
    strengths = Strengths(elastic=0.05, elastic_smoothing=0.14)
    field = sample_displacement(3000, side, side, seeded(0), strengths) / 2  # in sides
    np.testing.assert_allclose(field.std(dim=0), 0.05, rtol=0.1)
    assert field.mean(dim=0).abs().max() < 0.005
    # Noise smoothed by a Gaussian of width s has the autocorrelation exp(-d^2 / 4 s^2).
    distance = round(0.14 * side)
    row = field[:, side // 2, :, 0]
    near = (row[:, 0] * row[:, distance]).mean() / (row[:, 0].std() * row[:, distance].std())
    assert float(near) == pytest.approx(math.exp(-(distance**2) / (4 * (0.14 * side) ** 2)), abs=0.06)


def test_gradients_reach_the_images() -> None:
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(affine_elastic(x, seeded(0)).sum(), x)
    # With border padding the weights that make up an output pixel sum to 1.
    assert float(gradient.sum()) == pytest.approx(x.numel(), rel=1e-4)


def test_rotation_by_a_right_angle_turns_the_grid_exactly() -> None:
    # The sign convention: a positive angle samples from where the grid has been turned to.
    x = images(batch=1)
    quarter = torch.tensor([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]])
    turned = F.grid_sample(x, F.affine_grid(quarter, list(x.shape), align_corners=False), align_corners=False)
    np.testing.assert_allclose(turned, torch.rot90(x, 1, (2, 3)), atol=1e-5)
