"""The linear estimate of clean pixels with the least squared error, in closed form: what a denoiser has to beat.

It needs the images' mean and covariance alone, and is E[x | y] where images are Gaussian and the noise is (Kay 1993,
Fundamentals of statistical signal processing I, sec. 12.3).
"""

# N images, P pixels, M lost pixels of an image

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """mean: (P,).  covariance: (P, P)."""

    mean: Tensor
    covariance: Tensor

    def with_ridge(self, ridge: float) -> "Moments":
        """`ridge` added to the variance of each pixel: without it pixels that never change leave no inverse."""
        return Moments(self.mean, self.covariance + ridge * torch.eye(len(self.mean), dtype=self.mean.dtype))


def fit_moments(images: Tensor) -> Moments:
    """Mean and covariance of images (N, ...), in double precision."""
    x = images.flatten(1).double()
    mean = x.mean(0)
    centred = x - mean
    return Moments(mean, centred.t() @ centred / len(x))


def estimate_from_noise(moments: Moments, y: Tensor, *, gain: float, offset: float, variance: Tensor) -> Tensor:
    """Best linear estimate of x from y = gain x + offset + e, where E[e | x] = 0 and pixels' e are uncorrelated.

    y: (N, ...).  variance: of e, (P,), its mean over images.  Returns the shape of y; values may leave [0, 1].
    """
    noisy = moments.covariance * gain**2
    noisy = noisy + torch.diag(variance.double())
    rows = y.flatten(1).double() - (gain * moments.mean + offset)
    x = moments.mean + gain * rows @ torch.linalg.solve(noisy, moments.covariance)
    found: Tensor = x.view_as(y).to(y.dtype)
    return found


def salt_and_pepper_variance(moments: Moments, share: float) -> Tensor:
    """Mean variance given x of a pixel that is replaced with probability `share` by a fair draw of 0 or 1: (P,).

    E[y | x] = (1 - share) x + share / 2, so e = y - E[y | x] has E[y^2] - E[E[y | x]^2] with
    E[y^2] = (1 - share) E[x^2] + share / 2.
    """
    kept = 1 - share
    second = moments.covariance.diagonal() + moments.mean.square()
    return kept * second + share / 2 - (kept**2 * second + kept * share * moments.mean + share**2 / 4)


def estimate_lost(moments: Moments, y: Tensor, lost: Tensor) -> Tensor:
    """E[lost pixels | the others] of a Gaussian, the others as they are; every image has the same number of lost ones.

    y: (N, ...); lost: bool of the same shape.  With the precision K of the pixels the lost ones l have the mean
    mu_l - K_ll^-1 K_lo (y_o - mu_o), which needs the inverse of M x M alone.  Returns the shape of y.
    """
    gone = lost.flatten(1)
    places = gone.nonzero()[:, 1].view(len(y), -1)
    precision = torch.linalg.inv(moments.covariance)
    rows = (y.flatten(1).double() - moments.mean).masked_fill(gone, 0.0)
    pull = (rows @ precision).gather(1, places)
    blocks = precision[places[:, :, None], places[:, None, :]]
    estimate = moments.mean[places] - torch.linalg.solve(blocks, pull)
    return y.flatten(1).double().scatter(1, places, estimate).view_as(y).to(y.dtype)
