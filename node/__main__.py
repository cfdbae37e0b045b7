"""``python -m mray.node head|node``: a daemon. Started by mray.bootstrap, not by people."""

from __future__ import annotations

import gc
import sys


def main(arguments: list[str]) -> int:
    """Run the daemon that the one argument names; returns the exit code."""
    # What modules make stays: to look through it for garbage, while they are imported and each time
    # after, costs a daemon a twentieth of its start.
    gc.disable()
    # Each imports only its own half: the head must not pay for the node daemon's modules.
    if arguments == ["head"]:
        from mray.node.daemon import run_daemon
        from mray.node.head.server import HeadLife

        _collect_from_here()
        life = HeadLife()
        return run_daemon("head", life.run, life.prepare)
    if arguments == ["node"]:
        from mray.node.agent import run_node
        from mray.node.daemon import run_daemon

        _collect_from_here()
        return run_daemon("node", run_node)
    print("mray.node is started by `mray start` or init(); use those", file=sys.stderr)
    return 2


def _collect_from_here() -> None:
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
