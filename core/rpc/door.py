"""A process's sockets: the only module that touches ZeroMQ.

Owns one ROUTER that listens and one ROUTER that dials, the wake-up descriptor, CURVE and ZAP. Does
not decode, does not retry, decides nothing.

Two ROUTERs and not a DEALER a peer: a process with 200 actors would poll 200 sockets, and polling
costs by the socket. A dialled peer gets a routing id on our side (CONNECT_ROUTING_ID), its process
id first and another one each time that it is dialled again (dialled.py); we appear under ours on
its listening side. Replies to a request go back on the connection it came in on.

ROUTER_MANDATORY turns sending to an unknown peer into a visible False instead of silence. Queues
are unbounded here: what may be in flight is bounded above, by pipelining and by pending calls.
"""

from __future__ import annotations

import errno
import hmac
import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import zmq
from zmq.backend import zmq_poll
from zmq.utils import z85

from mray.rpc.dialled import NEVER
from mray.rpc.dialler import HEARTBEAT_MS, LINGER_S, SILENT_MS, Dialler
from mray.rpc.endpoints import is_ipv6, join_host_port, split_host_port
from mray.rpc.keys import Keys
from mray.wire.codec import MESSAGE_BYTES_MAX
from mray.wire.messages import Address

__all__ = ["DAEMON_HANDSHAKE_S", "IPC_PATH_BYTES_MAX", "LINGER_S", "Door", "Keys"]

#: A unix socket path holds at most this many bytes (sun_path is 108 with its final zero).
IPC_PATH_BYTES_MAX = 107
_ZAP_DOMAIN = "mray"
# As plain numbers: combining and looking up enum members costs 3 us a message.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_RCVMORE = int(zmq.RCVMORE)
_POLLIN = int(zmq.POLLIN)
#: Who connects and says nothing is cut off after this long. A process whose user code holds the
#: interpreter answers no handshake meanwhile; daemons answer at once.
HANDSHAKE_S = 30.0
DAEMON_HANDSHAKE_S = 5.0
_GONE_MAX = 10_000


def _run(call: Callable[[], None]) -> None:
    call()


class Door:
    """One process's way to all others. Not thread-safe, but for wake()."""

    #: How messages are taken from a socket: as bytes of their own or as views of libzmq's, and how
    #: many before the others get their turn.
    _copies = True
    _batch_max = 1000

    def __init__(
        self,
        process_id: bytes,
        keys: Keys | None = None,
        same_machine_ipc: bool = True,
        handshake_s: float = HANDSHAKE_S,
        io_threads: int = 1,
    ) -> None:
        self.process_id = process_id
        #: How long who connects by tcp may take to prove that it has the token.
        self._handshake_s = handshake_s
        self._keys = keys
        #: Whether other nodes of this machine are dialled by their unix sockets.
        self._same_machine_ipc = same_machine_ipc
        self._context = zmq.Context()
        # Before the first socket: libzmq starts its threads with that, and heeds neither later.
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._context.set(zmq.IO_THREADS, io_threads)
        self._listening = self._router()
        self._dialling = self._router()
        self._zap: zmq.Socket[bytes] | None = None
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._awake = False
        #: Peers that dialled us, disjoint from _lines: a pair of processes keeps to one
        #: connection, so that messages between them never overtake each other.
        self._callers: set[bytes] = set()
        #: The last ones hung up on. Nobody dials them again: their processes are dead.
        self._gone: dict[bytes, None] = {}
        #: Told of each process that dial() connects to by tcp.
        self.on_tcp: Callable[[bytes], object] = lambda process_id: None
        #: Told of each process whose line stands again; what was under way at its end may be lost.
        self.on_again: Callable[[bytes], None] = lambda process_id: None
        self._ipc_path = ""
        self._watched: dict[int, Callable[[], None]] = {}
        self._poller = zmq.Poller()
        #: What is_ready() has found, for the next poll().
        self._found: list[tuple[Any, int]] = []
        self._dialler = Dialler(self._context, self._dialling, self._poller, keys)
        self._lines = self._dialler.lines
        self._poller.register(self._listening, zmq.POLLIN)
        self._poller.register(self._dialling, zmq.POLLIN)
        self._poller.register(self._wake_fd, zmq.POLLIN)

    def _router(self) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.set(zmq.ROUTING_ID, self.process_id)
        router.set(zmq.ROUTER_MANDATORY, 1)
        # A peer that comes again before we saw its old connection end is heard, not ignored.
        router.set(zmq.ROUTER_HANDOVER, 1)
        router.set(zmq.LINGER, int(LINGER_S * 1000))
        router.set(zmq.SNDHWM, 0)
        router.set(zmq.RCVHWM, 0)
        router.set(zmq.MAXMSGSIZE, MESSAGE_BYTES_MAX)
        router.set(zmq.RECONNECT_IVL, 10)
        router.set(zmq.RECONNECT_IVL_MAX, 500)
        return router

    # -- listening and dialling

    def listen_ipc(self, path: str) -> None:
        """Listen on a unix socket. ValueError if the path is too long for one."""
        size = len(os.fsencode(path))
        if size > IPC_PATH_BYTES_MAX:
            raise ValueError(
                f"socket path of {size} bytes, at most {IPC_PATH_BYTES_MAX} are possible: {path}; "
                "set MRAY_TMPDIR to a shorter directory"
            )
        self._listening.bind(f"ipc://{path}")
        self._ipc_path = path

    def listen_tcp(self, host: str, port: int) -> int:
        """Listen on tcp, encrypted and authenticated by the cluster's keys; returns the port.

        Port 0 takes a free one. zmq.ZMQError if the port is in use; ValueError without keys,
        because an open port without them would run anybody's code.
        """
        if self._keys is None:
            raise ValueError("a tcp port needs the cluster token")
        if self._zap is None:
            self._open_zap()
        public, secret = self._keys.server(self.process_id)
        self._listening.set(zmq.CURVE_SERVER, 1)
        self._listening.set(zmq.CURVE_SECRETKEY, secret)
        self._listening.set(zmq.CURVE_PUBLICKEY, public)
        self._listening.set_string(zmq.ZAP_DOMAIN, _ZAP_DOMAIN)
        # Without it libzmq lets anyone in who knows the public key while no handler runs.
        self._listening.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._listening.set(zmq.HANDSHAKE_IVL, int(self._handshake_s * 1000))
        self._listening.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._listening.set(zmq.HEARTBEAT_TIMEOUT, SILENT_MS)
        self._listening.set(zmq.IPV6, int(is_ipv6(host)))
        self._listening.bind(f"tcp://{join_host_port(host, port or '*')}")
        endpoint = cast(bytes, self._listening.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
        return split_host_port(endpoint.removeprefix("tcp://"))[1]

    def listen_tcp_between(self, host: str, first: int, last: int) -> int:
        """Listen on a free port of ``first`` to ``last``; any, where ``last`` is 0. The port.

        OSError where all are taken. Processes begin at different ones, so that few collide.
        """
        if not last:
            return self.listen_tcp(host, 0)
        count = last - first + 1
        start = int.from_bytes(self.process_id[1:5], "little") % count
        for step in range(count):
            try:
                return self.listen_tcp(host, first + (start + step) % count)
            except zmq.ZMQError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(
            errno.EADDRINUSE,
            f"every port from {first} to {last} on {host} is in use: widen min_worker_port to "
            "max_worker_port, each worker and driver needs one",
        )

    def _open_zap(self) -> None:
        self._zap = self._context.socket(zmq.ROUTER)
        self._zap.set(zmq.LINGER, 0)
        self._zap.bind("inproc://zeromq.zap.01")
        self._poller.register(self._zap, zmq.POLLIN)

    def dial(self, address: Address, own_node_id: bytes) -> None:
        """Connect to a process, by unix socket when it lives on our node. Idempotent.

        Messages sent before the connection stands wait in its queue. A process that was hung up
        on is not dialled: send() will say that it is gone.
        """
        process_id = address.process_id
        if self.knows(process_id) or process_id in self._gone:
            return
        endpoint = self._endpoint(address, own_node_id)
        self._dialler.dial(process_id, endpoint, self.process_id)
        if endpoint.startswith("tcp:"):
            self.on_tcp(process_id)

    def redial(self, process_id: bytes, tcp: str) -> None:
        """A process that we dialled, or that calls us, listens at ``tcp`` ("host:port") now."""
        endpoint = f"tcp://{tcp}"
        if process_id in self._lines:
            self._dialler.redial(process_id, endpoint)
        else:
            self._callers.discard(process_id)
            self._dialler.dial(process_id, endpoint, self.process_id)
        self.on_tcp(process_id)

    def dialled_by_tcp(self) -> list[bytes]:
        """The processes that dial() has connected to by tcp."""
        return [line.process_id for line in self._lines if line.is_tcp]

    def _endpoint(self, address: Address, own_node_id: bytes) -> str:
        if self._by_ipc(address, own_node_id):
            return f"ipc://{address.ipc}"
        if not address.tcp:
            raise ValueError(f"process {address.process_id.hex()} has no address to dial")
        return f"tcp://{address.tcp}"

    def _by_ipc(self, address: Address, own_node_id: bytes) -> bool:
        """Whether a process is dialled by its unix socket: on our node, or on another one of this
        machine, where its socket is seen."""
        if not address.ipc or address.node_id == own_node_id:
            return bool(address.ipc)
        if not address.tcp:
            return os.path.exists(address.ipc)
        return self._same_machine_ipc and os.path.exists(address.ipc)

    def somebody_listens(self, address: Address, own_node_id: bytes) -> bool | None:
        """Whether somebody listens at the unix socket that we would dial; None where we would dial
        tcp, which nobody can know without waiting."""
        if not self._by_ipc(address, own_node_id) and address.tcp:
            return None
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            try:
                probe.connect(address.ipc)
            except (FileNotFoundError, ConnectionRefusedError):
                return False
            except OSError:
                return True  # It is there, and its queue of connections is full.
        return True

    def dial_endpoint(self, process_id: bytes, endpoint: str) -> None:
        """Connect to a head whose process id is not known (or, by unix socket, to any process):
        ``process_id`` is made up.

        The peer knows us by that name too. It may be one that knows us under ours already, and
        would ignore a second connection of the same name.
        """
        common = self._keys.server_public if self._keys is not None else b""
        self._dialler.dial(process_id, endpoint, process_id, common)

    def hang_up(self, process_id: bytes) -> None:
        """Drop the connection to a dead peer and what is queued for it, for good."""
        self._callers.discard(process_id)
        self._gone[process_id] = None
        if len(self._gone) > _GONE_MAX:
            del self._gone[next(iter(self._gone))]
        self._dialler.hang_up(process_id)

    @property
    def refusals(self) -> int:
        """Handshakes that dialled peers broke off over tcp: they do not take our key."""
        return self._dialler.refusals

    def peers(self) -> list[bytes]:
        """The process ids of all connections."""
        return [*(line.process_id for line in self._lines), *self._callers]

    def use_keys(self, keys: Keys) -> None:
        """Set the keys, of a door that was made without; before the first tcp connection."""
        self._keys = self._dialler.keys = keys

    def knows(self, process_id: bytes) -> bool:
        """Whether there is a connection to the process (it may be away for the moment)."""
        return process_id in self._lines or process_id in self._callers

    # -- sending and receiving

    def send(
        self, process_id: bytes, data: bytes | bytearray | memoryview, copy: bool = True
    ) -> bool:
        """Send to a process we dialled or that dialled us. False: it is gone or was never there.

        Without ``copy``, what is sent must not change any more."""
        line = self._lines.get(process_id)
        if line is None:
            router, name = self._listening, process_id
        elif line.waiting is None:
            router, name = self._dialling, line.name
        else:
            line.waiting.append((data, copy))
            return True
        try:
            router.send(name, _NOBLOCK_MORE)
            router.send(data, _NOBLOCK, copy)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                self._callers.discard(process_id)
                return False
            raise
        return True

    def is_ready(self) -> bool:
        """Whether something is there. If so the next poll() begins with it, and does not look."""
        self._found = zmq_poll(self._poller.sockets, 0)
        return bool(self._found)

    def poll(
        self,
        timeout_s: float | None,
        run: Callable[[Callable[[], None]], None] = _run,
    ) -> Iterator[tuple[bytes, Any]]:
        """Wait for messages, a wake-up, a watched descriptor or the time; yield (sender, data).

        What watches a descriptor is called by way of ``run``. A message that is not one frame is
        yielded as empty data: its sender speaks no mray.
        """
        if self._lines.next_due != NEVER:
            timeout_s = self._dialler.dial_due(timeout_s)
        found, self._found = self._found, []
        if not found:
            timeout_ms = -1 if timeout_s is None else max(0, int(timeout_s * 1000 + 0.999))
            found = zmq_poll(self._poller.sockets, timeout_ms)
        for ready, _ in found:
            if ready is self._listening or ready is self._dialling:
                yield from self._receive(ready)
            elif ready == self._wake_fd:
                self._drain_wake()
            elif ready is self._zap:
                self._answer_zap()
            elif ready is self._dialler.ends:
                for process_id in self._dialler.hear_ends():
                    run(partial(self.on_again, process_id))
            else:
                # One called before it in this round may have stopped the watch.
                call = self._watched.get(ready)
                if call is not None:
                    run(call)

    def _receive(self, router: zmq.Socket[bytes]) -> Iterator[tuple[bytes, Any]]:
        listening, copies = router is self._listening, self._copies
        alone = [(router, _POLLIN)]
        for received in range(self._batch_max):
            # Asking is four times cheaper than recv's exception, and this way than by getsockopt.
            if received and not zmq_poll(alone, 0):
                return
            try:
                name = router.recv(_NOBLOCK)
            except zmq.Again:
                return
            except zmq.ZMQError as error:
                if error.errno == zmq.EHOSTUNREACH:
                    continue
                raise
            # None: of a line that was given up, as if it had been lost with it.
            sender = name if listening else self._lines.names.get(name)
            # A ROUTER puts the name before what came: there is always a second frame.
            data: Any = router.recv(_NOBLOCK, copies)
            extra = False
            while router.getsockopt(_RCVMORE):
                router.recv(_NOBLOCK)
                extra = True
            if sender is None:
                continue
            if (
                listening
                and sender not in self._callers
                and sender not in self._lines
                and sender not in self._gone
            ):
                self._callers.add(sender)
            yield sender, b"" if extra else data if copies else data.buffer

    # -- waking and watching

    def wake(self) -> None:
        """End a poll from any thread or signal handler. Takes no lock."""
        if not self._awake:
            self._awake = True
            try:
                os.eventfd_write(self._wake_fd, 1)
            except OSError:
                # Closed while a last finalizer ran: nobody is left to wake.
                return

    def _drain_wake(self) -> None:
        os.eventfd_read(self._wake_fd)
        self._awake = False

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call ``ready`` in poll() when the descriptor is readable."""
        self._watched[fd] = ready
        self._poller.register(fd, zmq.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Stop watching."""
        if self._watched.pop(fd, None) is not None:
            self._poller.unregister(fd)

    # -- authentication (RFC 27): the CURVE handshake has proved that the peer holds the secret of
    # -- the public key it shows; here we say which key is ours.

    def _answer_zap(self) -> None:
        assert self._zap is not None
        assert self._keys is not None
        while True:
            try:
                frames = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            identity, _, version, request_id, domain, _, _, mechanism, *credentials = frames
            right = (
                version == b"1.0"
                and domain == _ZAP_DOMAIN.encode()
                and mechanism == b"CURVE"
                and len(credentials) == 1
                and hmac.compare_digest(z85.encode(credentials[0]), self._keys.client_public)
            )
            code, text = (b"200", b"OK") if right else (b"400", b"wrong cluster token")
            self._zap.send_multipart(
                [identity, b"", b"1.0", request_id, code, text, b"mray" if right else b"", b""]
            )

    def close(self) -> None:
        """Send what is queued (for LINGER_S at most), close all sockets, remove the socket file."""
        self._dialler.close()
        for each in (self._listening, self._zap):
            if each is not None:
                each.close()
        self._context.term()
        # From here on wake() does nothing: references outlive the connection, and the number of
        # the descriptor may soon be that of a user's file.
        self._awake = True
        os.close(self._wake_fd)
        if self._ipc_path:
            try:
                os.unlink(self._ipc_path)
            except FileNotFoundError:
                return
