"""Deep belief network, trained greedily: Hinton, Osindero, Teh 2006; with convolutional layers Lee et al. 2009.

Every layer is an RBM over the mean-field activations of the layer below: pooled probabilities go up.
"""

# B batch, C channels, S units of a block

from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.pretrain import ConvLayer, DenseLayer, Layer
from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.losses import Batch, Losses
from pipeline.models.pooling import block_softmax
from pipeline.models.rbm import RBM
from pipeline.models.sampling import sample_bernoulli

Json = Any


def build_layer(config: Layer, input_shape: tuple[int, ...], key: str = "pretrain.layers.*") -> ConvRBM | RBM:
    """The RBM of one layer over inputs of `input_shape`: (C, height, width), or (V,) above a dense layer.

    `key` names the layer in errors. Raises ValueError when the layer does not fit what is below it.
    """
    if isinstance(config, DenseLayer):
        return RBM(
            torch.Size(input_shape).numel(),
            config.num_hidden,
            visible=config.visible,
            hidden=config.hidden,
            gibbs_steps=config.gibbs_steps,
            num_chains=config.batch_size if config.persistent else 0,
            num_temperatures=config.num_temperatures,
            centred=config.centred,
            sparsity_target=config.sparsity_target,
            sparsity_cost=config.sparsity_cost,
        )
    _check_conv(config, input_shape, key)
    return ConvRBM(
        cast(tuple[int, int, int], input_shape),
        config.num_filters,
        config.kernel_size,
        pool_size=config.pool_size,
        visible=config.visible,
        gibbs_steps=config.gibbs_steps,
        num_chains=config.batch_size if config.persistent else 0,
        sparsity_target=config.sparsity_target,
        sparsity_cost=config.sparsity_cost,
    )


def _check_conv(config: ConvLayer, input_shape: tuple[int, ...], key: str) -> None:
    if len(input_shape) != 3:
        raise ValueError(
            f"{key}.kind must be dense, got conv: {config.below} gives {input_shape[0]} units without a place; "
            "put conv layers below the dense ones in params.yaml"
        )
    _, height, width = input_shape
    needed = config.kernel_size + config.pool_size - 1
    if needed > min(height, width):
        raise ValueError(
            f"{key}.kernel_size must be <= {min(height, width) - config.pool_size + 1}, to leave room for one pooling "
            f"block of {config.pool_size} in the {height}x{width} maps of {config.below}, got {config.kernel_size}: "
            "make it or pool_size smaller, here or in the layers below, in params.yaml"
        )
    most = 1 / config.pool_size**2
    if config.sparsity_cost > 0 and config.sparsity_target >= most:
        raise ValueError(
            f"{key}.sparsity_target must be < {most:.4g}, the share of units that can be on at once with pool_size "
            f"{config.pool_size}, got {config.sparsity_target}: set it in params.yaml"
        )


class DBN(nn.Module):
    """A stack of RBMs; `shapes[i]` is what `layers[i]` sees, `shapes[-1]` what the top gives."""

    def __init__(self, configs: Sequence[Layer], image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.configs = list(configs)
        self.shapes: list[tuple[int, ...]] = [image_shape]
        self.layers = nn.ModuleList()
        for number, config in enumerate(configs, start=1):
            if isinstance(config, DenseLayer) and config.hidden != "bernoulli" and number < len(configs):
                raise ValueError(
                    f"pretrain.layers (layer {number}, fed by {config.below}).hidden must be bernoulli below another "
                    f"layer, which takes values in [0, 1], got {config.hidden}: set it in params.yaml"
                )
            layer = build_layer(config, self.shapes[-1], f"pretrain.layers (layer {number}, fed by {config.below})")
            self.layers.append(layer)
            self.shapes.append(layer.output_shape)

    def rbms(self, depth: int | None = None) -> list[ConvRBM | RBM]:
        """The lowest `depth` layers, all without it."""
        return [cast(ConvRBM | RBM, layer) for layer in self.layers][:depth]

    def extended(self, config: Layer) -> "DBN":
        """A copy with one layer more, whose weights are zero."""
        higher = DBN([*self.configs, config], cast(tuple[int, int, int], self.shapes[0]))
        higher.layers[: len(self.layers)].load_state_dict(self.layers.state_dict())
        return higher

    def mean_field(self, images: Tensor, depth: int | None = None) -> Tensor:
        """Activations of layer `depth`, the top one without it: images in [0, 1] -> (B, *shapes[depth])."""
        x = images
        for layer in self.rbms(depth):
            x = layer.encode(x)
        return x

    def reconstruct(self, images: Tensor, depth: int | None = None) -> Tensor:
        """Images (B, C, height, width) in [0, 1], sent up `depth` layers and down again by mean field.

        On the way down a pooling unit's probability is shared out over its block as the bottom-up softmax says.
        """
        layers, x = self.rbms(depth), images
        shares: list[Tensor | None] = []
        for layer in layers:
            if isinstance(layer, ConvRBM):
                inputs = layer.detection_inputs(layer.standardise(x))
                shares.append(torch.softmax(inputs, 1))
                x = block_softmax(inputs)[1]
            else:
                shares.append(None)
                x = layer.encode(x)
        for layer, share, shape in reversed(list(zip(layers, shares, self.shapes, strict=False))):
            hidden = x if share is None else x.view(-1, *layer.output_shape)[:, None] * share
            x = layer.decode(hidden).view(-1, *shape).clamp(0, 1)
        return x

    @torch.no_grad()
    def filter_images(self, depth: int | None = None) -> Tensor:
        """What each unit (filter) of layer `depth` looks for: (N, C, h, w), any sign, projected linearly to pixels.

        A pooling unit of a lower layer is spread evenly over its block, so pictures grow with depth.
        """
        layers = self.rbms(depth)
        top, below = layers[-1], layers[:-1]
        pictures = top.weight if isinstance(top, ConvRBM) else top.weight.t()
        pictures = _in_input_units(top, pictures).reshape(len(pictures), *self._patch_shape(top, len(below)))
        for number, layer in reversed(list(enumerate(below))):
            if isinstance(layer, ConvRBM):
                spread = F.interpolate(pictures, scale_factor=layer.pool_size) / layer.pool_size**2
                pictures = _in_input_units(layer, F.conv_transpose2d(spread, layer.weight))
            else:
                pictures = _in_input_units(layer, pictures @ layer.weight.t()).view(-1, *self.shapes[number])
        return pictures

    def to_config(self) -> Json:
        """What `from_config` builds the same network from, as json."""
        return {"image_shape": list(self.shapes[0]), "layers": [asdict(config) for config in self.configs]}

    @classmethod
    def from_config(cls, config: Json) -> Self:
        return cls(layer_configs(config["layers"]), tuple(config["image_shape"]))

    def _patch_shape(self, layer: ConvRBM | RBM, index: int) -> tuple[int, ...]:
        return tuple(layer.weight.shape[1:]) if isinstance(layer, ConvRBM) else self.shapes[index]


class GreedyLayer(nn.Module):
    """The top layer of a DBN in training, over the frozen layers below it; takes raw image batches.

    sampled: every layer with Bernoulli visible units gets a fresh draw of its inputs at each step, in place of their
    probabilities. At the bottom that is dynamic binarisation of the images (Salakhutdinov & Murray 2008), and what a
    likelihood of binary images has to be trained on.
    """

    def __init__(self, dbn: DBN, *, sampled: bool = False) -> None:
        super().__init__()
        self.dbn, self.sampled = dbn, sampled
        self.depth = len(dbn.layers) - 1
        dbn.layers[: self.depth].requires_grad_(False)

    @property
    def top(self) -> ConvRBM | RBM:
        return self.dbn.rbms()[-1]

    def initialise(self, batch: Batch, generator: torch.Generator) -> None:
        """Starting weights and data statistics of the top layer, from some hundred images."""
        self.top.initialise(self._inputs(batch), generator)

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return self.top.training_losses(self._inputs(batch, generator), step, generator)

    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return self.top.validation_losses(self._inputs(batch, generator), step, generator)

    @torch.no_grad()
    def _inputs(self, batch: Batch, generator: torch.Generator | None = None) -> Batch:
        """What the top layer sees; drawn when the layer is `sampled` and there is a generator to draw from."""
        if generator is None or not self.sampled:
            return Batch(self.dbn.mean_field(batch.images, self.depth), batch.labels)
        x = _draw_inputs(self.dbn.rbms()[0], batch.images, generator)
        for layer, above in pairwise(self.dbn.rbms()):
            x = _draw_inputs(above, layer.encode(x), generator)
        return Batch(x, batch.labels)


def _draw_inputs(layer: ConvRBM | RBM, probabilities: Tensor, generator: torch.Generator) -> Tensor:
    return sample_bernoulli(probabilities, generator) if layer.visible == "bernoulli" else probabilities


def layer_configs(items: Sequence[dict[str, Any]]) -> list[Layer]:
    """The sections that `asdict` turned into json; keys that came later have the value of the time before."""
    before: dict[str, Any] = {"schedule": "linear_tail", "persistent": False}
    return [(ConvLayer if item["kind"] == "conv" else DenseLayer)(**before | item) for item in items]


def _in_input_units(layer: ConvRBM | RBM, pictures: Tensor) -> Tensor:
    """Pictures in a layer's model units, in the units of its inputs but for the offset."""
    return pictures * (layer.std.view(-1, 1, 1) if isinstance(layer, ConvRBM) else layer.std)
