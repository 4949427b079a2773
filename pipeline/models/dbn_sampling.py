"""Samples of an RBM by Gibbs sampling, and of a DBN: Gibbs at the top, ancestral below (Hinton, Osindero, Teh 2006).

Chains start in random states unless told where, and what they pass through comes back as a movie.
"""

# F frames, M chains

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.models.dbn import DBN
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_uniform


@dataclass(frozen=True, kw_only=True)
class Chains:
    """How many chains run for how long. One round is v -> h -> v."""

    num_chains: int
    """>= 1."""
    burn_in: int
    """Rounds before the first frame, >= 0; thousands from a random start."""
    num_frames: int = 1
    """States of every chain that are kept, >= 1."""
    thinning: int = 1
    """Rounds between frames, >= 1; neighbouring states of a chain are much alike."""

    def __post_init__(self) -> None:
        for key, least in (("num_chains", 1), ("burn_in", 0), ("num_frames", 1), ("thinning", 1)):
            if getattr(self, key) < least:
                raise ValueError(f"{key} of Gibbs chains must be >= {least}, got {getattr(self, key)}")


@torch.no_grad()
def sample_rbm(
    rbm: RBM, chains: Chains, generator: torch.Generator, *, start: Tensor | None = None, means: bool = False
) -> Tensor:
    """A movie of visible states in the inputs' own units: (num_frames, num_chains, V).

    start: (num_chains, V) states in model units, such as persistent chains; by default random ones.
    means: E[v | h] in place of the draw from it; smoother pictures, but no samples of the model.
    Raises ValueError when `start` does not fit.
    """
    v = _start(rbm, chains, generator) if start is None else _checked_start(rbm, chains, start)
    v = rbm.gibbs(v, chains.burn_in, generator)
    frames = []
    for number in range(chains.num_frames):
        v = v if number == 0 else rbm.gibbs(v, chains.thinning, generator)
        frames.append(_mean_around(rbm, v, generator) if means else v)
    movie = torch.stack(frames)
    return movie * rbm.std + rbm.mean if rbm.visible == "gaussian" else movie


@torch.no_grad()
def sample_dbn(
    dbn: DBN, chains: Chains, generator: torch.Generator, *, start: Tensor | None = None, means: bool = False
) -> Tensor:
    """A movie of images: (num_frames, num_chains, C, height, width).

    The top RBM's chains move on from frame to frame; each frame is then drawn downwards from layer to layer.
    start: (num_chains, V) states of the top RBM's visible units.  means: the images' means given the layer above, in
    place of a draw.  Raises ValueError when `start` does not fit, or a layer is convolutional.
    """
    layers = [layer for layer in dbn.rbms() if isinstance(layer, RBM)]
    if not layers or len(layers) < len(dbn.layers):
        kinds = ", ".join(config.kind for config in dbn.configs) or "none"
        raise ValueError(f"a DBN is sampled through dense layers, got {kinds}: build one of dense layers")
    movie = sample_rbm(layers[-1], chains, generator, start=start, means=means and len(layers) == 1)
    frames = []
    for state in movie:
        for layer in reversed(layers[:-1]):
            bottom = layer is layers[0]
            v = layer.visible_mean(state) if bottom and means else layer.sample_visible(state, generator)
            state = v * layer.std + layer.mean if layer.visible == "gaussian" else v
        frames.append(state.view(-1, *dbn.shapes[0]))
    return torch.stack(frames)


def _mean_around(rbm: RBM, v: Tensor, generator: torch.Generator) -> Tensor:
    """E[v | h] for a draw of h given v."""
    return rbm.visible_mean(rbm.sample_hidden(v, generator))


def _start(rbm: RBM, chains: Chains, generator: torch.Generator) -> Tensor:
    """Hidden units on with probability a half, and visible ones drawn from them."""
    h = sample_uniform(rbm.hidden_bias.expand(chains.num_chains, -1), generator).round()
    return rbm.sample_visible(h, generator)


def _checked_start(rbm: RBM, chains: Chains, start: Tensor) -> Tensor:
    if start.shape != (chains.num_chains, rbm.num_visible):
        raise ValueError(
            f"start must have shape {(chains.num_chains, rbm.num_visible)}, one state a chain, "
            f"got {tuple(start.shape)}: give as many states as num_chains"
        )
    return start.to(rbm.weight)
