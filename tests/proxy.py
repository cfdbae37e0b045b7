"""A TCP relay that ill-treats what passes: a bad network between two processes of one machine.

``Proxy(target, seed)`` listens on a free port of 127.0.0.1 and relays to ``target``. Faults are
attributes, in effect at once and until changed back; ``up`` is from the caller to the target. What
is drawn at random comes from the seed and the number of the connection, so a run with the same
traffic meets the same faults.

    delay_s        each piece is held so long, per direction
    deaf           {"up"}, {"down"} or both: read and thrown away (a one-way partition)
    flip_chance    of each piece, that one of its bits is turned over
    damaged        the directions in which that happens
    bytes_per_s    how fast, per direction and connection; 0: as it comes
    refuse         new connections are closed at once
    cut()          all connections that stand are reset
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import struct
import threading
import time
from collections import deque
from types import TracebackType
from typing import Literal, Self

Direction = Literal["up", "down"]
_PIECE_BYTES = 65_536
#: Read ahead of a slow or delayed peer no further than this.
_HELD_BYTES_MAX = 4 << 20
#: A reset in place of an orderly end.
_NO_LINGER = struct.pack("ii", 1, 0)


class _Pipe:
    """One direction of one connection: what was read and when it may be passed on."""

    def __init__(self, direction: Direction, source: socket.socket, sink: socket.socket) -> None:
        self.direction: Direction = direction
        self.source = source
        self.sink = sink
        self.held: deque[tuple[float, bytes]] = deque()
        self.held_bytes = 0
        self.free_at = 0.0
        self.ended = False
        #: Whether the selector looks at the source.
        self.armed = True


class Proxy:
    """See above. Use as a context manager; its thread ends with it."""

    def __init__(
        self, target: tuple[str, int], seed: int = 0, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.target = target
        self.delay_s = 0.0
        self.deaf: set[Direction] = set()
        self.flip_chance = 0.0
        self.damaged: set[Direction] = {"up", "down"}
        self.bytes_per_s = 0
        self.refuse = False
        #: What happened so far.
        self.connections = 0
        self.flips = 0
        self.passed = {"up": 0, "down": 0}
        self._seed = seed
        self._listener = socket.create_server((host, port), backlog=100)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._pipes: list[_Pipe] = []
        self._random: dict[int, random.Random] = {}
        self._cut = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._turn, name="proxy", daemon=True)

    @property
    def address(self) -> str:
        """ "host:port" to dial in place of the target."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._over.set()
        self._thread.join()
        self._listener.close()

    def cut(self) -> None:
        """Reset every connection that stands; new ones are let in."""
        self._cut = True

    # -- the thread

    def _turn(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._over.is_set():
                for key, _ in selector.select(0.005):
                    if key.fileobj is self._listener:
                        self._accept(selector)
                    else:
                        self._read(key.data)
                if self._cut:
                    self._cut = False
                    for pipe in list(self._pipes):
                        self._drop(selector, pipe)
                for pipe in list(self._pipes):
                    self._pass_on(selector, pipe)
                    self._arm(selector, pipe)
            for pipe in list(self._pipes):
                self._drop(selector, pipe)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        with contextlib.suppress(BlockingIOError):
            caller, _ = self._listener.accept()
            if self.refuse:
                caller.close()
                return
            try:
                callee = socket.create_connection(self.target, timeout=5)
            except OSError:
                caller.close()
                return
            self.connections += 1
            for end in (caller, callee):
                end.setblocking(False)
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number, pipe in enumerate(
                (_Pipe("up", caller, callee), _Pipe("down", callee, caller))
            ):
                self._random[id(pipe)] = random.Random(f"{self._seed}/{self.connections}/{number}")
                self._pipes.append(pipe)
                selector.register(pipe.source, selectors.EVENT_READ, pipe)

    def _arm(self, selector: selectors.BaseSelector, pipe: _Pipe) -> None:
        wanted = pipe.held_bytes < _HELD_BYTES_MAX and not pipe.ended
        if wanted != pipe.armed and pipe in self._pipes:
            pipe.armed = wanted
            if wanted:
                selector.register(pipe.source, selectors.EVENT_READ, pipe)
            else:
                selector.unregister(pipe.source)

    def _read(self, pipe: _Pipe) -> None:
        try:
            piece = pipe.source.recv(_PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            pipe.ended = True
        elif pipe.direction not in self.deaf:
            pipe.held.append((time.monotonic() + self.delay_s, self._damaged(pipe, piece)))
            pipe.held_bytes += len(piece)

    def _damaged(self, pipe: _Pipe, piece: bytes) -> bytes:
        chance = self._random[id(pipe)]
        if not self.flip_chance or pipe.direction not in self.damaged:
            return piece
        if chance.random() >= self.flip_chance:
            return piece
        self.flips += 1
        damaged = bytearray(piece)
        damaged[chance.randrange(len(piece))] ^= 1 << chance.randrange(8)
        return bytes(damaged)

    def _pass_on(self, selector: selectors.BaseSelector, pipe: _Pipe) -> None:
        while pipe.held:
            due_at, piece = pipe.held[0]
            now = time.monotonic()
            if now < max(due_at, pipe.free_at):
                return
            try:
                sent = pipe.sink.send(piece)
            except BlockingIOError:
                return
            except OSError:
                self._drop(selector, pipe)
                return
            pipe.held.popleft()
            if sent < len(piece):
                pipe.held.appendleft((due_at, piece[sent:]))
            pipe.held_bytes -= sent
            self.passed[pipe.direction] += sent
            if self.bytes_per_s:
                pipe.free_at = max(now, pipe.free_at) + sent / self.bytes_per_s
        if pipe.ended:
            self._drop(selector, pipe)

    def _drop(self, selector: selectors.BaseSelector, pipe: _Pipe) -> None:
        """Reset both ends of the connection that the pipe belongs to."""
        both = [each for each in self._pipes if each.source in (pipe.source, pipe.sink)]
        for each in both:
            self._pipes.remove(each)
            self._random.pop(id(each))
            with contextlib.suppress(KeyError):
                selector.unregister(each.source)
        for end in (pipe.source, pipe.sink):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            end.close()
