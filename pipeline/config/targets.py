"""What a sweep may change in each section other than the classifier's, and what it must leave alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pipeline.config.generators import Gan, Vae
from pipeline.config.pretrain import ConvLayer, DenseLayer, Layer
from pipeline.config.rules import require
from pipeline.config.space import Distribution, extremes, parse_space
from pipeline.config.tune import CLASSIFIER, LAYER_PREFIX, PAUSING, Tune, check_searched, require_known

Section = Vae | Gan | ConvLayer | DenseLayer

FIXED = {
    "steps": "the trials of a sweep must train equally long",
    "likelihood": "bounds of different likelihoods do not compare",
    "visible": "likelihoods of different visible units do not compare",
}
"""Keys that no sweep may change, and why."""
LIVE = {
    Vae: ("lr", "beta"),
    Gan: ("lr", "r1_weight", "r1_every", "gradient_penalty", "ema_decay", "ada_target"),
    ConvLayer: ("lr", "momentum", "weight_decay", "gibbs_steps", "sparsity_target", "sparsity_cost"),
    DenseLayer: ("lr", "momentum", "weight_decay", "gibbs_steps", "sparsity_target", "sparsity_cost"),
}
"""Keys that can change while a model trains, which is what pbt does: no weight changes its shape with them."""


def list_targets(layers: Mapping[str, Layer]) -> list[str]:
    return [CLASSIFIER, "vae", "gan", *(f"{LAYER_PREFIX}{name}" for name in layers)]


def target_section(target: str, sections: Mapping[str, Any], layers: Mapping[str, Layer]) -> Section:
    """The section whose keys a sweep of `target` changes; not for the classifier."""
    found: Section = layers[target.removeprefix(LAYER_PREFIX)] if target.startswith(LAYER_PREFIX) else sections[target]
    return found


def target_space(tune: Tune, target: str, section: Section) -> dict[str, Distribution]:
    """tune.spaces.<target>, typed. Raises ValueError naming the key, the value, the rule and the remedy."""
    key = f"tune.spaces.{target}"
    given = tune.spaces[target]
    require(isinstance(given, Mapping) and len(given) > 0, key, given, "key -> distribution, at least one")
    kinds = sweepable(section)
    for name in given:
        if name in FIXED and hasattr(section, name):
            raise ValueError(f"{key}.{name} cannot be swept: {FIXED[name]}; remove it from params.yaml")
        require_known(str(name), list(kinds), f"key of {key}")
    space = parse_space(given, key, kinds)
    for name, distribution in space.items():
        for value in extremes(distribution):
            _check_value(f"{key}.{name}", section, name, value)
    return space


def sweepable(section: Section) -> dict[str, type]:
    """The kind of each key that can be swept: float, int or bool."""
    fields = type(section).__dataclass_fields__
    return {
        name: field.type for name, field in fields.items() if field.type in (float, int, bool) and name not in FIXED
    }


def check_spaces(tune: Tune, sections: Mapping[str, Any], layers: Mapping[str, Layer]) -> None:
    """Every space, whether or not it is the target's; the target's also with its searcher and scheduler.

    Raises ValueError naming the key, the value, the rule and the remedy.
    """
    launch, known = sections["run"].launch, list_targets(layers)
    rule = f"ray with tune.scheduler {tune.scheduler}, which pauses trials"
    require(launch == "ray" or tune.scheduler not in PAUSING, "run.launch", launch, rule)
    require_known(tune.target, known, "tune.target")
    for target in tune.spaces:
        require_known(str(target), known[1:], "target of tune.spaces")
        target_space(tune, str(target), target_section(str(target), sections, layers))
    if tune.target == CLASSIFIER:
        return
    require(tune.target in tune.spaces, "tune.target", tune.target, "a target with a space in tune.spaces")
    section = target_section(tune.target, sections, layers)
    space = target_space(tune, tune.target, section)
    check_searched(f"tune.spaces.{tune.target}", space, tune)
    require(tune.reports <= section.steps, "tune.reports", tune.reports, f"<= the steps of {tune.target}")
    for name in space if tune.scheduler == "pbt" else ():
        rule = f"one of {', '.join(LIVE[type(section)])} with tune.scheduler pbt, which changes it during training"
        require(name in LIVE[type(section)], f"a key of tune.spaces.{tune.target}", name, rule)


def _check_value(key: str, section: Section, name: str, value: Any) -> None:
    try:
        replace(section, **{name: value})
    except ValueError as error:
        raise ValueError(f"{key} reaches a value that its section does not allow: {error}") from error
