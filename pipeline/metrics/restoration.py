"""How near restored images are to the clean ones: PSNR, and SSIM (Wang, Bovik, Sheikh, Simoncelli 2004)."""

# N images, C channels, H height = width

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.metrics.score import Score, score_mean

WINDOW, WINDOW_SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
PEAK = 1.0


def psnr(clean: Tensor, restored: Tensor, rng: np.random.Generator) -> Score:
    """10 log10(1 / mean squared error), in dB, of values with a peak of 1; the error is pooled over all images.

    (N, C, H, H) each.  The interval is a bootstrap over images.
    """
    errors = (clean - restored).square().flatten(1).mean(1).double().numpy()
    pooled = score_mean(errors, rng)
    value, low, high = (-10 * float(np.log10(max(error, 1e-12))) for error in (pooled.value, pooled.high, pooled.low))
    return Score(value=value, low=low, high=high)


def ssim(clean: Tensor, restored: Tensor) -> Tensor:
    """Mean structural similarity of each image, (N,), in [-1, 1]: (N, C, H, H) each, values with a peak of 1.

    Means, variances and covariances under an 11 x 11 Gaussian window of deviation 1.5, at the places where it lies
    wholly inside the image; channels are averaged.
    """
    window = _window(clean)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x.flatten(0, 1)[:, None], window)

    x, y = clean.double(), restored.double()
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x.square(), blur(y * y) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * contrast).flatten(1).mean(1).view(len(clean), -1).mean(1)


def _window(like: Tensor) -> Tensor:
    place = torch.arange(WINDOW, dtype=torch.float64, device=like.device) - WINDOW // 2
    weights = torch.exp(-place.square() / (2 * WINDOW_SIGMA**2))
    window = weights[:, None] * weights[None, :]
    return (window / window.sum())[None, None]
