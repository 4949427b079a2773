"""Whether a cluster has room for a trial at all: Ray itself waits without a word for a node that may never come."""

import sys
import time
from typing import Any

from pipeline.launch.ray_team import Bundles

PATIENCE_S = 600.0
"""How long a cluster may take to grow to the size of one trial."""
LOOK_S = 2.0


def wait_for_room(bundles: Bundles, keys: str) -> None:
    """Returns once the nodes there are could hold one trial, were they free.

    bundles: what each worker of a trial asks for, all the same.  keys: of params.yaml, that say how much.
    Raises ValueError when they still can't after PATIENCE_S.
    """
    import ray

    deadline = time.monotonic() + PATIENCE_S
    told = False
    while not _fits(nodes := _node_resources(ray.nodes()), bundles):
        need = f"{len(bundles)} x {_describe(bundles[0])}" if len(bundles) > 1 else _describe(bundles[0])
        most = f"a trial needs {need} ({keys}), the nodes of the cluster have {', '.join(map(_describe, nodes))}"
        if time.monotonic() > deadline:
            raise ValueError(f"{most}: lower {keys} in params.yaml, or start a larger node")
        if not told:
            print(f"{most}: waiting {PATIENCE_S / 60:.0f} minutes for a larger one", file=sys.stderr, flush=True)
            told = True
        time.sleep(LOOK_S)


def _node_resources(nodes: list[dict[str, Any]]) -> list[dict[str, float]]:
    return [node["Resources"] for node in nodes if node["Alive"]]


def _fits(nodes: list[dict[str, float]], bundles: Bundles) -> bool:
    asked = {name: amount for name, amount in bundles[0].items() if amount > 0}
    places = (min(int(node.get(name, 0.0) / amount) for name, amount in asked.items()) for node in nodes)
    return not asked or sum(places) >= len(bundles)


def _describe(resources: dict[str, float]) -> str:
    """ "2 CPUs and 1 GPUs"."""
    return " and ".join(f"{resources.get(name, 0.0):g} {name}s" for name in ("CPU", "GPU") if resources.get(name))
