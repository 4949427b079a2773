"""Models of normal images as detectors: a score for every image, larger is stranger, and a map of where.

f-AnoGAN: Schlegl et al. 2019; reconstruction probability: An & Cho 2015; free energy: Hinton 2010, sec. 16; distances
to normal images in features: Bergman, Cohen & Hoshen 2020, here of a convolutional RBM of the normal images alone.
"""

# B batch, C channels, H height = width, N normal images, D features, P principal components

from collections.abc import Mapping
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.models.anogan import LatentEncoder
from pipeline.models.dbn import DBN
from pipeline.models.losses import UNLABELLED
from pipeline.models.vae import ConditionalVAE
from pipeline.models.vae_scores import draw_noise, reconstruction_and_kl

COMPONENTS, WHITENING = 120, 0.5
"""Principal components that distances are measured in, each over its standard deviation ** whitening: the values with
which these features spread labels (docs/LOG.md, few labels)."""


class Detector(Protocol):
    """score_names: what it has to say of an image."""

    score_names: tuple[str, ...]
    image_shape: tuple[int, ...]

    def scores(self, images: Tensor) -> list[Tensor]:
        """(B, C, H, H) in [0, 1] -> (B,) for each of the names."""
        ...

    def maps(self, images: Tensor) -> Tensor | None:
        """Where the image is strange, (B, H, H), >= 0; None if the detector cannot say."""
        ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def to_config(self) -> dict[str, Any]: ...


class VaeDetector(nn.Module):
    """Minus the ELBO, and minus the logarithm of the reconstruction probability."""

    score_names: tuple[str, ...] = ("vae_elbo", "vae_reconstruction")

    def __init__(self, vae: ConditionalVAE, num_samples: int) -> None:
        super().__init__()
        self.vae, self.num_samples = vae, num_samples
        self.image_shape: tuple[int, ...] = vae.image_shape

    @torch.no_grad()
    def scores(self, images: Tensor) -> list[Tensor]:
        """In nats."""
        noise_LZ = draw_noise(self.num_samples, self.vae.config.latent_dim)
        reconstruction, kl = reconstruction_and_kl(self.vae, images, _none(images), noise_LZ)
        return [kl - reconstruction, -reconstruction]

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        return _difference(images, self.vae.reconstruct(images, _none(images)))

    def to_config(self) -> dict[str, Any]:
        return {"vae": self.vae.to_config(), "num_samples": self.num_samples}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(ConditionalVAE.from_config(config["vae"]), config["num_samples"])


class AnoganDetector(nn.Module):
    """f-AnoGAN's A(x)."""

    score_names: tuple[str, ...] = ("f_anogan",)

    def __init__(self, encoder: LatentEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_shape: tuple[int, ...] = encoder.gan.image_shape

    def scores(self, images: Tensor) -> list[Tensor]:
        return [self.encoder.scores(images)]

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        return _difference(images, self.encoder.reconstruct(images))

    def to_config(self) -> dict[str, Any]:
        return self.encoder.to_config()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(LatentEncoder.from_config(config))


class RbmDetector(nn.Module):
    """F(v) of a dense RBM of the pixels."""

    score_names: tuple[str, ...] = ("rbm_free_energy",)

    def __init__(self, dbn: DBN) -> None:
        super().__init__()
        self.dbn = dbn
        self.image_shape: tuple[int, ...] = dbn.shapes[0]

    @torch.no_grad()
    def scores(self, images: Tensor) -> list[Tensor]:
        """In nats."""
        (rbm,) = self.dbn.rbms()
        return [rbm.free_energy(rbm.standardise(images))]

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        return _difference(images, self.dbn.reconstruct(images))

    def to_config(self) -> dict[str, Any]:
        return {"dbn": self.dbn.to_config()}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(DBN.from_config(config["dbn"]))


class NeighbourDetector(nn.Module):
    """Mean distance to the nearest normal images, in principal components of a convolutional RBM's pooled features.

    num_normal, num_components: sizes of what `remember` keeps, which load_state_dict fills as well.
    """

    score_names: tuple[str, ...] = ("conv_rbm_neighbours",)
    mean: Tensor
    axes: Tensor
    bank: Tensor

    def __init__(self, dbn: DBN, num_neighbours: int, *, num_normal: int = 0, num_components: int = 0) -> None:
        super().__init__()
        self.dbn, self.num_neighbours = dbn, num_neighbours
        self.image_shape: tuple[int, ...] = dbn.shapes[0]
        num_features = pooled_features(dbn, torch.zeros(1, *dbn.shapes[0])).shape[1]
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("axes", torch.zeros(num_features, num_components))
        self.register_buffer("bank", torch.zeros(num_normal, num_components))

    @torch.no_grad()
    def remember(self, features_ND: Tensor) -> None:
        """Fits the axes to the normal images' features and keeps their coordinates."""
        self.mean = features_ND.mean(0)
        centred = (features_ND - self.mean).double()
        variances, vectors = torch.linalg.eigh(centred.T @ centred / max(len(centred) - 1, 1))
        count = min(COMPONENTS, int((variances > 1e-9 * variances[-1]).sum()))
        axes_DP = vectors[:, -count:] / variances[-count:] ** (WHITENING / 2)
        self.axes = axes_DP.float()
        self.bank = (centred @ axes_DP).float()

    @torch.no_grad()
    def scores(self, images: Tensor) -> list[Tensor]:
        rows_BP = (pooled_features(self.dbn, images) - self.mean) @ self.axes
        return [neighbour_distance(rows_BP, self.bank, self.num_neighbours)]

    def maps(self, images: Tensor) -> None:  # noqa: ARG002
        return None

    def to_config(self) -> dict[str, Any]:
        sizes = {"num_normal": self.bank.shape[0], "num_components": self.bank.shape[1]}
        return {"dbn": self.dbn.to_config(), "num_neighbours": self.num_neighbours, **sizes}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        return cls(DBN.from_config(config["dbn"]), **{key: config[key] for key in config if key != "dbn"})


DETECTORS: dict[str, Any] = {
    "vae": VaeDetector,
    "f_anogan": AnoganDetector,
    "rbm": RbmDetector,
    "conv_rbm": NeighbourDetector,
}


@torch.no_grad()
def pooled_features(dbn: DBN, images: Tensor) -> Tensor:
    """The first layer's probabilities averaged over 3 x 3 pooling units, 2 apart; their square roots, at length 1.

    Averages forgive small shifts; square roots let rare units count. (B, C, H, H) -> (B, D).
    """
    pooled = F.avg_pool2d(dbn.mean_field(images, 1), 3, 2).sqrt()
    return F.normalize(pooled.flatten(1))


def neighbour_distance(rows_BD: Tensor, bank_ND: Tensor, k: int) -> Tensor:
    """Mean Euclidean distance to the k nearest rows of the bank, to all of them where there are fewer: (B,)."""
    distance_BN = torch.cdist(rows_BD, bank_ND)
    return distance_BN.topk(min(k, len(bank_ND)), largest=False).values.mean(1)


def _difference(images: Tensor, made: Tensor) -> Tensor:
    """|x - made|, the mean over channels: (B, H, H)."""
    return (images - made.view_as(images)).abs().mean(1)


def _none(images: Tensor) -> Tensor:
    return torch.full((len(images),), UNLABELLED)
