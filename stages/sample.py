"""Pictures of a trained model, by hand, outside DVC: `python -m stages.sample --model gan --out grid.png`."""

import sys
from pathlib import Path

import numpy as np
import torch

from pipeline import paths
from pipeline.command import run_command
from pipeline.config.load import Params, load_params
from pipeline.config.monitor import Monitor
from pipeline.config.run import Run
from pipeline.data.arrays import Images, Labels
from pipeline.data.pictures import image_grid, write_png
from pipeline.data.prepared import Prepared, load_prepared
from pipeline.device import set_threads
from pipeline.models.vae import ConditionalVAE
from pipeline.seeding import make_generator
from pipeline.training.generators import load_generator
from pipeline.training.picture_rows import chain_rows, interpolation_rows, pad_rows, reconstruction_rows, sample_rows
from pipeline.training.sample_command import Command, deal_labels, find_model, parse_command
from pipeline.training.stored import load_dbn
from pipeline.weights import load_weights

MAGNIFY = 2


def make_rows(command: Command, params: Params, prepared: Prepared) -> list[Images]:
    """Rows of the grid. Raises ValueError when the model is not one of the prepared images and classes."""
    labels = deal_labels(command, prepared.class_names)
    path, generator = find_model(command, params.layers), make_generator(command.seed, "sample")
    if command.mode == "chains":
        dbn = load_dbn(path.parent)
        require_equal(path, "image shape", dbn.shapes[0], prepared.image_shape)
        return chain_rows(dbn, validation_images(prepared, labels), params.section(Monitor).chain_rounds, generator)
    model = load_generator(command.model, *load_weights(path, kind=command.model))
    require_equal(path, "image shape", model.image_shape, prepared.image_shape)
    require_equal(path, "number of classes", model.num_classes, prepared.num_classes)
    if command.mode == "reconstruct":
        assert isinstance(model, ConditionalVAE)
        return reconstruction_rows(model, validation_images(prepared, labels), torch.from_numpy(labels))
    draw_rows = interpolation_rows if command.mode == "interpolate" else sample_rows
    return draw_rows(model, torch.from_numpy(labels), generator)


def require_equal(path: Path, what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise ValueError(f"{path} has {what} {found}, {paths.PREPARED} has {wanted}: give a model of these images")


def validation_images(prepared: Prepared, labels: Labels) -> Images:
    """For every label the next validation image of its class, from the first on."""
    positions = []
    for label in dict.fromkeys(labels.tolist()):
        members, num = np.flatnonzero(prepared.validation.labels == label), int((labels == label).sum())
        if len(members) < num:
            name = prepared.class_names[label]
            raise ValueError(f"class {name} has {len(members)} validation images, --num wants {num}: lower it")
        positions += members[:num].tolist()
    return np.array(prepared.validation.images[positions])


def sample(words: list[str]) -> Path:
    """The picture's file."""
    command, params = parse_command(words), load_params(Path("params.yaml"))
    set_threads(params.section(Run).threads)
    tiles, columns = pad_rows(make_rows(command, params, load_prepared(paths.PREPARED)))
    write_png(command.out, image_grid(tiles, columns), magnify=MAGNIFY)
    return command.out


def main(words: list[str]) -> int:
    """The exit code."""
    return run_command("sample", lambda: sample(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
