"""Classical augmentation: random affine maps and elastic distortion.

Elastic distortion after Simard, Steinkraus and Platt (2003), Best practices for convolutional neural networks applied
to visual document analysis, sec. 2: a field of random displacements, smoothed by a Gaussian.
"""

# B batch, C channels, H height, W width; grids hold (x, y) with -1..1 from edge to edge, as torch's grid_sample does.

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.row_noise import draw_uniform


@dataclass(frozen=True, kw_only=True)
class Strengths:
    """How far images are moved. All zero leaves them as they are."""

    rotation_deg: float = 15.0
    """Angles are uniform in +- this."""
    log_scale: float = 0.15
    """Logarithms of the two axes' scales are uniform in +- this."""
    shear: float = 0.2
    """Horizontal shift per vertical distance, uniform in +- this."""
    translation: float = 0.07
    """Shifts along each axis as a share of the side, uniform in +- this."""
    elastic: float = 0.05
    """Standard deviation of the elastic displacement along each axis as a share of the side."""
    elastic_smoothing: float = 0.14
    """Standard deviation of the smoothing Gaussian as a share of the side; Simard et al. use 4 of 29 pixels."""


DEFAULT = Strengths()


def affine_elastic(images: Tensor, generator: torch.Generator, strengths: Strengths = DEFAULT) -> Tensor:
    """Each image under its own random affine map and elastic displacement, in one resampling.

    images: (B, C, H, W) float.  Bilinear; beyond its edge an image goes on with the pixel at the edge.
    `generator` must live on the images' device.
    """
    height, width = images.shape[2:]
    theta = sample_affine(len(images), generator, strengths).to(images.dtype)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    if strengths.elastic:
        grid = grid + sample_displacement(len(images), height, width, generator, strengths).to(images.dtype)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def sample_affine(batch: int, generator: torch.Generator, strengths: Strengths) -> Tensor:
    """(B, 2, 3): rotation times shear times scale, and a translation, from output to input coordinates."""
    uniform = 2 * draw_uniform((batch, 6), generator).T - 1
    angle = uniform[0] * math.radians(strengths.rotation_deg)
    scale_x, scale_y = torch.exp(uniform[1:3] * strengths.log_scale)
    shear = uniform[3] * strengths.shear
    shift_x, shift_y = uniform[4:6] * 2 * strengths.translation
    cos, sin = torch.cos(angle), torch.sin(angle)
    first_row = torch.stack([cos * scale_x, (cos * shear - sin) * scale_y, shift_x], dim=1)
    second_row = torch.stack([sin * scale_x, (sin * shear + cos) * scale_y, shift_y], dim=1)
    return torch.stack([first_row, second_row], dim=1)


def sample_displacement(
    batch: int, height: int, width: int, generator: torch.Generator, strengths: Strengths
) -> Tensor:
    """(B, H, W, 2): uniform noise smoothed along both axes, with mean 0 and standard deviation `elastic`.

    The noise reaches beyond the image, so that the field has the same strength at the edge.
    """
    rows = _smoothing(height, strengths.elastic_smoothing * height, generator.device)
    columns = _smoothing(width, strengths.elastic_smoothing * width, generator.device)
    shape = (batch, 2, rows.shape[1], columns.shape[1])
    noise = draw_uniform(shape, generator).mul_(2).sub_(1)
    smooth: Tensor = rows @ noise @ columns.T
    # Uniform noise in +-1 has variance 1/3; a coordinate runs over 2 for one side.
    return smooth.permute(0, 2, 3, 1) * (2 * strengths.elastic * math.sqrt(3))


def _smoothing(size: int, sigma: float, device: torch.device) -> Tensor:
    """(size, N): row i weighs N noise values by a Gaussian around pixel i, its squares summing to 1.

    The noise lies half a sigma apart (a pixel at least): what is between is below the Gaussian's resolution.
    """
    reach, spacing = math.ceil(3 * sigma), max(1.0, sigma / 2)
    places = torch.arange(-reach, size + reach, spacing, device=device)
    distances = (torch.arange(size, device=device)[:, None] - places) / max(sigma, 1e-6)
    kernel = torch.exp(-0.5 * distances**2)
    return F.normalize(kernel, dim=1)
