"""The search space of a sweep: distributions by key, checked when params.yaml is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config.rules import require, require_at_least, require_choice, require_fraction, require_positive

Value = Any
"""A float, int or bool: what a key of params.yaml can be swept over."""


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
class QUniform:
    """low, low + q, ... up to high, each as likely as the others."""

    low: float
    """Smallest value."""
    high: float
    """Largest value, a whole number of steps above low."""
    q: float
    """Step, > 0."""

    def __contains__(self, value: float) -> bool:
        steps = (value - self.low) / self.q
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9

    @property
    def num_steps(self) -> int:
        return round((self.high - self.low) / self.q)


@dataclass(frozen=True)
class RandInt:
    """A whole number, both ends included, low < high."""

    low: int
    """Smallest value."""
    high: int
    """Largest value."""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value == int(value)


@dataclass(frozen=True)
class LogRandInt:
    """A whole number, uniform in the logarithm, both ends included, 0 < low < high."""

    low: int
    """Smallest value."""
    high: int
    """Largest value."""

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and value == int(value)


@dataclass(frozen=True)
class Choice:
    """One of some values, each as likely as the others."""

    values: tuple[Value, ...]
    """At least one."""

    def __contains__(self, value: Value) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Grid:
    """Values that the searcher `grid` goes through one by one."""

    values: tuple[Value, ...]
    """At least one."""

    def __contains__(self, value: Value) -> bool:
        return value in self.values


Distribution = LogUniform | Uniform | QUniform | RandInt | LogRandInt | Choice | Grid
Listed = Choice | Grid
FIELDS = {
    "uniform": ("low", "high"),
    "loguniform": ("low", "high"),
    "quniform": ("low", "high", "q"),
    "randint": ("low", "high"),
    "lograndint": ("low", "high"),
    "choice": ("values",),
    "grid": ("values",),
}
WHOLE = ("randint", "lograndint")
LISTED = ("choice", "grid")


def parse_space(
    space: Mapping[str, Mapping[str, Any]], key: str = "tune.space", kinds: Mapping[str, type] | None = None
) -> dict[str, Distribution]:
    """Distributions by the name of what they tune; kinds: float (where a name is missing), int or bool by name.

    Raises ValueError naming the key, the value and the rule.
    """
    return {name: _parse(f"{key}.{name}", entry, (kinds or {}).get(name, float)) for name, entry in space.items()}


def check_start(start: Mapping[str, float], space: Mapping[str, Distribution], key: str = "tune.start") -> None:
    """The first trial must be one that the sweep could draw. Raises ValueError."""
    for name, value in start.items():
        check_value(f"{key}.{name}", name, value)
        if name in space:
            require(value in space[name], f"{key}.{name}", value, f"within tune.space.{name} {space[name]}")


def check_value(key: str, name: str, value: float) -> None:
    """The range of each thing that can be tuned in a classifier."""
    if name == "lr":
        require_positive(key, value)
    elif name == "weight_decay":
        require_at_least(key, value, 0)
    elif name == "dropout":
        require_fraction(key, value)


def extremes(distribution: Distribution) -> tuple[Value, ...]:
    """The values that say whether all of them are allowed: the ends of a range, or every value of a list."""
    return distribution.values if isinstance(distribution, Listed) else (distribution.low, distribution.high)


def _parse(key: str, entry: Mapping[str, Any], kind: type) -> Distribution:
    shape = str(entry.get("type")) if isinstance(entry, Mapping) else str(entry)
    require_choice(f"{key}.type", shape, FIELDS)
    fields = FIELDS[shape]
    given = sorted(name for name in entry if name != "type")
    require(given == sorted(fields), f"keys of {key}", given, f"type and {' and '.join(fields)} for {shape}")
    whole = kind is not float
    suited = shape in LISTED if kind is bool else shape in (*LISTED, *WHOLE) if whole else True
    what = "true or false: choice or grid" if kind is bool else "a whole number: randint, lograndint, choice or grid"
    require(suited, f"{key}.type", shape, f"one that gives {what}")
    if shape in LISTED:
        values = entry["values"]
        require(isinstance(values, list | tuple) and len(values) > 0, f"{key}.values", values, "a list of numbers")
        listed = tuple(_value(f"{key}.values", value, kind) for value in values)
        return Choice(listed) if shape == "choice" else Grid(listed)
    number = int if shape in WHOLE else float
    low, high = (_value(f"{key}.{field}", entry[field], number) for field in ("low", "high"))
    require(low < high, f"{key}.high", high, f"> {key}.low ({low})")
    if shape.startswith("log"):
        require_positive(f"{key}.low", low)
    if shape == "quniform":
        q = _value(f"{key}.q", entry["q"], float, tuned=False)
        require_positive(f"{key}.q", q)
        require(high in QUniform(low, high, q), f"{key}.high", high, f"a whole number of steps q ({q}) above {low}")
        return QUniform(low, high, q)
    ranges: dict[str, Any] = {
        "uniform": Uniform,
        "loguniform": LogUniform,
        "randint": RandInt,
        "lograndint": LogRandInt,
    }
    found: Distribution = ranges[shape](low, high)
    return found


def _value(key: str, value: Any, kind: type, *, tuned: bool = True) -> Value:
    if kind is bool:
        require(isinstance(value, bool), key, value, "true or false")
        return value
    require(isinstance(value, int | float) and not isinstance(value, bool), key, value, "a number")
    require(kind is float or value == int(value), key, value, "a whole number")
    if tuned:
        check_value(key, key.split(".")[-2], float(value))
    return kind(value)
