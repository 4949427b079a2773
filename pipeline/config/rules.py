"""The checks that sections share. Every failure names the key, the value, the rule and the remedy."""

from collections.abc import Collection


def require(holds: bool, key: str, value: object, rule: str) -> None:
    """Raises ValueError unless `holds`."""
    if not holds:
        raise ValueError(f"{key} must be {rule}, got {value!r}: set it in params.yaml")


def require_choice(key: str, value: str, choices: Collection[str]) -> None:
    require(value in choices, key, value, "one of " + ", ".join(choices))


def require_at_least(key: str, value: float, low: float) -> None:
    require(value >= low, key, value, f">= {low}")


def require_positive(key: str, value: float) -> None:
    require(value > 0, key, value, "> 0")


def require_fraction(key: str, value: float, *, open_top: bool = True) -> None:
    """0 <= value < 1, or <= 1 with `open_top=False`."""
    require(0 <= value < 1 or (not open_top and value == 1), key, value, f"in [0, 1{')' if open_top else ']'}")
