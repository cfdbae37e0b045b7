"""Junk thrown at every socket of a running cluster: the cluster goes on as if nothing was."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

import mray
from mray import current
from mray.object_ref import ObjectRef
from mray.wire.codec import WIRE_VERSION, encode
from mray.wire.messages import Ack, GetNodes, Nodes, Ping, Refused, TaskReplies

from ..waiting import eventually

pytestmark = pytest.mark.failure

VERSION = bytes([WIRE_VERSION])
#: Bytes that are no ZeroMQ at all.
RAW = [
    b"\0",
    b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
    b"\xff" * 4096,
    bytes(range(256)) * 100,
    b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL" + b"\0" * 48 + b"\x02\x7f" + b"\xff" * 7,
]
#: Frames of well-formed ZeroMQ that are no message, or one that nobody has a use for.
FRAMES = [
    [b""],
    [b"", b"", b"three"],
    [b"junk"],
    [VERSION],
    [VERSION + b"\x94\x02\x01\xa2\xff\xfe\xa1a"],
    [VERSION + b"\x91" * 10_000],
    [VERSION + b"\xdd\xff\xff\xff\xff"],
    [encode(Ping(1))[:-1]],
    [encode(TaskReplies([], [b"no task"]))],
    # Every number of a request that may be open: nobody asked this peer.
    *([encode(Ack(rid))] for rid in range(1, 40)),
    *([encode(Refused(rid, "ValueError", "no"))] for rid in range(1, 40)),
    # Every type of message, with fields that are all wrong.
    *([VERSION + msgspec.msgpack.encode([tag, *fields])] for tag in range(130)
      for fields in ([], [1], [b"", 1], [1, b"", 0, "", [], {}])),
]  # fmt: skip


def throw(endpoint: str) -> None:
    kind, _, place = endpoint.partition("://")
    for junk in RAW:
        with socket.socket(socket.AF_UNIX if kind == "ipc" else socket.AF_INET) as raw:
            host, _, port = place.rpartition(":")
            raw.connect(place if kind == "ipc" else (host, int(port)))
            try:
                raw.sendall(junk)
            except (BrokenPipeError, ConnectionResetError):
                continue  # It has hung up on us already.
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 1000 if kind == "ipc" else 0
        dealer.connect(endpoint)
        for frames in FRAMES:
            try:
                dealer.send_multipart(frames, zmq.NOBLOCK)
            except zmq.Again:
                assert kind == "tcp"
                return  # Its handshake was refused: libzmq has given the connection up.


@mray.remote
class Counter:
    def __init__(self) -> None:
        self.count = 0

    def more(self) -> int:
        self.count += 1
        return self.count

    def socket(self) -> str:
        return str(current.get().address.ipc)


@mray.remote
def double(x: int) -> int:
    return 2 * x


@mray.remote
def socket_of_worker() -> str:
    return str(current.get().address.ipc)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


def sockets() -> dict[str, str]:
    rt = current.get()
    return {
        "head": rt.head.ipc,
        "node": rt.node.address.ipc,
        "driver": rt.address.ipc,
        "worker": mray.get(socket_of_worker.remote()),
    }


@pytest.mark.parametrize("process", ["head", "node", "driver", "worker"])
def test_junk_does_not_disturb(cluster: None, process: str) -> None:
    counter = Counter.remote()
    assert mray.get(counter.more.remote()) == 1
    pids = {node["NodeManagerAddress"]: node["Alive"] for node in mray.nodes()}
    throw(f"ipc://{sockets()[process]}")
    for round_ in range(3):
        assert mray.get([double.remote(i) for i in range(50)], timeout=20) == list(range(0, 100, 2))
        assert mray.get(counter.more.remote(), timeout=20) == round_ + 2
    assert {node["NodeManagerAddress"]: node["Alive"] for node in mray.nodes()} == pids
    big: ObjectRef[bytes] = mray.put(b"x" * 1_000_000)
    assert len(mray.get(big)) == 1_000_000


def test_junk_thrown_at_an_actor_does_not_disturb_its_calls(cluster: None) -> None:
    counter = Counter.remote()
    place = mray.get(counter.socket.remote())
    calls = [counter.more.remote() for _ in range(100)]
    throw(f"ipc://{place}")
    calls += [counter.more.remote() for _ in range(100)]
    assert mray.get(calls, timeout=20) == list(range(1, 201))


def test_junk_thrown_while_work_is_under_way_loses_none_of_it(cluster: None) -> None:
    calls = [double.remote(i) for i in range(2000)]
    for place in sockets().values():
        throw(f"ipc://{place}")
    assert mray.get(calls, timeout=20) == [2 * i for i in range(2000)]


def test_an_open_tcp_port_takes_junk_and_strangers_without_harm(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cli = [sys.executable, "-m", "mray.cli"]
    environ = {**os.environ, "MRAY_ADDRESS": ""}
    start = [
        *cli,
        "start",
        "--head",
        f"--port={port}",
        "--num-cpus=1",
        "--node-ip-address=127.0.0.1",
    ]
    done = subprocess.run(start, capture_output=True, text=True, timeout=30, env=environ)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        for _ in range(3):
            throw(f"tcp://127.0.0.1:{port}")
        code = (
            "import mray; mray.init('auto'); print(mray.get(mray.remote(lambda: 6 * 7).remote()))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, env=environ
        )
        assert ran.stdout.strip().endswith("42"), ran.stdout + ran.stderr
    finally:
        subprocess.run([*cli, "stop"], capture_output=True, timeout=30, env=environ, check=True)


def test_head_and_node_say_that_they_ignored_junk(cluster: None) -> None:
    rt = current.get()
    for place in (rt.head.ipc, rt.node.address.ipc):
        throw(f"ipc://{place}")
    logs = Path(rt.node.log_dir)
    for name in ("gcs", "raylet"):
        eventually(
            lambda name=name: any(  # type: ignore[misc]
                "ignored junk from peer" in path.read_text(errors="replace")
                for path in logs.glob(f"{name}*")
            ),
            what=f"a line about junk in the log of {name}",
        )
    assert isinstance(rt.ask(rt.head, GetNodes, Nodes), Nodes)
