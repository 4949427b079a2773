"""The command line of `stages.sample`: of which model, of which classes, how many, and from which file."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import paths
from pipeline.config.tune import LAYER_PREFIX
from pipeline.data.arrays import Labels
from pipeline.training.generators import MODELS
from pipeline.training.stored import DBN_FILE

PER_CLASS = {"samples": 8, "interpolate": 1, "reconstruct": 8, "chains": 1}
"""What --num stands for, and how many of a class there are without it."""


@dataclass(frozen=True)
class Command:
    """mode: a key of PER_CLASS.  classes: names or numbers, none for all.  The rest as the options."""

    model: str
    mode: str
    classes: tuple[str, ...]
    num: int | None
    out: Path
    seed: int
    draw: int | None
    path: Path | None


def parse_command(words: Sequence[str]) -> Command:
    """Raises ValueError for options that do not go together; exits on a misspelt one."""
    given = vars(_parser().parse_args(words))
    command = Command(**given | {"classes": tuple(given["classes"])})
    layer = command.model.startswith(LAYER_PREFIX)
    if not layer and command.model not in MODELS:
        raise ValueError(f"--model must be vae, gan or a layer such as pretrain@dense, got {command.model!r}")
    if layer and (command.mode != "samples" or command.draw is not None or command.path is not None):
        raise ValueError(
            f"{command.model} has Gibbs chains alone: leave out --interpolate, --reconstruct, --draw and --path"
        )
    if command.mode == "reconstruct" and command.model != "vae":
        raise ValueError(f"--reconstruct needs an encoder, which a {command.model} lacks: use --model vae")
    if command.draw is not None and command.path is not None:
        raise ValueError("--draw chooses among the models of the pipeline, --path names another: give one of them")
    if command.out.suffix != ".png":
        raise ValueError(f"--out must end in .png, got {command.out}: rename it")
    return Command(**vars(command) | {"mode": "chains"}) if layer else command


def deal_labels(command: Command, class_names: Sequence[str]) -> Labels:
    """(num,) labels, class after class in the order given, as equally as can be: the first ones have one more.

    A class is known by its name, else by its number.  Raises ValueError for other classes, and fewer than one of each.
    """
    numbers = {str(number): number for number in range(len(class_names))}
    known = numbers | {name: number for number, name in enumerate(class_names)}
    wrong = [name for name in command.classes if name not in known]
    if wrong:
        raise ValueError(
            f"--classes has no {', '.join(wrong)}: the classes are {', '.join(class_names)}, also by number, from 0 on"
        )
    classes = list(dict.fromkeys(known[name] for name in command.classes or class_names))
    num = PER_CLASS[command.mode] * len(classes) if command.num is None else command.num
    if num < len(classes):
        raise ValueError(f"--num must be >= {len(classes)}, one a class, got {num}: raise it or name fewer --classes")
    each, more = divmod(num, len(classes))
    return np.repeat(np.array(classes, dtype=np.int64), [each + (place < more) for place in range(len(classes))])


def find_model(command: Command, layers: Collection[str]) -> Path:
    """The model's file. Raises ValueError with what makes it when it is not there.  layers: of pretrain.layers."""
    if command.path is not None:
        return command.path
    if command.mode == "chains":
        layer = command.model.removeprefix(LAYER_PREFIX)
        if layer not in layers:
            raise ValueError(f"pretrain.layers has no layer {layer!r}, only {', '.join(layers)}: choose one")
        path = paths.pretrained(layer) / DBN_FILE
    else:
        draw, folder = command.draw or 0, paths.generator(command.model)
        path = folder / f"{draw}.safetensors"
        others = sorted(int(file.stem) for file in folder.glob("*.safetensors") if file.stem.isdigit())
        if others and not path.is_file():
            raise ValueError(f"{path} does not exist: set --draw to one of {', '.join(map(str, others))}")
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run `dvc repro {command.model}`")
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stages.sample", description="Writes a grid of pictures as png.")
    parser.add_argument("--model", required=True, help="vae, gan, or a layer such as pretrain@dense for Gibbs chains")
    parser.add_argument("--classes", nargs="+", default=[], help="names or numbers; all without it")
    parser.add_argument(
        "--num", type=int, help="samples, rows of --interpolate, pairs of --reconstruct, or chains from images"
    )
    parser.add_argument("--out", type=Path, required=True, help="the png")
    mode = parser.add_mutually_exclusive_group()
    for name, text in (
        ("interpolate", "rows from one latent point of a class to another"),
        ("reconstruct", "validation images above what the vae makes of them"),
    ):
        mode.add_argument(f"--{name}", dest="mode", action="store_const", const=name, default="samples", help=text)
    parser.add_argument("--seed", type=int, default=0, help="equal seeds, equal pictures")
    parser.add_argument("--draw", type=int, help="which label draw's model; 0 without it")
    parser.add_argument("--path", type=Path, help="a vae or gan in another .safetensors")
    return parser
