"""Serves one page of text over HTTP to whoever may connect, and lets nobody hold up the loop.

Covers: listening, requests (GET /metrics and no other), answers in pieces as the client takes them,
limits on clients, bytes and time. Knows nothing of what is on the page.

Reads are what the loop wakes for; a client that does not take its answer is tried again by a timer,
because the loop watches for reading only. All sockets are non-blocking. Whoever stays too long, or
comes when all places are taken, is cut off.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Final

from mray.metrics_text import CONTENT_TYPE
from mray.rpc.pump import Pump, Timer

log = logging.getLogger("mray.node.metrics")

_CLIENTS_MAX: Final = 16
_REQUEST_BYTES_MAX: Final = 8192
#: From connecting to the end of the answer.
_CLIENT_S: Final = 10.0
#: A client that is sent slowly is tried again after this time.
_SEND_AGAIN_S: Final = 0.02
#: What a client may send after its request, so that closing does not cut off the answer.
_REST_BYTES_MAX: Final = 65536
#: The page is made once in this time at most, however many ask for it.
_PAGE_S: Final = 1.0
_REASONS: Final = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


class _Client:
    """One connection: reads its request, then sends its answer, then waits for its end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.request = b""
        #: None until the request is there.
        self.answer: memoryview | None = None
        self.rest_bytes = 0
        self.timers: list[Timer] = []


class MetricsPage:
    """Listens from the start on. ``make_page`` gives the text. Raises OSError where ``port`` cannot
    be had at ``host``; port 0 takes any, which ``port`` then says."""

    def __init__(self, pump: Pump, host: str, port: int, make_page: Callable[[], str]) -> None:
        self._pump = pump
        self._make_page = make_page
        self._page = b""
        self._page_at = float("-inf")
        self._clients: dict[int, _Client] = {}
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=_CLIENTS_MAX)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        pump.door.watch(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Cut everybody off."""
        for client in list(self._clients.values()):
            self._drop(client)
        self._pump.door.unwatch(self._listener.fileno())
        self._listener.close()

    def _accept(self) -> None:
        # One a wake-up: the loop comes back while there are more, and others get their turn.
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            # It has gone again, or there are no descriptors left: the next one may be luckier.
            log.debug("no connection for metrics: %s", error)
            return
        if len(self._clients) >= _CLIENTS_MAX:
            sock.close()
            return
        sock.setblocking(False)
        client = self._clients[sock.fileno()] = _Client(sock)
        client.timers.append(self._pump.after(_CLIENT_S, lambda: self._drop(client)))
        self._pump.door.watch(sock.fileno(), lambda: self._readable(client))

    def _readable(self, client: _Client) -> None:
        try:
            data = client.sock.recv(_REQUEST_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
        elif client.answer is not None:
            client.rest_bytes += len(data)
            if client.rest_bytes > _REST_BYTES_MAX:
                self._drop(client)
        else:
            client.request += data
            if b"\r\n\r\n" in client.request:
                self._begin(client, self._reply(client.request))
            elif len(client.request) > _REQUEST_BYTES_MAX:
                self._begin(client, _answer(400, b"the request is too long\n"))

    def _reply(self, request: bytes) -> bytes:
        """The bytes of the answer."""
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.0", b"HTTP/1.1"):
            return _answer(400, b"this is no HTTP/1 request\n")
        method, target, _ = words
        if target.split(b"?", 1)[0] != b"/metrics":
            return _answer(404, b"there is /metrics only\n")
        if method != b"GET":
            return _answer(405, b"there is GET only\n", "Allow: GET\r\n")
        now = self._pump.clock()
        if now - self._page_at >= _PAGE_S:
            self._page = _answer(200, self._make_page().encode())
            self._page_at = now
        return self._page

    def _begin(self, client: _Client, answer: bytes) -> None:
        client.request = b""
        client.answer = memoryview(answer)
        self._send(client)

    def _send(self, client: _Client) -> None:
        if client.answer is None or client.sock.fileno() < 0:
            return
        try:
            while client.answer:
                client.answer = client.answer[client.sock.send(client.answer) :]
            # The end of the answer; the client's own end, or the time limit, closes.
            client.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            again = self._pump.after(_SEND_AGAIN_S, lambda: self._send(client))
            client.timers[1:] = [again]
        except OSError:
            self._drop(client)

    def _drop(self, client: _Client) -> None:
        number = client.sock.fileno()
        if number < 0:
            return
        for timer in client.timers:
            timer.cancel()
        self._pump.door.unwatch(number)
        del self._clients[number]
        with contextlib.suppress(OSError):  # The other end may be gone.
            client.sock.shutdown(socket.SHUT_RDWR)
        client.sock.close()


def _answer(status: int, body: bytes, more: str = "") -> bytes:
    kind = CONTENT_TYPE if status == 200 else "text/plain; charset=utf-8"
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n"
        f"Content-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "X-Content-Type-Options: nosniff\r\n"
        f"{more}"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
