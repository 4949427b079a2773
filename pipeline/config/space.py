"""The search space of a sweep, `tune.space`: checked when params.yaml is read, not when the first trial fails."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction, require_positive


@dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm, 0 < low < high."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Uniform:
    """Uniform, low < high."""

    low: float
    """Smallest value."""
    high: float
    """Largest value."""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Choice:
    """One of some numbers, each as likely as the others."""

    values: tuple[float, ...]
    """At least one."""

    def __contains__(self, value: float) -> bool:
        return value in self.values


Distribution = LogUniform | Uniform | Choice
FIELDS = {"loguniform": ("low", "high"), "uniform": ("low", "high"), "choice": ("values",)}


def parse_space(space: Mapping[str, Mapping[str, Any]], key: str = "tune.space") -> dict[str, Distribution]:
    """Distributions by the name of what they tune. Raises ValueError naming the key, the value and the rule."""
    return {name: _parse(f"{key}.{name}", entry) for name, entry in space.items()}


def check_start(start: Mapping[str, float], space: Mapping[str, Distribution], key: str = "tune.start") -> None:
    """The first trial must be one that the sweep could draw. Raises ValueError."""
    for name, value in start.items():
        check_value(f"{key}.{name}", name, value)
        if name in space:
            require(value in space[name], f"{key}.{name}", value, f"within tune.space.{name} {space[name]}")


def check_value(key: str, name: str, value: float) -> None:
    """The range of each thing that can be tuned."""
    if name == "lr":
        require_positive(key, value)
    elif name == "weight_decay":
        require_at_least(key, value, 0)
    elif name == "dropout":
        require_fraction(key, value)


def _parse(key: str, entry: Mapping[str, Any]) -> Distribution:
    kind = entry.get("type")
    require_choice(f"{key}.type", str(kind), FIELDS)
    fields = FIELDS[str(kind)]
    given = sorted(name for name in entry if name != "type")
    require(given == sorted(fields), f"keys of {key}", given, f"type and {' and '.join(fields)} for {kind}")
    name = key.rsplit(".", 1)[1]
    if kind == "choice":
        values = entry["values"]
        require(isinstance(values, list | tuple) and len(values) > 0, f"{key}.values", values, "a list of numbers")
        return Choice(tuple(_number(f"{key}.values", name, value) for value in values))
    low, high = (_number(f"{key}.{field}", name, entry[field]) for field in fields)
    require(low < high, f"{key}.high", high, f"> {key}.low ({low})")
    if kind == "loguniform":
        require_positive(f"{key}.low", low)
        return LogUniform(low, high)
    return Uniform(low, high)


def _number(key: str, name: str, value: Any) -> float:
    require(isinstance(value, int | float) and not isinstance(value, bool), key, value, "a number")
    check_value(key, name, float(value))
    return float(value)
