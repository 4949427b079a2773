"""A trial that no node could ever hold is said, then refused; Ray alone would wait for ever."""

import sys
import time
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.launch import ray_room
from pipeline.launch.ray_room import wait_for_room


def node(cpus: float, gpus: float = 0.0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "memory": 1e9} | ({"GPU": gpus} if gpus else {})}


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the cluster has; nobody waits long."""
    found: list[dict[str, Any]] = []
    # Not the real one: once imported outside a Ray session, it binds to all interfaces in the tests that follow.
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(nodes=lambda: found))
    monkeypatch.setattr(ray_room, "PATIENCE_S", 0.05)
    monkeypatch.setattr(ray_room, "LOOK_S", 0.02)
    return found


def test_a_trial_that_fits_goes_on_in_silence(nodes: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    nodes += [node(1), node(2)]
    wait_for_room([{"CPU": 2.0}], "run.threads")
    wait_for_room([{"CPU": 1.0}] * 3, "run.workers")
    nodes.append(node(8, gpus=1))
    wait_for_room([{"CPU": 1.0, "GPU": 0.5}] * 2, "run.workers")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("bundles", "said"),
    [
        ([{"CPU": 2.0}], r"a trial needs 2 CPUs \(run\.threads\), the nodes of the cluster have 1 CPUs, 1 CPUs"),
        ([{"CPU": 1.0}] * 3, r"a trial needs 3 x 1 CPUs .*: lower run\.threads in params\.yaml"),
        ([{"CPU": 1.0, "GPU": 1.0}], r"a trial needs 1 CPUs and 1 GPUs"),
    ],
)
def test_one_that_does_not_is_refused_in_the_end(
    nodes: list[dict[str, Any]], bundles: list[dict[str, float]], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes += [node(1), node(1), node(64, gpus=8, alive=False)]
    with pytest.raises(ValueError, match=said):
        wait_for_room(bundles, "run.threads")
    assert capsys.readouterr().err.count("waiting") == 1


def test_a_node_that_joins_in_time_is_enough(
    nodes: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes.append(node(1))
    monkeypatch.setattr(time, "sleep", lambda _: nodes.append(node(4)))
    wait_for_room([{"CPU": 4.0}], "run.threads")
    assert "waiting" in capsys.readouterr().err
