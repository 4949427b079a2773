"""params.yaml -> typed, validated sections. The only importer of omegaconf.

Every key must be known and present: a misspelt key is an error, never a default.
"""

import difflib
import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from pipeline.artifacts import write_text
from pipeline.config.pretrain import ConvLayer, DenseLayer, Layer
from pipeline.config.rules import require

S = TypeVar("S")

# Named as text so that a stage's import closure, and with it its DVC deps, holds only the sections it reads.
SECTIONS = {
    "run": "pipeline.config.run:Run",
    "data": "pipeline.config.data:Data",
    "monitor": "pipeline.config.monitor:Monitor",
    "vae": "pipeline.config.generators:Vae",
    "gan": "pipeline.config.generators:Gan",
    "augment": "pipeline.config.generators:Augment",
    "privacy": "pipeline.config.privacy:Privacy",
    "dp": "pipeline.config.dp:Dp",
    "tune": "pipeline.config.tune:Tune",
    "study": "pipeline.config.classifier:Study",
    "finetune": "pipeline.config.classifier:Finetune",
    "evaluate": "pipeline.config.classifier:Evaluate",
    "anomaly": "pipeline.config.anomaly:Anomaly",
    "denoise": "pipeline.config.denoise:Denoise",
    "represent": "pipeline.config.represent:Represent",
    "documents": "pipeline.config.documents:Documents",
    "recommend": "pipeline.config.recommend:Recommend",
}
LAYERS = "pretrain"


@dataclass(frozen=True)
class Params:
    """All of params.yaml. sections: by name; layers: the DBN's layers by name, bottom first."""

    sections: dict[str, Any]
    layers: dict[str, Layer]

    def section(self, kind: type[S]) -> S:
        return next(value for value in self.sections.values() if isinstance(value, kind))


def load_params(path: Path, overrides: Iterable[str] = ()) -> Params:
    """Reads and checks the whole file; `overrides` are dotted assignments such as `vae.lr=0.001`.

    Raises ValueError naming the key, the value, the rule and the remedy.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: run from the project's root, where params.yaml lies")
    try:
        tree = OmegaConf.merge(OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides)))
        OmegaConf.resolve(tree)
    except Exception as error:  # yaml's and omegaconf's parsers raise unrelated types
        raise ValueError(f"{path} cannot be read: {_first_line(error)}") from error
    if not isinstance(tree, DictConfig):
        raise ValueError(f"{path} must hold sections ({', '.join([*SECTIONS, LAYERS])}), got a {type(tree).__name__}")
    known = [*SECTIONS, LAYERS]
    for name in tree:
        _require_known(str(name), known, "section", path)
    for name in known:
        if not isinstance(tree.get(name), DictConfig):
            raise ValueError(f"section {name} is missing from {path}: add it (see the README for every key)")
    sections = {name: _build(_import(target), tree[name], name, path) for name, target in SECTIONS.items()}
    params = Params(sections, _load_layers(tree[LAYERS], path))
    _check_together(params)
    return params


def write_changed(source: Path, target: Path, overrides: Iterable[str]) -> None:
    """Writes `source` with dotted assignments applied to `target`, checked as `load_params` does; comments are lost."""
    load_params(source, overrides)
    tree = OmegaConf.merge(OmegaConf.load(source), OmegaConf.from_dotlist(list(overrides)))
    write_text(target, OmegaConf.to_yaml(tree))


def _load_layers(tree: DictConfig, path: Path) -> dict[str, Layer]:
    for name in tree:
        _require_known(str(name), ["layers"], f"key of {LAYERS}", path)
    entries = tree.get("layers")
    if not isinstance(entries, DictConfig) or len(entries) == 0:
        raise ValueError(f"pretrain.layers in {path} must hold at least one layer")
    layers: dict[str, Layer] = {}
    for name, entry in ((str(name), entry) for name, entry in entries.items()):
        key = f"pretrain.layers.{name}"
        kind = entry.get("kind") if isinstance(entry, DictConfig) else None
        require(kind in ("conv", "dense"), f"{key}.kind", kind, "conv or dense")
        section: type[ConvLayer] | type[DenseLayer] = ConvLayer if kind == "conv" else DenseLayer
        layers[name] = _build(section, entry, key, path)
    return layers


def _build(section: type[S], tree: DictConfig, key: str, path: Path) -> S:
    known = list(section.__dataclass_fields__)  # type: ignore[attr-defined]
    for name in map(str, tree):
        _require_known(name, known, f"key of {key}", path)
        if isinstance(tree[name], bool):
            wanted = str(section.__dataclass_fields__[name].type)  # type: ignore[attr-defined]
            require("bool" in wanted, f"{key}.{name}", tree[name], "a number, not true or false")
    try:
        return cast("S", OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(section), tree)))
    except MissingMandatoryValue as error:
        missing = [name for name in known if name not in tree]
        raise ValueError(f"{key}.{missing[0]} is missing from {path}: add it (every key must be given)") from error
    except (ConfigKeyError, ConfigAttributeError) as error:
        raise ValueError(f"{key}.{error.key} in {path}: {_first_line(error)}") from error
    except OmegaConfBaseException as error:
        raise ValueError(f"{key}.{error.full_key or '?'} in {path}: {_first_line(error)}: correct its type") from error
    except ValueError as error:
        raise ValueError(str(error).replace("pretrain.layers.*", key)) from error


def _require_known(name: str, known: list[str], what: str, path: Path) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
    raise ValueError(f"unknown {what} in {path}: {name!r}; {remedy}")


def _check_together(params: Params) -> None:
    """Rules that bind two sections."""
    below = "prepare"
    names = list(params.layers)
    for name, layer in params.layers.items():
        require(layer.below == below, f"pretrain.layers.{name}.below", layer.below, f"{below} (the entry above it)")
        below = f"pretrain/{name}"
    kinds = [layer.kind for layer in params.layers.values()]
    require(kinds == sorted(kinds), f"pretrain.layers {names}", kinds, "conv layers first, then dense ones")
    data, tune, study, augment = (params.sections[name] for name in ("data", "tune", "study", "augment"))
    require(
        tune.budget in data.label_budgets, "tune.budget", tune.budget, f"one of data.label_budgets {data.label_budgets}"
    )
    for arm in study.arms:
        if arm in ("vae", "gan"):
            require(arm in augment.generators, "study.arms", arm, f"in augment.generators {augment.generators}")
    study.require_sweeps(tune.arms)
    for arm in tune.arms:
        require(arm in study.arms, "tune.arms", arm, f"in study.arms {study.arms}")
    vae, private = params.sections["vae"], params.sections["dp"].models
    require(
        "vae" not in private or vae.free_bits == 0,
        "vae.free_bits",
        vae.free_bits,
        "0 where dp.models has vae: means over a batch have no gradient of a single image",
    )
    check_spaces: Any = _import("pipeline.config.targets:check_spaces")
    check_spaces(tune, params.sections, params.layers)


def _import(target: str) -> type[Any]:
    module, name = target.split(":")
    return cast("type[Any]", getattr(importlib.import_module(module), name))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
