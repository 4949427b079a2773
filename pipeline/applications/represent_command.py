"""`python -m stages.represent --in folder --out codes.csv`: pngs to codes by a trained VAE."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import paths
from pipeline.applications.represent_fit import encode_images
from pipeline.artifacts import write_table
from pipeline.data.picture_files import list_pngs, read_png
from pipeline.models.dense_vae import DenseVAE
from pipeline.models.mixture_vae import MixtureVAE
from pipeline.weights import load_weights, save_weights

VAE_FILE = paths.application("represent") / "vae.safetensors"
PRIORS: dict[str, type[DenseVAE]] = {"standard": DenseVAE, "mixture": MixtureVAE}


@dataclass(frozen=True)
class Command:
    folder: Path
    out: Path
    model: Path


def parse_command(words: Sequence[str]) -> Command:
    """Exits on a misspelt option."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.represent",
        description="Writes the codes of pngs of the size that the model knows. Without options: the DVC stage.",
    )
    parser.add_argument("--in", dest="folder", type=Path, required=True, help="folder with pngs")
    parser.add_argument("--out", type=Path, required=True, help="csv: a png a line, with its codes")
    parser.add_argument("--model", type=Path, default=VAE_FILE, help="a VAE in another .safetensors")
    return Command(**vars(parser.parse_args(words)))


def represent_folder(command: Command) -> str:
    """Writes the table; what was done, in a line.  Raises ValueError for a png not of the model's shape, by name."""
    model = load_vae(command.model)
    files = list_pngs(command.folder)
    codes = encode_images(model, np.stack([read_png(file, model.image_shape, command.model) for file in files]))
    rows = [
        {"file": file.name, **{f"z{place}": float(value) for place, value in enumerate(code)}}
        for file, code in zip(files, codes, strict=True)
    ]
    write_table(command.out, rows)
    return f"{command.out}: {len(files)} images as {model.latent_dim} numbers each, by {command.model}"


def save_vae(path: Path, model: DenseVAE) -> None:
    config = model.to_config() | {"prior": "mixture" if isinstance(model, MixtureVAE) else "standard"}
    save_weights(path, model.state_dict(), kind="dense_vae", config=config)


def load_vae(path: Path) -> DenseVAE:
    """Of either prior. Raises ValueError as `load_weights` does."""
    state, config = load_weights(path, kind="dense_vae")
    kind = PRIORS[config.pop("prior")]
    model = kind.from_config(config)
    model.load_state_dict(state)
    return model.eval()
