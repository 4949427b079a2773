"""A movie of the Gibbs chains of a DBN's top RBM in pixels, from images and from noise: what the model believes in.

Chains that leave the images they start from for something unlike them, or that end in noise, show a model that its
reconstructions flatter. For stacks with convolutional layers too, which `sample_dbn` does not take.
"""

# F frames, M chains, S units of a block

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.dbn import DBN
from pipeline.models.sampling import sample_bernoulli, sample_gaussian


@torch.no_grad()
def film_chains(dbn: DBN, images: Tensor, rounds: Sequence[int], generator: torch.Generator) -> Tensor:
    """Means of the images along the chains: (F, 2 M, C, height, width) in [0, 1].

    images: (M, C, height, width) in [0, 1], where the first M chains start; the others start in noise.
    rounds: of v -> h -> v, after which a frame is taken; rising, from 0 on, which is the start itself.
    """
    top, depth = dbn.rbms()[-1], len(dbn.layers) - 1
    v = top.standardise(dbn.mean_field(images, depth))
    if top.visible == "bernoulli":
        v = sample_bernoulli(torch.cat([v, torch.full_like(v, 0.5)]), generator)
    else:
        v = torch.cat([v, sample_gaussian(torch.zeros_like(v), generator)])
    frames = [_descend(dbn, _in_input_units(dbn, v), generator)]
    for before, now in pairwise(rounds):
        v = top.gibbs(v, now - before - 1, generator)
        h = top.sample_hidden(v, generator)
        frames.append(_descend(dbn, top.decode(h), generator))
        v = top.sample_visible(h, generator)
    return torch.stack(frames)


def _in_input_units(dbn: DBN, v: Tensor) -> Tensor:
    top = dbn.rbms()[-1]
    if top.visible == "bernoulli":
        return v
    shape = (-1, 1, 1) if isinstance(top, ConvRBM) else (-1,)
    return v * top.std.view(shape) + top.mean.view(shape)


def _descend(dbn: DBN, x: Tensor, generator: torch.Generator) -> Tensor:
    """Images given values of what the top RBM sees: hidden states are drawn from them, layer by layer downwards.

    A pooling unit that is on is spread evenly over its block: no image from below says which unit it was.
    """
    depth = len(dbn.layers) - 1
    for layer, shape in reversed(list(zip(dbn.rbms(depth), dbn.shapes[1:], strict=False))):
        h = sample_bernoulli(x.clamp(0, 1), generator).view(-1, *shape)
        if isinstance(layer, ConvRBM):
            units = layer.pool_size**2
            h = (h / units)[:, None].expand(-1, units, -1, -1, -1)
        x = layer.decode(h)
    return x.reshape(-1, *dbn.shapes[0]).clamp(0, 1)
