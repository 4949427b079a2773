"""Finished trials on disk: what a stage that is run again does not repeat."""

import shutil
from pathlib import Path

import torch

from pipeline.artifacts import read_json, write_json
from pipeline.tuning.trial import TrialResult
from pipeline.weights import load_weights, save_weights

KIND = "classifier"


def save_classifier(path: Path, result: TrialResult) -> None:
    """The trained network, as `pipeline.weights` keeps it."""
    state = {name: torch.from_numpy(array) for name, array in result.state.items()}
    save_weights(path, state, kind=KIND, config=result.config)


def save_result(folder: Path, name: str, result: TrialResult) -> None:
    save_classifier(folder / f"{name}.safetensors", result)
    # Last: its presence says that the result is whole.
    write_json(_marker(folder, name), {"metrics": result.metrics, "history": result.history})


def load_result(folder: Path, name: str) -> TrialResult | None:
    """What `save_result` wrote, or None where it did not get that far."""
    if not _marker(folder, name).is_file():
        return None
    told = read_json(_marker(folder, name))
    state, config = load_weights(folder / f"{name}.safetensors", kind=KIND)
    arrays = {key: tensor.numpy() for key, tensor in state.items()}
    return TrialResult(told["metrics"], told["history"], arrays, config)


def copy_classifier(folder: Path, name: str, target: Path) -> None:
    """Copies the network of a saved result into the folder `target`."""
    target.mkdir(parents=True, exist_ok=True)
    for suffix in (".safetensors", ".json"):
        shutil.copyfile(folder / f"{name}{suffix}", target / f"{name}{suffix}")


def _marker(folder: Path, name: str) -> Path:
    return folder / f"{name}.result.json"
