"""Small fits of all four models, in this process or as one of several workers.

`python -m tests.worker_fits <rank> <size> <folder>` writes what rank 0 got to <folder>/fits.pt.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pipeline.config.generators import Vae
from pipeline.config.pretrain import ConvLayer, DenseLayer, Layer
from pipeline.data.transforms import affine_elastic
from pipeline.models.cnn import ConvNet
from pipeline.models.dbn import DBN, GreedyLayer
from pipeline.models.gan import ConditionalGAN
from pipeline.models.vae import ConditionalVAE
from pipeline.seeding import make_generator
from pipeline.training.fit import OnEpoch, fit
from pipeline.training.plan import Epoch, FitPlan
from pipeline.training.stream import BatchStream, MixedStream, Stream, in_batches
from pipeline.training.workers import Host, current_shard, hosted
from tests.classifier_data import COMMON
from tests.gan_models import SMALL

BATCH = 96
"""More than a block of noise rows, so that the block is shared by two workers."""
SHAPE = (1, 28, 28)
LAYER: dict[str, Any] = COMMON | {"sparsity_cost": 1.0}
CONV = ConvLayer(kind="conv", below="prepare", num_filters=4, kernel_size=5, pool_size=2, persistent=False, **LAYER)
PERSISTENT_CONV = replace(CONV, persistent=True, gibbs_steps=2, batch_size=BATCH)
DENSE = DenseLayer(
    kind="dense",
    below="prepare",
    num_hidden=8,
    hidden="bernoulli",
    persistent=True,
    num_temperatures=1,
    centred=False,
    **(LAYER | {"batch_size": BATCH}),
)
RBM_LAYERS: dict[str, Layer] = {
    "conv rbm": CONV,
    "persistent conv rbm": PERSISTENT_CONV,
    "dense rbm": DENSE,
    "tempered, centred rbm": replace(DENSE, num_temperatures=4, centred=True),
}
COMMON_GENERATOR: dict[str, Any] = {"latent_dim": 4, "width": 4, "steps": 1, "batch_size": BATCH, "lr": 0.002}
GANS: dict[str, dict[str, Any]] = {
    "gan": {"r1_every": 2, "augmentation": "diffaugment"},
    "adaptive, spectral gan": {
        "spectral_norm": True,
        "augmentation": "adaptive",
        "ada_target": 0.0,
        "ada_images": 1000,
        "discriminator_steps": 2,
        "r1_weight": 0.0,
        "gradient_penalty": 1.0,
    },
}


def make_images(count: int = 192) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % 2
    images = torch.randint(0, 120, (count, *SHAPE), generator=make_generator(0, "images"), dtype=torch.uint8)
    images[labels == 0, :, :14] += 100
    return images, labels


def make_stream(augmented: bool = False) -> Stream:
    images, labels = make_images()
    if not augmented:
        return BatchStream(images, labels, batch_size=BATCH, seed=5)
    real = BatchStream(images, labels, batch_size=72, seed=5, transform=affine_elastic)
    return MixedStream(real, BatchStream(images, labels, batch_size=24, seed=6))


def make_plan(**changes: Any) -> FitPlan:
    return FitPlan(**{"steps": 6, "steps_per_epoch": 2, "lr": 0.003, "seed": 3, **changes})


def make_model(name: str) -> nn.Module:
    weights = make_generator(0, "weights")
    if name == "classifier":
        model = ConvNet([CONV], SHAPE, 2, dropout=0.5)
        model.init_random(weights)
        return model
    if name == "vae":
        vae = Vae(**COMMON_GENERATOR, likelihood="bernoulli", beta=1.0, free_bits=0.0, iw_samples=1, warmup_steps=0)
        return ConditionalVAE(SHAPE, 2, config=vae, generator=weights)
    if name in GANS:
        gan = replace(SMALL, **COMMON_GENERATOR, **GANS[name])
        return ConditionalGAN(SHAPE, 2, config=gan, generator=weights)
    layer = GreedyLayer(DBN([RBM_LAYERS[name]], SHAPE))
    layer.initialise(in_batches(*make_images(), 192)[0], weights)
    return layer


MODELS = ("classifier", "vae", *GANS, *RBM_LAYERS)


def fit_model(
    name: str, checkpoint: Path | None = None, on_epoch: OnEpoch | None = None, num_validation: int = 80, **plan: Any
) -> tuple[list[Epoch], dict[str, Tensor]]:
    model, validation = make_model(name), in_batches(*make_images(num_validation), 32)
    plan = {"optimizer": "sgd", "momentum": 0.5, **plan} if "rbm" in name else plan
    stream = make_stream(augmented=name == "classifier")
    history = fit(model, stream, make_plan(**plan), validation=validation, checkpoint=checkpoint, on_epoch=on_epoch)
    return history, model.state_dict()


def fit_all(folder: Path) -> dict[str, Any]:
    """Each model's history and weights; and the dense RBM's when a fit that is stopped after one epoch goes on;
    and the VAE's with a single batch to validate on."""
    fits: dict[str, Any] = {name: fit_model(name) for name in MODELS}
    fits["resumed"] = fit_resumed(folder)
    fits["one batch"] = fit_model("vae", num_validation=20)
    return fits


def fit_resumed(folder: Path) -> tuple[list[Epoch], dict[str, Tensor]]:
    saves = 0

    def stop() -> None:
        nonlocal saves
        saves += 1
        if saves == 1:
            raise InterruptedError

    with hosted(Host(folder / "fit.ckpt", stop)):
        try:
            fit_model("dense rbm")
        except InterruptedError:
            if current_shard().size > 1:
                distributed.barrier()
            return fit_model("dense rbm")
    raise AssertionError("the fit was not stopped")


if __name__ == "__main__":
    torch.set_num_threads(1)
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    results = fit_all(folder)
    if rank == 0:
        torch.save(results, folder / "fits.pt")
    distributed.destroy_process_group()
