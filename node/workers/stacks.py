"""What the threads of this node's processes do: answers GetStacks.

Sends the signal of core/runtime/stacks.py and reads what the process writes. Only to processes that
await it: their file is there and the kernel says that the signal has a handler. Needs no root, as
all processes are of one user.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Final

from mray.node.workers.peers import Peer, Peers
from mray.rpc.pump import Pump
from mray.runtime.stacks import STACK_FILE, STACK_SIGNAL
from mray.wire.messages import GetStacks, Stacks

#: How often a process's file is looked at until it grows no more.
_LOOK_S: Final = 0.02
_WAIT_MAX_S: Final = 10.0
_BYTES_MAX: Final = 1024 * 1024


class NodeStacks:
    """See the module. Registers its handler. ``title_of``: what a worker ran last."""

    def __init__(self, pump: Pump, peers: Peers, title_of: Callable[[bytes], str]) -> None:
        self._pump = pump
        self._peers = peers
        self._title_of = title_of
        pump.on(GetStacks, self._get_stacks)

    def _get_stacks(self, sender: bytes, message: GetStacks) -> None:
        wanted = set(message.pids)
        peers = [
            peer
            for peer in self._peers
            if peer.kind in ("driver", "worker") and (not wanted or peer.pid in wanted)
        ]
        looks = [_Look(peer.pid) for peer in peers]
        until = self._pump.clock() + max(0.0, min(message.wait_s, _WAIT_MAX_S))

        def go_on() -> None:
            open_ = [look for look in looks if not look.step()]
            if open_ and self._pump.clock() < until:
                self._pump.after(_LOOK_S, go_on)
                return
            stacks = [
                (peer.pid, peer.kind, self._title(peer), look.end())
                for peer, look in zip(peers, looks, strict=True)
            ]
            self._pump.send(sender, Stacks(message.rid, stacks))

        go_on()

    def _title(self, peer: Peer) -> str:
        return self._title_of(peer.process_id) if peer.kind == "worker" else ""


class _Look:
    """One process: asked at once, ``step()`` until it is True, then ``end()``."""

    def __init__(self, pid: int) -> None:
        self._fd = -1
        self._size = 0
        self._why = ""
        try:
            self._fd = _ask(pid)
        except (OSError, LookupError) as error:
            self._why = f"(its stacks cannot be read: {error})"

    def step(self) -> bool:
        """Whether all is written: the file has grown and grows no more."""
        if self._fd < 0:
            return True
        before, self._size = self._size, os.fstat(self._fd).st_size
        return 0 < before == self._size

    def end(self) -> str:
        """What was written."""
        if self._fd < 0:
            return self._why
        try:
            text = os.pread(self._fd, _BYTES_MAX, 0).decode(errors="replace")
        finally:
            os.close(self._fd)
        return text or "(no answer in time: it is stopped, or waits for a disk)"


def _ask(pid: int) -> int:
    """Send the signal; the file that the process writes into. LookupError if it awaits none."""
    # Opened first: where the signal can be sent through it, all looks were at the same process.
    pidfd = os.pidfd_open(pid)
    try:
        path = _file_of(pid)
        if not path or not _awaits(pid):
            raise LookupError("it does not await the question, it may be starting")
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.ftruncate(fd, 0)
            signal.pidfd_send_signal(pidfd, STACK_SIGNAL)
        except BaseException:
            os.close(fd)
            raise
    finally:
        os.close(pidfd)
    return fd


def _file_of(pid: int) -> str:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{name}")
        except FileNotFoundError:
            continue  # Closed in between.
        if target.startswith(f"/memfd:{STACK_FILE} "):
            return f"{folder}/{name}"
    return ""


def _awaits(pid: int) -> bool:
    """Whether the process has a handler for the signal."""
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (STACK_SIGNAL - 1) & 1)
    return False
