"""How much noise an (epsilon, delta) takes, by two accountants. The only importer of opacus."""

import math
import warnings
from dataclasses import dataclass

from pipeline.metrics.renyi import renyi_epsilon

DISAGREE = 5
"""Our bound may exceed opacus' tighter one by this factor (few steps make it loose), and lie below by none."""
PRECISION = 0.005
"""Of the noise multiplier that is searched for, relative."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """Gradient steps that see each training image with probability sample_rate."""

    sample_rate: float
    count: int
    delta: float


def find_noise(epsilon: float, steps: Steps) -> float:
    """The least noise multiplier, to 0.5 %, with which the steps spend at most epsilon.

    Raises ValueError where no noise up to a thousand times the clipping norm is enough.
    """
    low, high = 0.0, 1.0
    while spent_epsilon(high, steps) > epsilon:
        low, high = high, 2 * high
        if high > 1024:
            raise ValueError(
                f"dp.epsilon {epsilon:g} at delta {steps.delta:g} can't be kept over {steps.count} steps: raise it, or "
                "take fewer steps, smaller batches or more images"
            )
    while high - low > PRECISION * high:
        middle = (low + high) / 2
        low, high = (low, middle) if spent_epsilon(middle, steps) <= epsilon else (middle, high)
    return high


def spent_epsilon(noise_multiplier: float, steps: Steps) -> float:
    """By opacus' PRV accountant (Gopi, Lee, Wutschitz 2021), its error added; infinite where that has no bound."""
    if renyi_epsilon(noise_multiplier, steps.sample_rate, steps.count, steps.delta) > 50:
        return math.inf  # far from any use, and the accountant would need a huge grid
    accountant = _make_accountant()
    accountant.history = [(noise_multiplier, steps.sample_rate, steps.count)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the orders of a bound that only sizes its grid
        return float(accountant.get_epsilon(steps.delta, eps_error=0.01))


def check_epsilon(noise_multiplier: float, steps: Steps) -> dict[str, float]:
    """Epsilon by accountant: prv, and renyi, our own bound.  Raises ValueError where they contradict each other."""
    found = {
        "prv": spent_epsilon(noise_multiplier, steps),
        "renyi": renyi_epsilon(noise_multiplier, steps.sample_rate, steps.count, steps.delta),
    }
    if not found["prv"] * 0.98 <= found["renyi"] <= DISAGREE * found["prv"] + 0.1:
        raise ValueError(
            f"two privacy accountants disagree, opacus says epsilon {found['prv']:.3g} and ours {found['renyi']:.3g}: "
            "don't rely on either; reinstall opacus from constraints.txt, or set dp.models to []"
        )
    return found


def _make_accountant():  # type: ignore[no-untyped-def]  # opacus has no types
    try:
        from opacus.accountants import PRVAccountant
    except ImportError as error:
        raise ValueError(
            f"dp.models needs the package opacus ({error}): pip install opacus, or empty dp.models"
        ) from error
    return PRVAccountant()
