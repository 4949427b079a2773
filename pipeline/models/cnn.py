"""Convolutional classifier with the geometry of a DBN: LeCun et al. 1998 with ReLU, or the DBN's own activations.

With activation "probabilistic" and `init_from_dbn`, the features are the DBN's mean-field activations
(tests/test_cnn.py); with "relu" and `init_random` it is the baseline that pretraining has to beat.
"""

# B batch, D features

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.config.pretrain import ConvLayer, Layer
from pipeline.models.conv_rbm import ConvRBM
from pipeline.models.dbn import DBN, layer_configs
from pipeline.models.dropout import drop
from pipeline.models.losses import Batch, Losses, classification_losses
from pipeline.models.pooling import block_softmax, split_blocks
from pipeline.models.standardise import floor_std

Json = Any
ACTIVATIONS = ("relu", "probabilistic")
CHUNK = 256
HEAD_STD = 0.01
PIXEL_STD = 0.3
"""Typical spread of the pixels of an image."""
UNIT_STD = 0.25
"""Typical spread of a hidden unit's probability over random filters."""
INPUT_GAIN = 1.5
"""Wanted spread of a sigmoid's input at the start."""


class ConvNet(nn.Module):
    """conv -> pool -> activation for every conv layer, linear -> activation for every dense one, then a linear head.

    relu: max-pooling, ReLU.  probabilistic: sigmoid(logsumexp over the block), sigmoid.
    Dropout acts before the dense layers at half its rate and before the head at the full one: only in
    `training_losses`, whatever `.training` says, because its draws come from the generator given there.
    All weights are zero until one of the `init_` methods (or load_state_dict).
    """

    feature_mean: Tensor
    feature_std: Tensor

    def __init__(
        self,
        layers: Sequence[Layer],
        image_shape: tuple[int, int, int],
        num_classes: int,
        *,
        activation: str = "relu",
        dropout: float = 0.0,
    ) -> None:
        """Raises ValueError as `build_layer` does where a layer does not fit what is below it."""
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.configs, self.image_shape, self.num_classes = list(layers), image_shape, num_classes
        self.activation, self.dropout = activation, dropout
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        geometry = DBN(layers, image_shape)
        for layer in geometry.rbms():
            shape = layer.weight.shape if isinstance(layer, ConvRBM) else layer.weight.t().shape
            self.weights.append(torch.zeros(shape))
            self.biases.append(torch.zeros(shape[0]))
        num_features = torch.Size(geometry.shapes[-1]).numel()
        self.head_weight = nn.Parameter(torch.zeros(num_classes, num_features))
        self.head_bias = nn.Parameter(torch.zeros(num_classes))
        self.register_buffer("feature_mean", torch.zeros(num_features))
        self.register_buffer("feature_std", torch.ones(num_features))

    # --- starting weights

    @torch.no_grad()
    def init_random(self, generator: torch.Generator) -> None:
        """relu: He et al. 2015.  probabilistic: filters that sum to zero, scaled so that sigmoids start unsaturated."""
        for number, (config, weight, bias) in enumerate(zip(self.configs, self.weights, self.biases, strict=True)):
            fan_in = weight[0].numel()
            weight.normal_(0, 1, generator=generator)
            if self.activation == "relu":
                weight.mul_(math.sqrt(2 / fan_in))
                bias.zero_()
                continue
            # All inputs are positive: without their mean, a filter answers to what varies.
            weight.sub_(weight.mean(tuple(range(1, weight.dim())), keepdim=True))
            weight.mul_(INPUT_GAIN / (PIXEL_STD if number == 0 else UNIT_STD) / math.sqrt(fan_in))
            bias.fill_(-math.log(config.pool_size**2) - INPUT_GAIN**2 / 2 if isinstance(config, ConvLayer) else 0)
        probabilistic = self.activation == "probabilistic"
        self.feature_mean.fill_(0.5 if probabilistic else 0)
        self.feature_std.fill_(UNIT_STD if probabilistic else 1)
        self._init_head(generator)

    @torch.no_grad()
    def init_from_dbn(self, dbn: DBN, images: Tensor, generator: torch.Generator) -> None:
        """Copies filters and biases of a DBN of the same geometry, and measures the features on `images`.

        images: (N, C, height, width) in [0, 1], some hundred or more. The standardisation of Gaussian visible units
        goes into filters and biases. Raises ValueError when the DBN has another geometry.
        """
        shapes = [tuple(weight.shape) for weight in self.weights]
        theirs = [
            tuple(layer.weight.shape if isinstance(layer, ConvRBM) else layer.weight.t().shape) for layer in dbn.rbms()
        ]
        if shapes != theirs or tuple(dbn.shapes[0]) != tuple(self.image_shape):
            raise ValueError(
                f"the DBN's filters {theirs} over {dbn.shapes[0]} don't fit the network's {shapes} over "
                f"{self.image_shape}: pretrain again with the layers of params.yaml"
            )
        for layer, weight, bias in zip(dbn.rbms(), self.weights, self.biases, strict=True):
            filters = layer.weight if isinstance(layer, ConvRBM) else layer.weight.t()
            scale = layer.std.view(-1, 1, 1) if isinstance(layer, ConvRBM) else layer.std
            shift = layer.mean.view(-1, 1, 1) if isinstance(layer, ConvRBM) else layer.mean
            weight.copy_(filters / scale)
            bias.copy_(layer.hidden_bias - (weight * shift).flatten(1).sum(1))
        features = torch.cat([self.features(chunk) for chunk in images.split(CHUNK)])
        self.feature_mean.copy_(features.mean(0))
        self.feature_std.copy_(floor_std(features.std(0)))
        self._init_head(generator)

    def _init_head(self, generator: torch.Generator) -> None:
        self.head_weight.normal_(0, HEAD_STD, generator=generator)
        self.head_bias.zero_()

    # --- the network

    def features(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Activations of the last layer, flattened: (B, C, height, width) in [0, 1] -> (B, D).

        generator: draws dropout before the dense layers; none without it.
        """
        x = images
        for config, weight, bias in zip(self.configs, self.weights, self.biases, strict=True):
            if isinstance(config, ConvLayer):
                x = self._convolve(x, weight, bias, config.pool_size)
            else:
                x = F.linear(drop(x.flatten(1), self.dropout / 2, generator), weight, bias)
                x = F.relu(x) if self.activation == "relu" else torch.sigmoid(x)
        return x.flatten(1)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Logits (B, num_classes); with a generator, under dropout."""
        features = (self.features(images, generator) - self.feature_mean) / self.feature_std
        return F.linear(drop(features, self.dropout, generator), self.head_weight, self.head_bias)

    def predict_log_probabilities(self, images: Tensor) -> Tensor:
        """log P(class | image): (B, C, height, width) in [0, 1] -> (B, num_classes), float32."""
        with torch.no_grad():
            chunks = [F.log_softmax(self(chunk).float(), 1) for chunk in images.split(CHUNK)]
            return torch.cat(chunks)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor, pool_size: int) -> Tensor:
        height, width = ((side - weight.shape[-1] + 1) // pool_size * pool_size for side in x.shape[-2:])
        # Units outside whole blocks don't exist, as in ConvRBM.
        maps = F.conv2d(x, weight, bias)[..., :height, :width]
        if self.activation == "relu":
            return F.relu(F.max_pool2d(maps, pool_size))  # pooled first: fewer elements, the same values
        return block_softmax(split_blocks(maps, pool_size))[1]

    # --- losses

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Cross-entropy over the labelled images of the batch, in nats, under dropout."""
        return classification_losses(self(batch.images, generator), batch.labels)

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        return classification_losses(self(batch.images), batch.labels)

    def to_config(self) -> Json:
        """What `from_config` builds the same network from, as json."""
        return {
            "layers": [asdict(config) for config in self.configs],
            "image_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "activation": self.activation,
            "dropout": self.dropout,
        }

    @classmethod
    def from_config(cls, config: Json) -> Self:
        return cls(
            layer_configs(config["layers"]),
            tuple(config["image_shape"]),
            config["num_classes"],
            activation=config["activation"],
            dropout=config["dropout"],
        )
