"""One thread a process; and how the tests are dealt out when several processes run them.

The tests' models are small, and idle OpenMP threads spin on cores that others need.
"""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay in one process, and those that start Ray in one for all; the longest of these come first."""
    first = ("e2e", "ray")
    for item in items:
        name = next((mark for mark in first if item.get_closest_marker(mark)), item.path.name)
        item.add_marker(pytest.mark.xdist_group(name))
    items.sort(key=lambda item: [item.get_closest_marker(mark) is None for mark in first])
