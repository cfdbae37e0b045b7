"""The page over HTTP: one request a connection, and nobody holds up the loop."""

from __future__ import annotations

import contextlib
import socket
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from mray.ids import new_process_id
from mray.node.metrics import page as page_module
from mray.node.metrics.page import MetricsPage
from mray.rpc.door import Door
from mray.rpc.pump import Pump

TEXT = '# TYPE c counter\nc{k="ä"} 1.0\n'


@pytest.fixture
def served():
    """A pump whose clock the test may turn on, and a page that counts how often it is made."""
    made = Served()
    yield made
    made.close()


class Served:
    def __init__(self):
        self.now = 100.0
        self.text = TEXT
        self.made_count = 0
        self.pump = Pump(Door(new_process_id()), clock=lambda: self.now)
        self.page = MetricsPage(self.pump, "127.0.0.1", 0, self.make)
        self.sockets = []

    def make(self):
        self.made_count += 1
        return self.text

    def close(self):
        for sock in self.sockets:
            sock.close()
        self.page.close()
        self.pump.door.close()

    def connect(self):
        sock = socket.create_connection(("127.0.0.1", self.page.port))
        sock.setblocking(False)
        self.sockets.append(sock)
        return sock

    def turn(self, count=1):
        for _ in range(count):
            self.pump.run_once(0.005)

    def read(self, sock):
        """All that comes until the other end closes; the loop turns meanwhile."""
        data = b""
        for _ in range(2000):
            self.turn()
            with contextlib.suppress(BlockingIOError):
                piece = sock.recv(1 << 20)
                if not piece:
                    return data
                data += piece
        raise AssertionError(f"it stays open after {data[:200]!r}")

    def ask(self, request):
        sock = self.connect()
        sock.sendall(request)
        return self.read(sock)


def status(answer):
    return int(answer.split(b" ", 2)[1])


def test_the_page_is_read_by_any_client(served):
    with ThreadPoolExecutor(1) as pool:
        url = f"http://127.0.0.1:{served.page.port}/metrics?x=1"
        reading = pool.submit(lambda: urllib.request.urlopen(url, timeout=30).read())
        while not reading.done():
            served.turn()
        assert reading.result().decode() == TEXT


def test_the_answer_says_what_it_is(served):
    answer = served.ask(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8" in head
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"Connection: close" in head
    assert body == TEXT.encode()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"GET /metrics/ HTTP/1.1\r\n\r\n", 404),
        (b"GET http://x/metrics HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", 405),
        (b"PRI * HTTP/2.0\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"\x16\x03\x01 \xff\xff\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000, 400),
    ],
)
def test_nothing_else_is_answered(served, request_, code):
    assert status(served.ask(request_)) == code
    assert served.made_count == 0


def test_a_request_may_come_in_pieces(served):
    sock = served.connect()
    for piece in (b"GET /met", b"rics HTTP/1.1\r", b"\n\r", b"\n"):
        sock.sendall(piece)
        served.turn(3)
    assert status(served.read(sock)) == 200


def test_a_client_that_says_nothing_is_cut_off_in_time(served):
    sock = served.connect()
    served.turn(3)
    with pytest.raises(BlockingIOError):
        sock.recv(1)
    served.now += page_module._CLIENT_S + 1
    assert served.read(sock) == b""


def test_a_client_that_does_not_read_holds_up_nobody_and_is_cut_off(served):
    served.text = "x" * (8 << 20)
    slow = served.connect()
    slow.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    served.turn(5)
    served.now += page_module._PAGE_S
    served.text = TEXT
    assert served.ask(b"GET /metrics HTTP/1.1\r\n\r\n").endswith(TEXT.encode())
    served.now += page_module._CLIENT_S + 1
    served.turn(3)
    assert served.page._clients == {}


def test_a_big_page_arrives_whole(served):
    served.text = "".join(f"c{number} 1.0\n" for number in range(300_000))
    sock = served.connect()
    sock.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
    data = b""
    for _ in range(5000):
        served.turn()
        served.now += 0.001
        with contextlib.suppress(BlockingIOError):
            piece = sock.recv(1 << 20)
            if not piece:
                break
            data += piece
    assert data.partition(b"\r\n\r\n")[2].decode() == served.text


def test_too_many_clients_are_turned_away_and_come_again(served):
    idle = [served.connect() for _ in range(page_module._CLIENTS_MAX)]
    served.turn(2 * len(idle))
    assert served.read(served.connect()) == b""
    idle.pop().close()
    served.turn(3)
    assert status(served.ask(b"GET /metrics HTTP/1.1\r\n\r\n")) == 200


def test_a_client_that_goes_on_sending_is_cut_off(served):
    sock = served.connect()
    sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
    served.turn(3)
    with contextlib.suppress(OSError):
        for _ in range(100):
            sock.send(b"x" * 8192)
            served.turn()
    served.turn(20)
    assert served.page._clients == {}


def test_a_client_that_resets_its_connection_is_no_harm(served):
    sock = served.connect()
    sock.sendall(b"GET /metr")
    served.turn(2)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()
    served.turn(3)
    assert served.page._clients == {}


def test_the_page_is_made_once_a_second(served):
    for _ in range(5):
        served.ask(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert served.made_count == 1
    served.now += page_module._PAGE_S
    served.ask(b"GET /metrics HTTP/1.1\r\n\r\n")
    assert served.made_count == 2


def test_a_port_that_is_taken_is_an_error(served):
    with pytest.raises(OSError, match="in use"):
        MetricsPage(served.pump, "127.0.0.1", served.page.port, served.make)
