"""Model weights as safetensors with a json sidecar that says what they are."""

import platform
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.artifacts import Json, atomic_path, hash_file, read_json, write_json


def save_weights(path: Path, state: Mapping[str, Tensor], *, kind: str, config: Json) -> None:
    """Writes `path` (.safetensors) and `path` with .json: kind of model, its config, shapes, versions, sha256.

    The tensors are written without metadata: with two or more metadata keys the bytes are not stable.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary)
    sidecar = {
        "kind": kind,
        "config": config,
        "shapes": {name: list(tensor.shape) for name, tensor in sorted(tensors.items())},
        "dtypes": {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in sorted(tensors.items())},
        "sha256": hash_file(path),
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    write_json(path.with_suffix(".json"), sidecar)


def load_weights(path: Path, *, kind: str) -> tuple[dict[str, Tensor], Json]:
    """The tensors and the config saved by `save_weights`.

    Raises ValueError when the file is missing, corrupt, or holds another kind of model than `kind`.
    """
    sidecar_path = path.with_suffix(".json")
    for file in (path, sidecar_path):
        if not file.is_file():
            raise ValueError(f"{file} does not exist: run the stage that makes it (`dvc repro`) or `dvc pull`")
    sidecar = read_json(sidecar_path)
    if sidecar["kind"] != kind:
        raise ValueError(f"{path} holds a {sidecar['kind']!r}, not a {kind!r}: give the path of a {kind!r} model")
    if hash_file(path) != sidecar["sha256"]:
        raise ValueError(f"{path} does not match the sha256 in {sidecar_path.name}: it is corrupt, rerun its stage")
    try:
        return load_file(path), sidecar["config"]
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read ({error}): it is corrupt, rerun its stage") from error
