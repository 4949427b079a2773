"""A saved detector for people: `python -m stages.anomaly --model F.safetensors --in FOLDER --out FOLDER`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.applications.anomaly import KIND
from pipeline.applications.anomaly_fits import score_images
from pipeline.applications.anomaly_pictures import draw_maps
from pipeline.artifacts import write_table
from pipeline.data.image_folder import load_pictures
from pipeline.data.pictures import image_grid, write_png
from pipeline.models.detectors import DETECTORS, Detector
from pipeline.weights import load_weights

SHOWN = 16
MAGNIFY = 2


@dataclass(frozen=True)
class LoadedDetector:
    """A detector with what its file says of it. thresholds: by score, None where there were too few normal images."""

    detector: Detector
    kind: str
    normal: str
    false_positive_rate: float
    thresholds: dict[str, float | None]


def load_detector(path: Path) -> LoadedDetector:
    """Raises ValueError as `load_weights` does."""
    state, config = load_weights(path, kind=KIND)
    detector = DETECTORS[config["kind"]].from_config(config["model"])
    detector.load_state_dict(state)
    facts = {key: config[key] for key in ("kind", "normal", "false_positive_rate", "thresholds")}
    return LoadedDetector(detector.eval(), **facts)


def judge_folder(words: Sequence[str]) -> str:
    """Scores the pictures; writes scores.csv and, of the strangest, maps.png.  Returns what to tell.

    Raises ValueError when model and pictures do not fit, or a file is no picture.
    """
    given = _parser().parse_args(words)
    loaded = load_detector(given.model)
    channels, height, width = loaded.detector.image_shape
    files, images = load_pictures(given.folder, (channels, height, width))
    scores = score_images(loaded.detector, images)
    flagged = {
        name: np.zeros(len(files), bool) if (limit := loaded.thresholds[name]) is None else values > limit
        for name, values in scores.items()
    }
    rows = [
        {"file": file.name}
        | {name: float(values[index]) for name, values in scores.items()}
        | {f"{name}_flagged": int(flagged[name][index]) for name in scores}
        for index, file in enumerate(files)
    ]
    write_table(given.out / "scores.csv", rows)
    first = next(iter(scores))
    strangest = np.argsort(-scores[first], kind="stable")[:SHOWN]
    maps = loaded.detector.maps(torch.from_numpy(images[strangest]).float() / 255)
    if maps is not None:
        tiles = np.concatenate([images[strangest], draw_maps(maps, channels)])
        write_png(given.out / "maps.png", image_grid(tiles, len(strangest)), magnify=MAGNIFY)
    count = int(flagged[first].sum())
    rule = (
        f"no threshold: there were too few normal images for a rate of {loaded.false_positive_rate:g}"
        if loaded.thresholds[first] is None
        else f"{count} flagged at a false-positive rate of {loaded.false_positive_rate:g}"
    )
    return (
        f"{len(files)} images judged by {loaded.kind}, which takes {loaded.normal} for normal; {rule}\n"
        f"{given.out / 'scores.csv'}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.anomaly",
        description="Without arguments: the DVC stage. With them: scores pictures by a trained detector.",
    )
    parser.add_argument("--model", type=Path, required=True, help="out/applications/anomaly/<class>/<kind>.safetensors")
    parser.add_argument("--in", dest="folder", type=Path, required=True, help="a folder of png or jpeg files")
    parser.add_argument("--out", type=Path, required=True, help="for scores.csv and maps.png")
    return parser
