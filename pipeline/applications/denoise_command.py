"""`python -m stages.denoise --in folder --out folder`: pngs through a trained denoiser."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline import paths
from pipeline.data.picture_files import list_pngs, read_png
from pipeline.data.pictures import write_png
from pipeline.models.denoiser import Denoiser
from pipeline.models.pictures import to_uint8
from pipeline.seeding import make_generator
from pipeline.training.stream import as_tensor
from pipeline.weights import load_weights

DENOISER_FILE = paths.application("denoise") / "denoiser.safetensors"
BLOCK = 256
"""Images at a time."""


@dataclass(frozen=True)
class Command:
    folder: Path
    out: Path
    model: Path
    samples: int
    seed: int


def parse_command(words: Sequence[str]) -> Command:
    """Raises ValueError for values that make no sense; exits on a misspelt option."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.denoise",
        description="Takes noise away from pngs of the size that the model knows. Without options: the DVC stage.",
    )
    parser.add_argument("--in", dest="folder", type=Path, required=True, help="folder with noisy pngs")
    parser.add_argument("--out", type=Path, required=True, help="folder for the clean ones, under the same names")
    parser.add_argument("--model", type=Path, default=DENOISER_FILE, help="a denoiser in another .safetensors")
    parser.add_argument("--samples", type=int, default=20, help="draws that an answer is the mean of")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds, equal pictures")
    command = Command(**vars(parser.parse_args(words)))
    if command.samples < 1:
        raise ValueError(f"--samples must be >= 1, got {command.samples}: raise it")
    if command.folder.resolve() == command.out.resolve():
        raise ValueError(f"--out {command.out} is the folder of the noisy pngs, which would be lost: give another one")
    return command


def denoise_folder(command: Command) -> str:
    """Writes a clean png for every noisy one; what was done, in a line.

    All of them are read before the first is written.  Raises ValueError when there is none, and for one that is not of
    the model's shape, by name.
    """
    model = load_denoiser(command.model)
    files = list_pngs(command.folder)
    images = torch.stack([as_tensor(read_png(file, model.image_shape, command.model)) for file in files])
    generator = make_generator(command.seed, "denoise", "command")
    for first in range(0, len(files), BLOCK):
        block = images[first : first + BLOCK].float() / 255
        restored = to_uint8(model.denoise(block, command.samples, generator))
        for file, picture in zip(files[first : first + BLOCK], restored, strict=True):
            write_png(command.out / file.name, picture.transpose(1, 2, 0))
    return f"{command.out}: {len(files)} images denoised by {command.model}"


def load_denoiser(path: Path) -> Denoiser:
    state, config = load_weights(path, kind="denoiser")
    model = Denoiser.from_config(config)
    model.load_state_dict(state)
    return model.eval()
