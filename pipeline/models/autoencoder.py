"""Deep autoencoder unrolled from a DBN: Hinton & Salakhutdinov 2006, Reducing the dimensionality of data.

784-1000-500-250-30 on MNIST: a squared error of 3.00 an image there, 13.87 for 30 principal components.
`python -m benchmarks.published_rbm --rows codes`.
"""

# B batch, V inputs, K units of the code

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.models.dbn import DBN
from pipeline.models.dense_stack import DenseStack, count_nats
from pipeline.models.losses import Batch, Losses
from pipeline.models.precision import widen
from pipeline.models.unrolling import dense_layers, downward_maps, require_logistic, upward_maps

LOSSES = ("cross_entropy", "squared_error")


class DeepAutoencoder(nn.Module):
    """Logistic units, a linear code layer, and a decoder of the mirrored sizes with weights of its own.

    sizes: V, the hidden layers, K.  loss: cross_entropy (that of the paper) or squared_error, what is minimised.
    All weights are zero until one of the `init_` methods (or load_state_dict).
    """

    def __init__(self, sizes: Sequence[int], *, loss: str = "cross_entropy") -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss of an autoencoder must be one of {', '.join(LOSSES)}, got {loss!r}")
        self.sizes, self.loss = list(sizes), loss
        self.encoder = DenseStack(sizes, linear_top=True)
        self.decoder = DenseStack(self.sizes[::-1], linear_top=True)

    def init_random(self, generator: torch.Generator) -> None:
        self.encoder.init_random(generator)
        self.decoder.init_random(generator)

    def init_from_dbn(self, dbn: DBN) -> None:
        """Encoder = the way up, `mean_field`; decoder = the way down, `decode`, with a copy of the same weights.

        Raises ValueError unless the DBN has these sizes, Bernoulli units and a top of gaussian hidden ones.
        """
        *lower, top = dense_layers(dbn)
        require_logistic(lower)
        if top.hidden != "gaussian":
            raise ValueError(
                f"the code layer is linear: the top layer's hidden units must be gaussian, got {top.hidden}; "
                "pretrain it with hidden gaussian"
            )
        downward = downward_maps(dbn)
        self.encoder.load_maps(upward_maps(dbn))
        self.decoder.load_maps(downward)

    def encode(self, images: Tensor) -> Tensor:
        """Codes: (B, ...) in [0, 1] -> (B, K)."""
        codes: Tensor = self.encoder(images)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Pixel means: (B, K) -> (B, V) in [0, 1]."""
        return torch.sigmoid(widen(self.decoder(codes)))

    @torch.no_grad()
    def squared_error(self, images: Tensor) -> Tensor:
        """Of the reconstruction, summed over pixels: (B, ...) -> (B,)."""
        return (self.decode(self.encode(images)) - images.flatten(1)).square().sum(1)

    def training_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:  # noqa: ARG002
        """Parts, means over images: cross_entropy of the pixels (nats), squared_error (summed over pixels)."""
        x = batch.images.flatten(1)
        logits = self.decoder(self.encoder(x))
        parts = {
            "cross_entropy": count_nats(logits, x).mean(),
            "squared_error": (torch.sigmoid(widen(logits)) - x).square().sum(1).mean(),
        }
        return Losses(parts[self.loss], {name: part.detach() for name, part in parts.items()})

    @torch.no_grad()
    def validation_losses(self, batch: Batch, step: int, generator: torch.Generator) -> Losses:
        return self.training_losses(batch, step, generator)

    def to_config(self) -> dict[str, Any]:
        """What `from_config` builds the same network from, as json."""
        return {"sizes": self.sizes, "loss": self.loss}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(config["sizes"], loss=config["loss"])
