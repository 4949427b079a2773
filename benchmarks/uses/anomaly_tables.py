"""Placeholder."""

from benchmarks.published.digits import Effort
from benchmarks.record import Row


def measure_tables(effort: Effort) -> list[Row]:
    return []
