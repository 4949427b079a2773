"""Weights divided by their largest singular value, so that a discriminator's slope stays bounded (Miyato et al. 2018).

One step of power iteration an update follows a weight that moves slowly. torch's own takes one in every forward pass
in training mode; here the vectors move in `advance` alone, so that a loss is a pure function of weights and vectors.
"""

# O outputs of a layer, I inputs: all dimensions of its weight but the first

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

NORMALISED = (nn.Conv2d, nn.Linear, nn.Embedding)
START_ITERATIONS = 15


class SpectralNorm(nn.Module):
    """W to W / sigma, sigma = u^T W v, which is constant in u and v to the gradient (eq. 12).

    u: (O,), v: (I,): the power iteration's unit vectors. They are state: saved, restored, equal on all workers.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        start = torch.randn(weight[0].numel(), generator=generator)
        self.register_buffer("v", F.normalize(start, dim=0))
        self.register_buffer("u", weight.new_zeros(len(weight)))
        for _ in range(START_ITERATIONS):
            self.iterate(weight)

    def forward(self, weight: Tensor) -> Tensor:
        sigma = (self.u[:, None] * weight.flatten(1) * self.v).sum()  # no product, which autocast would round
        return weight / sigma

    @torch.no_grad()
    def iterate(self, weight: Tensor) -> None:
        """u = W v / |W v|, v = W^T u / |W^T u|: one step of power iteration."""
        weight_OI = weight.flatten(1)
        with torch.autocast(weight.device.type, enabled=False):
            self.u.copy_(F.normalize(weight_OI @ self.v, dim=0))
            self.v.copy_(F.normalize(weight_OI.T @ self.u, dim=0))


def normalise_spectra(module: nn.Module, generator: torch.Generator) -> None:
    """Puts SpectralNorm on every convolution, linear layer and embedding of `module`, whose weights have been drawn."""
    for layer in [layer for layer in module.modules() if isinstance(layer, NORMALISED)]:
        norm = SpectralNorm(layer.weight.detach(), generator)
        parametrize.register_parametrization(layer, "weight", norm)


def advance_spectra(module: nn.Module) -> None:
    """One step of power iteration for every normalised weight of `module`."""
    for part in module.modules():
        if isinstance(part, parametrize.ParametrizationList) and isinstance(norm := part[0], SpectralNorm):
            norm.iterate(part.original)
