"""A DBN's dense layers as maps of a feed-forward network: Hinton & Salakhutdinov 2006 (fig. 1, "unrolling").

Standardisation and learned variances of the inputs are folded in. tests/test_unrolling.py holds the networks that start
from it against `DBN.mean_field` and the layers' `decode`.
"""

# V visible units, H hidden units

import torch

from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.dbn import DBN
from pipeline.models.dense_stack import DenseStack, Map
from pipeline.models.rbm import RBM
from pipeline.models.vae import ConditionalVAE


def dense_layers(dbn: DBN) -> list[RBM]:
    """All layers, bottom first.  Raises ValueError when one of them is convolutional."""
    layers = dbn.rbms()
    for number, layer in enumerate(layers, start=1):
        if isinstance(layer, ConvRBM):
            raise ValueError(
                f"a dense network starts from a DBN of dense layers alone, got a conv one as layer {number}: "
                "pretrain with kind dense, or initialise a ConvNet"
            )
    return [layer for layer in layers if isinstance(layer, RBM)]


@torch.no_grad()
def upward_maps(dbn: DBN) -> list[Map]:
    """Of each layer's inputs, in their own units, to its `hidden_inputs`: bottom first."""
    maps = []
    for layer in dense_layers(dbn):
        per_input = layer.statistic(1 / layer.std)
        weight = (layer.weight * per_input[:, None]).t()
        maps.append((weight, layer.hidden_bias - weight @ layer.mean))
    return maps


@torch.no_grad()
def downward_maps(dbn: DBN) -> list[Map]:
    """Of each layer's hidden states to the logits of what is below it: the transposed weights, top first.

    Raises ValueError when a layer's visible units are not Bernoulli ones.
    """
    maps: list[Map] = []
    for number, layer in enumerate(dense_layers(dbn), start=1):
        if layer.visible != "bernoulli":
            raise ValueError(
                f"an autoencoder's outputs are logistic: the visible units of layer {number} must be bernoulli, got "
                f"{layer.visible}; scale the data to [0, 1] and pretrain with visible bernoulli"
            )
        maps.append((layer.weight, layer.visible_bias))
    return maps[::-1]


def init_encoder_from_dbn(vae: ConditionalVAE, dbn: DBN) -> None:
    """Makes the dense encoder of a VAE compute `dbn.mean_field`; what follows it keeps its random weights.

    Raises ValueError unless the VAE has `hidden_sizes`, those of the DBN's Bernoulli hidden layers.
    """
    if not isinstance(vae.encoder, DenseStack):
        raise ValueError("a convolutional encoder can't start from dense layers: give the VAE the DBN's hidden_sizes")
    require_logistic(dense_layers(dbn))
    vae.encoder.load_maps(upward_maps(dbn))


def require_logistic(layers: list[RBM]) -> None:
    """Raises ValueError where the hidden units of a layer are not Bernoulli ones."""
    for number, layer in enumerate(layers, start=1):
        if layer.hidden != "bernoulli":
            raise ValueError(
                f"the network's units are logistic: the hidden units of layer {number} must be bernoulli, got "
                f"{layer.hidden}; pretrain it with hidden bernoulli"
            )
