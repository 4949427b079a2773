"""Trials that no result decides: random draws, every combination of a grid, and the changed values of a population."""

import itertools
import math
from collections.abc import Mapping

import numpy as np

from pipeline.config.space import Distribution, Listed, LogRandInt, LogUniform, QUniform, RandInt, Uniform, Value
from pipeline.seeding import make_numpy_rng

Values = dict[str, Value]
RESAMPLED = 0.25
"""Share of a population's changes that draw a new value instead of moving the old one (Jaderberg et al. 2017)."""
FACTORS = (0.8, 1.2)


def random_points(space: Mapping[str, Distribution], count: int, seed: int) -> list[Values]:
    """Independent draws, point i from (seed, i) alone."""
    return [
        {name: draw(space[name], make_numpy_rng(seed, "point", number, name)) for name in sorted(space)}
        for number in range(count)
    ]


def grid_points(space: Mapping[str, Distribution]) -> list[Values]:
    """Every combination; the last key by name changes fastest."""
    names = sorted(space)
    lists = [_listed(space[name]) for name in names]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*lists)]


def draw(distribution: Distribution, rng: np.random.Generator) -> Value:
    """One value of the distribution."""
    match distribution:
        case Uniform(low, high):
            return float(rng.uniform(low, high))
        case LogUniform(low, high):
            return _within(math.exp(rng.uniform(math.log(low), math.log(high))), low, high)
        case QUniform(low, high, q):
            return _within(low + q * int(rng.integers(distribution.num_steps + 1)), low, high)
        case RandInt(low, high):
            return int(rng.integers(low, high + 1))
        case LogRandInt(low, high):  # half a step beyond either end, so that the ends are as likely as they should be
            return int(_within(round(math.exp(rng.uniform(math.log(low - 0.5), math.log(high + 0.5)))), low, high))
        case _:
            values = _listed(distribution)
            return values[int(rng.integers(len(values)))]


def explore(values: Values, space: Mapping[str, Distribution], rng: np.random.Generator) -> Values:
    """What a trial of a population goes on with after it has taken over the weights of one with `values`.

    Each value of the space is drawn anew with probability 1/4, and otherwise multiplied by 0.8 or 1.2 within its range,
    or moved to a neighbour in its list.
    """
    changed = dict(values)
    for name in sorted(space):
        distribution = space[name]
        if rng.random() < RESAMPLED:
            changed[name] = draw(distribution, rng)
        elif isinstance(distribution, Listed):
            place = distribution.values.index(values[name]) + int(rng.choice((-1, 1)))
            changed[name] = distribution.values[min(max(place, 0), len(distribution.values) - 1)]
        else:
            changed[name] = _moved(distribution, values[name] * float(rng.choice(FACTORS)))
    return changed


def _moved(distribution: Distribution, value: float) -> Value:
    assert not isinstance(distribution, Listed)
    value = _within(value, distribution.low, distribution.high)
    if isinstance(distribution, RandInt | LogRandInt):
        return round(value)
    if isinstance(distribution, QUniform):
        return distribution.low + distribution.q * round((value - distribution.low) / distribution.q)
    return value


def _listed(distribution: Distribution) -> tuple[Value, ...]:
    assert isinstance(distribution, Listed)
    return distribution.values


def _within(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
