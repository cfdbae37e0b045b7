"""The socket by which a process dials others: one ROUTER for all of them.

Owns the socket, its options for each line, and the monitor that tells when a tcp line stands and
when it ends; dialled.py decides what follows. Does not receive: door.py does, by its names.

The monitor is not asked for HANDSHAKE_FAILED_PROTOCOL: to tell that, libzmq 4.3.5 overwrites the
errno by which it would see a damaged byte, and the connection stays, deaf.
"""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Iterator
from typing import Final

import zmq

from mray.rpc.dialled import NEVER, Dialled, Line, Waiting
from mray.rpc.endpoints import is_ipv6, is_same_endpoint, split_host_port
from mray.rpc.keys import Keys
from mray.rpc.unsent import discard_unsent

#: How long close() waits for messages already queued to leave.
LINGER_S: Final = 1.0
#: A tcp connection is given up, with what is under way on it, when the peer has been silent for so
#: long: well after the head has declared its node dead, so that a shorter gap loses nothing.
SILENT_MS: Final = 60_000
HEARTBEAT_MS: Final = 5_000
# As plain numbers: combining and looking up enum members costs 3 us a message.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_ENDS = "inproc://mray.ends"
_CONNECTED = int(zmq.EVENT_CONNECTED)
_STANDS = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_ENDED = int(zmq.EVENT_DISCONNECTED)
_REFUSED = int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_AUTH)


class Dialler:
    """See the module. ``router`` dials; it is closed with this. The monitor is put into ``poller``:
    when ``ends`` is readable, call hear_ends(). Without ``keys`` only unix sockets are dialled."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], router: zmq.Socket[bytes],
        poller: zmq.Poller, keys: Keys | None,
    ) -> None:  # fmt: skip
        self.keys = keys
        self._context = context
        self._router = router
        self._poller = poller
        self.lines = Dialled()
        #: Handshakes of tcp lines that were broken off: those peers do not take our key.
        self.refusals = 0
        #: Of tcp connections, by the endpoint as the monitor tells it.
        self._descriptors: dict[str, int] = {}
        #: None before the first tcp line.
        self.ends: zmq.Socket[bytes] | None = None

    # -- lines

    def dial(
        self, process_id: bytes, endpoint: str, own_name: bytes, server_key: bytes = b""
    ) -> None:
        """Connect to a process for the first time, which shows ``server_key`` (b"": its own).

        ValueError for tcp without keys, or where the endpoint is none."""
        if endpoint.startswith("tcp://"):
            if self.keys is None:
                raise ValueError(f"{endpoint} needs the cluster token")
            split_host_port(endpoint.removeprefix("tcp://"))
            server_key = server_key or self.keys.server(process_id)[0]
            self._watch_ends()
        line = self.lines.add(process_id, endpoint, own_name, server_key)
        try:
            self._connect(line)
        except zmq.ZMQError as error:
            self.lines.remove(process_id)
            if error.errno == errno.EINVAL:
                raise ValueError(f"{endpoint!r} is no address") from error
            raise

    def redial(self, process_id: bytes, endpoint: str) -> None:
        """Connect to a process that was dialled before, at a tcp endpoint, in place of what it had.

        ValueError as by dial()."""
        line = self.lines.get(process_id)
        assert line is not None
        if self.keys is None:
            raise ValueError(f"{endpoint} needs the cluster token")
        split_host_port(endpoint.removeprefix("tcp://"))
        line.server_key = line.server_key or self.keys.server(process_id)[0]
        self._watch_ends()
        if line.is_tcp:
            self._end(line.endpoint)
        else:
            self._disconnect(line.endpoint)
        self.lines.moved(process_id, endpoint, time.monotonic())

    def hang_up(self, process_id: bytes) -> None:
        """Drop a line and what waits for it. Nothing where there is none."""
        line = self.lines.remove(process_id)
        if line is not None and line.name:
            for told in [t for t in self._descriptors if is_same_endpoint(line.endpoint, t)]:
                discard_unsent(self._descriptors.pop(told), line.endpoint)
            self._disconnect(line.endpoint)
            # Whoever has the port of the dead by now was cut off as well.
            self._end(line.endpoint)

    def dial_due(self, timeout_s: float | None) -> float | None:
        """Connect what is due; how long to wait until the next is, ``timeout_s`` at most."""
        now = time.monotonic()
        for line in self.lines.due(now):
            try:
                self._connect(line)
            except zmq.ZMQError as error:
                if error.errno != errno.EINVAL:
                    raise
                # It was moved to what is no address. The loop goes on, as if nobody listened there.
                self.lines.ended(line.endpoint, now)
        if self.lines.next_due == NEVER:
            return timeout_s
        wait_s = max(0.0, self.lines.next_due - now)
        return wait_s if timeout_s is None else min(wait_s, timeout_s)

    def _connect(self, line: Line) -> None:
        router = self._router
        if line.is_tcp:
            assert self.keys is not None
            host, _ = split_host_port(line.endpoint.removeprefix("tcp://"))
            router.set(zmq.CURVE_SERVERKEY, line.server_key)
            router.set(zmq.CURVE_PUBLICKEY, self.keys.client_public)
            router.set(zmq.CURVE_SECRETKEY, self.keys.client_secret)
            router.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
            router.set(zmq.HEARTBEAT_TIMEOUT, SILENT_MS)
            router.set(zmq.IPV6, int(is_ipv6(host)))
        else:
            router.set(zmq.CURVE_SERVER, 0)  # back to no security mechanism
            router.set(zmq.HEARTBEAT_IVL, 0)
        router.set(zmq.ROUTING_ID, line.own_name)
        router.set(zmq.CONNECT_ROUTING_ID, line.name)
        router.connect(line.endpoint)

    def _disconnect(self, endpoint: str) -> None:
        # Else the connection would live on for a while and, by our name, take the next one's place.
        self._router.set(zmq.LINGER, 0)
        try:
            self._router.disconnect(endpoint)
        except zmq.ZMQError as error:
            if error.errno != errno.ENOENT:
                raise
            # libzmq has given it up, or it went with another one to the same endpoint.
        finally:
            self._router.set(zmq.LINGER, int(LINGER_S * 1000))

    # -- ends

    def _watch_ends(self) -> None:
        if self.ends is not None:
            return
        self._router.monitor(_ENDS, _CONNECTED | _STANDS | _ENDED | _REFUSED)
        self.ends = self._context.socket(zmq.PAIR)
        # With a limit, libzmq's own thread would wait for this one, which may be busy.
        self.ends.set(zmq.RCVHWM, 0)
        self.ends.set(zmq.LINGER, 0)
        self.ends.connect(_ENDS)
        self._poller.register(self.ends, zmq.POLLIN)

    def hear_ends(self) -> Iterator[bytes]:
        """Take what the monitor tells; yields each process whose line stands again."""
        assert self.ends is not None
        while True:
            try:
                head, told = self.ends.recv_multipart(_NOBLOCK)
            except zmq.Again:
                return
            event, endpoint = int.from_bytes(head[:2], sys.byteorder), told.decode()
            if event & _REFUSED:
                self.refusals += 1
            elif event == _CONNECTED:
                self._descriptors[endpoint] = int.from_bytes(head[2:6], sys.byteorder)
            elif event == _ENDED:
                self._descriptors.pop(endpoint, None)
                self._end(endpoint)
            else:
                for line, waiting, has_lost in self.lines.stands(endpoint):
                    self._send(line, waiting)
                    if has_lost:
                        yield line.process_id

    def _end(self, endpoint: str) -> None:
        for line in self.lines.ended(endpoint, time.monotonic()):
            self._disconnect(line.endpoint)

    def _send(self, line: Line, waiting: list[Waiting]) -> None:
        for data, copy in waiting:
            try:
                self._router.send(line.name, _NOBLOCK_MORE)
                self._router.send(data, _NOBLOCK, copy)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                    raise
                return  # It has ended again, of which the monitor will tell.

    def close(self) -> None:
        """Give libzmq all that waits, and close the sockets."""
        for line in self.lines.due(NEVER):
            self._connect(line)
        for line in self.lines:
            self._send(line, line.waiting or [])
        if self.ends is not None:
            self._router.disable_monitor()
            self.ends.close()
        self._router.close()
