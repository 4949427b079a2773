"""One thread a process; and how the tests are dealt out when several processes run them (`make test`).

The tests' models are small, and idle OpenMP threads spin on cores that others need.
"""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

PIPELINES = ("test_e2e",)
CLUSTERS = ("test_cluster_", "test_ray_", "test_launch", "test_steps")
"""Files that start one Ray after the other: two of them at once would starve each other on two cores."""


def group_of(nodeid: str) -> str:
    """What runs in one process: the files that start Ray together, any other file by itself."""
    file = nodeid.split("::")[0].rpartition("/")[2]
    return "clusters" if file.startswith(CLUSTERS) else file


class ByGroup(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByGroup:
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: the pipelines, then the clusters."""
    items.sort(key=lambda item: (not item.path.name.startswith(PIPELINES), group_of(item.nodeid) != "clusters"))
