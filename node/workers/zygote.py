"""``python -m mray.node.workers.zygote FD NODE_PID MAIN``: forks workers that have all imported.

A fork takes milliseconds where a new interpreter takes half a second. This process therefore does
nothing but import what workers need and fork on request: no threads, no ZeroMQ context, nothing
that a fork would tear apart. Memory that is written after the fork is paid by each worker, so the
garbage collector's lists are frozen first.

Each request is a packet with a number and a memory file of WorkerParams; the answer is the number
and a pid (0: and why not). It forks twice: the process in between answers and ends, so the worker
becomes a child of the node daemon (its subreaper), which learns its exit status by itself.

It ends when the daemon does: by signal while it imports, later by the end of the socket, for then
it first ends what descends from the daemon and would otherwise be nobody's.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import struct
import sys
import time
from typing import Final

from mray.node.workers import child
from mray.node.workers.environment import NODE_VARIABLE
from mray.node.workers.fresh import run_from

#: Number of the request, pid of the worker; an error's text may follow.
ANSWER: Final = struct.Struct("<QI")
NUMBER: Final = struct.Struct("<Q")
#: The number in the packet that says the zygote is ready.
READY: Final = 0
_ERROR_BYTES: Final = 500
_SWEEPS: Final = 5
_SWEEP_GAP_S: Final = 0.05


def main(arguments: list[str]) -> int:
    """Serve until the node daemon ends; returns the exit code."""
    sock = socket.socket(fileno=int(arguments[0]))
    node_pid = int(arguments[1])
    child.die_with_parent()
    if os.getppid() != node_pid:
        return 1
    # Ctrl-C in the terminal of a local cluster is for the driver.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing that is imported is garbage; one look at the end is enough.
    gc.disable()
    import cloudpickle  # noqa: F401
    import numpy  # noqa: F401
    import zmq  # noqa: F401

    run_worker = child.find_main(arguments[2])
    gc.collect()
    gc.freeze()
    gc.enable()
    # From here on the socket tells.
    child.die_with_parent(0)
    if os.getppid() == node_pid:
        sock.send(ANSWER.pack(READY, os.getpid()))
        params_fd = _serve(sock)
        if params_fd is not None:
            run_from(params_fd, run_worker)
    sweep(f"{NODE_VARIABLE}={os.environ[NODE_VARIABLE]}")
    return 0


def _serve(sock: socket.socket) -> int | None:
    """Answer requests. Returns in each worker with its parameters' descriptor, and in the zygote
    with None when the daemon has closed the socket."""
    while True:
        try:
            packet, descriptors, _, _ = socket.recv_fds(sock, 64, 1)
        except ConnectionError:
            return None
        if not packet:
            return None
        (number,) = NUMBER.unpack(packet)
        try:
            between = os.fork()
        except OSError as error:
            _answer(sock, ANSWER.pack(number, 0) + _words(error))
        else:
            if between == 0 and _is_worker(sock, number):
                return descriptors[0]
            os.waitpid(between, 0)
        os.close(descriptors[0])


def _is_worker(sock: socket.socket, number: int) -> bool:
    """In the process between: fork the worker, answer, end. Returns (True) only in the worker."""
    try:
        pid = os.fork()
    except OSError as error:
        _answer(sock, ANSWER.pack(number, 0) + _words(error))
        os._exit(0)
    if pid:
        _answer(sock, ANSWER.pack(number, pid))
        os._exit(0)
    return True


def _answer(sock: socket.socket, packet: bytes) -> None:
    """To a daemon that may have died: the zygote's next read tells that, and what was forked since
    ends with all else that the daemon had."""
    with contextlib.suppress(ConnectionError):
        sock.send(packet)


def _words(error: OSError) -> bytes:
    return f"the zygote could not fork: {error}".encode()[:_ERROR_BYTES]


def sweep(mark: str) -> None:
    """SIGKILL every process whose environment holds ``mark``, but for this one."""
    wanted = b"\0" + mark.encode() + b"\0"
    for _ in range(_SWEEPS):
        found = 0
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if wanted not in b"\0" + file.read() + b"\0":
                        continue
                os.kill(int(name), signal.SIGKILL)
            except OSError:
                continue  # Gone meanwhile, or another user's.
            found += 1
        if not found:
            return
        # What was killed may have had time to fork; look again until nobody is there.
        time.sleep(_SWEEP_GAP_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
