"""`ray start` for several nodes that all live on 127.0.0.1: `python -m cluster.loopback_start --head ...`.

Ray has one setting for two things. RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 makes every port loopback-only and refuses a
second node; 1 allows it, replaces --node-ip-address=127.0.0.1 by the machine's own address, and binds to
all interfaces. So the processes of a node get 0, and the refusal alone is switched off here.
"""

import os


def main() -> None:
    """Passes the command line on to `ray start`."""
    if os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") != "0":
        raise ValueError("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER must be 0, or Ray would bind its ports to all interfaces")
    from ray._private import ray_constants, services
    from ray.scripts import scripts

    if services.get_node_ip_address() != "127.0.0.1":
        raise ValueError("Ray would not stay on 127.0.0.1: cluster.loopback_start does not fit this version of Ray")
    # The constant also decides about the address, which must stay what it is.
    services.get_node_ip_address = lambda *_: "127.0.0.1"
    ray_constants.ENABLE_RAY_CLUSTER = True
    scripts.start(prog_name="ray start")


if __name__ == "__main__":
    main()
