"""``python -m mray.node head|node``: a daemon. Started by mray.bootstrap, not by people."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Run the daemon that the one argument names; returns the exit code."""
    # Each imports only its own half: the head must not pay for the node daemon's modules.
    if arguments == ["head"]:
        from mray.node.daemon import run_daemon
        from mray.node.head.server import HeadLife

        life = HeadLife()
        return run_daemon("head", life.run, life.prepare)
    if arguments == ["node"]:
        from mray.node.agent import run_node
        from mray.node.daemon import run_daemon

        return run_daemon("node", run_node)
    print("mray.node is started by `mray start` or init(); use those", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
