"""Daemons that are started for real: ready, refused, stopped, dying with their driver."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import mray.bootstrap
from mray.bootstrap import (
    NodeOptions,
    Started,
    StartError,
    join,
    start_head,
    start_local,
    start_node,
    stop_local,
)
from mray.config import Config, Resolved, load
from mray.daemon_params import CONFIG_KEY, CONFIG_NAMESPACE, DaemonParams
from mray.daemon_spawn import spawn, wait_ready
from mray.process import alive, open_pidfd, start_time_of
from mray.rpc.client import AskError, Client
from mray.rpc.door import Keys
from mray.session import Session, all_running, create_session, find_running
from mray.session_end import end_session
from mray.wire.messages import (
    Ack,
    Address,
    DeathCause,
    GetNodes,
    Heartbeat,
    KvGet,
    KvValue,
    NodeGone,
    NodeInfo,
    NodeRegistered,
    Nodes,
    Ping,
    RegisterNode,
    Shutdown,
)

pytestmark = pytest.mark.integration

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def resolved() -> Iterator[Resolved]:
    """Settings with a short directory and a token of their own."""
    with tempfile.TemporaryDirectory(prefix="m", dir="/tmp") as path:
        environ = {"HOME": path, "MRAY_TMPDIR": path, "RAY_AUTH_TOKEN": TOKEN}
        yield load({}, environ, working_dir=path)


@pytest.fixture
def begin(resolved: Resolved) -> Iterator[Callable[..., Started]]:
    """Start a head without a node; all are stopped at the end."""
    started: list[Started] = []

    def start(session: Session | None = None, **options: object) -> Started:
        session = session or create_session(resolved.config.node.tmpdir)
        one = start_head(session, resolved, **{"with_node": False, **options})  # type: ignore[arg-type]
        started.append(one)
        return one

    yield start
    for one in started:
        stop_local(one, grace_s=5)


def wait_gone(pid: int, start_time: int, timeout_s: float = 30) -> None:
    pidfd = open_pidfd(pid, start_time)
    if pidfd is not None:
        assert select.select([pidfd], [], [], timeout_s)[0], f"process {pid} is still there"
        os.close(pidfd)


def node_info(node_id: bytes, **changes: object) -> NodeInfo:
    info = NodeInfo(
        node_id, Address(node_id, node_id), "127.0.0.1", "host", os.getpid(), {"CPU": 10_000}, {},
        "", "", "", 0, True, "0.1.0", "3.11.7",
    )  # fmt: skip
    return msgspec.structs.replace(info, **changes)


# -- ready


def test_a_head_that_was_started_answers_and_is_written_down(
    begin: Callable[..., Started], resolved: Resolved
) -> None:
    started = begin()
    session = started.session
    assert started.head.tcp == ""
    assert session.running()
    assert [(r.kind, r.pid) for r in session.processes()] == [("head", started.pids["head"])]
    info = session.info()
    assert (info.role, info.head_ipc, info.started_by) == ("head", started.head.ipc, "cli")
    with Client() as client:
        head = client.reach(f"ipc://{info.head_ipc}")
        nodes = client.ask(head, GetNodes, Nodes)
        config = client.ask(head, lambda rid: KvGet(rid, CONFIG_NAMESPACE, CONFIG_KEY), KvValue)
    assert (nodes.cluster_id, nodes.nodes) == (started.cluster_id, [])
    assert nodes.head.process_id == started.head.process_id
    assert config.value is not None
    assert Config.from_bytes(config.value) == resolved.config
    log = Path(session.logs, "gcs_server.out").read_text()
    assert f" I {started.pids['head']}] head is ready" in log


def test_the_token_is_in_no_command_line_environment_or_log(
    begin: Callable[..., Started], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("mray_auth_token", TOKEN)
    started = begin(tcp_host="127.0.0.1", tcp_port=0)
    process = Path("/proc", str(started.pids["head"]))
    seen = (process / "environ").read_bytes() + (process / "cmdline").read_bytes()
    assert b"mray.node" in seen
    assert f"MRAY_SESSION_DIR={started.session.path}".encode() in seen
    for path in Path(started.session.path).rglob("*"):
        if path.is_file():
            seen += path.read_bytes()
    assert TOKEN.encode() not in seen


def test_what_a_session_leaves_on_disk_is_private(begin: Callable[..., Started]) -> None:
    started = begin()
    for path in Path(started.session.path).rglob("*"):
        assert path.lstat().st_mode & 0o077 == 0 or path.is_symlink(), path


def test_the_token_opens_the_port_and_another_does_not(begin: Callable[..., Started]) -> None:
    started = begin(tcp_host="127.0.0.1", tcp_port=0)
    assert started.session.info().head_tcp == started.head.tcp == started.address
    assert not started.head.tcp.endswith(":0")
    with Client(Keys.from_token(TOKEN)) as client:
        head = client.reach(f"tcp://{started.head.tcp}")
        assert client.ask(head, GetNodes, Nodes).head.tcp == started.head.tcp
    with Client(Keys.from_token(TOKEN[::-1])) as client:
        head = client.reach(f"tcp://{started.head.tcp}")
        with pytest.raises(AskError):
            client.ask(head, GetNodes, Nodes, 0.5)


def test_junk_on_the_port_disturbs_nobody(begin: Callable[..., Started]) -> None:
    started = begin(tcp_host="127.0.0.1", tcp_port=0)
    host, _, port = started.head.tcp.partition(":")
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" + b"\0" * 8 + b"\x7f\3" + b"\0" * 53):
        with socket.create_connection((host, int(port))) as guest:
            guest.sendall(junk)
    with Client(Keys.from_token(TOKEN)) as client:
        client.ask(client.reach(f"tcp://{started.head.tcp}"), Ping, Ack)


# -- refused


def test_a_port_in_use_is_named_and_nothing_is_left(
    begin: Callable[..., Started], resolved: Resolved
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        session = create_session(resolved.config.node.tmpdir)
        with pytest.raises(StartError) as caught:
            begin(session, tcp_host="127.0.0.1", tcp_port=port)
    assert (caught.value.daemon, caught.value.kind) == ("head", "OSError")
    assert f"port {port} on 127.0.0.1 is in use" in str(caught.value)
    assert session.ended
    assert find_running(resolved.config.node.tmpdir) is None
    assert str(port) in Path(caught.value.log_path).read_text()


def test_a_session_is_begun_once(begin: Callable[..., Started]) -> None:
    first = begin()
    with pytest.raises(StartError, match="was begun by another start"):
        begin(Session(first.session.path))
    assert_answers(first)


def test_a_second_head_cannot_take_the_socket_of_the_first(begin: Callable[..., Started]) -> None:
    first = begin()
    spawned = spawn("head", _params_of(first, first.session), first.session)
    with pytest.raises(StartError, match=r"another process listens on .*gcs already"):
        wait_ready([spawned], 30.0)
    assert spawned.reap() == 1
    assert_answers(first)


def assert_answers(started: Started) -> None:
    with Client() as client:
        head = client.reach(f"ipc://{started.session.info().head_ipc}")
        assert client.ask(head, GetNodes, Nodes).cluster_id == started.cluster_id


def test_an_address_that_is_not_ours_is_an_error(begin: Callable[..., Started]) -> None:
    with pytest.raises(StartError, match=r"cannot listen on 203\.0\.113\.7:"):
        begin(tcp_host="203.0.113.7", tcp_port=0)


def test_an_open_port_without_authentication_is_refused(resolved: Resolved) -> None:
    path = resolved.config.node.tmpdir
    careless = load({}, {"MRAY_TMPDIR": path, "RAY_AUTH_MODE": "disabled"}, working_dir=path)
    session = create_session(path)
    with pytest.raises(ValueError, match="auth_mode is disabled"):
        start_head(session, careless, tcp_host="0.0.0.0", with_node=False)
    end_session(session)


def test_a_daemon_that_is_not_ready_in_time_is_stopped(
    begin: Callable[..., Started], resolved: Resolved
) -> None:
    session = create_session(resolved.config.node.tmpdir)
    with pytest.raises(StartError) as caught:
        begin(session, timeout_s=0.0)
    assert caught.value.kind == "TimeoutError"
    assert session.ended


def test_a_daemon_that_cannot_even_begin_tells_what_it_wrote(
    begin: Callable[..., Started], resolved: Resolved
) -> None:
    session = create_session(resolved.config.node.tmpdir)
    broken = msgspec.structs.replace(resolved, config=_Unreadable())
    with pytest.raises(StartError, match=r"ended before it was ready.*exit code 1") as caught:
        start_head(session, broken, with_node=False)
    assert "ConfigError" in str(caught.value)


_INTENDED = DeathCause("intended", "the test is over")


class _Unreadable:
    """Stands for a configuration that the daemon's version cannot read."""

    node = Config().node
    auth = Config().auth

    def to_bytes(self) -> bytes:
        return b"\xc1"


def test_a_daemon_whose_starter_is_gone_ends_itself(
    begin: Callable[..., Started], resolved: Resolved
) -> None:
    # The parameters of a head that ran, for one whose starter does not wait.
    started = begin()
    session = create_session(resolved.config.node.tmpdir)
    spawned = spawn("head", _params_of(started, session), session)
    start_time = start_time_of(spawned.pid)
    spawned.close()
    wait_gone(spawned.pid, start_time)
    assert spawned.reap() == 0
    assert "the program that started this daemon is gone" in Path(spawned.log_path).read_text()
    end_session(session)


def _params_of(started: Started, session: Session) -> DaemonParams:
    head = msgspec.structs.replace(started.head, ipc=f"{session.sockets}/gcs")
    return DaemonParams(
        process_id=head.process_id, cluster_id="c", session_dir=session.path, is_head=True,
        head=head, head_pid=0, head_start_time=0, ipc=head.ipc, config=Config().to_bytes(),
        token="", tcp_host="", tcp_port=0, node=NodeOptions(), owner_pid=0, owner_start_time=0,
        ready_fd=-1,
    )  # fmt: skip


# -- nodes (this process stands in for a node daemon)


@pytest.fixture
def node() -> Iterator[Client]:
    with Client() as client:
        yield client


def join_as(node: Client, started: Started, **changes: object) -> bytes:
    """Register the client as a node, under its own name; returns the head's."""
    head = dial(node, started)
    info = node_info(node.process_id, **changes)
    registered = node.ask(head, lambda rid: RegisterNode(rid, info), NodeRegistered)
    assert registered.nodes == [info]
    return head


def dial(node: Client, started: Started) -> bytes:
    node.pump.door.dial(started.head, node.process_id)
    return started.head.process_id


def test_a_node_of_another_version_is_refused(begin: Callable[..., Started], node: Client) -> None:
    started = begin()
    join_as(node, started)
    with Client() as other:
        info = node_info(other.process_id, mray_version="9.9.9")
        head = dial(other, started)
        with pytest.raises(AskError, match=r"mray 0\.1\.0 on Python 3\.11, the node mray 9\.9\.9"):
            other.ask(head, lambda rid: RegisterNode(rid, info), NodeRegistered)


def test_the_end_of_a_node_daemon_here_is_seen_at_once(
    begin: Callable[..., Started], node: Client
) -> None:
    started = begin()
    told: list[NodeGone] = []
    node.pump.on(NodeGone, lambda sender, message: told.append(message))
    with subprocess.Popen(["sleep", "1000"]) as daemon:
        try:
            head = join_as(node, started, pid=daemon.pid, session_dir=started.session.path)
        finally:
            daemon.kill()
    while not told:
        node.pump.send(head, Heartbeat(node.process_id, {}, [], 0, 0))
        node.pump.run_once(0.05)
    assert told[0].cause.text == "the node daemon's process ended"
    (view,) = node.ask(head, GetNodes, Nodes).nodes
    assert view.state == "DEAD"


def test_a_head_that_ends_asks_its_nodes_and_waits_for_them(
    begin: Callable[..., Started], node: Client
) -> None:
    started = begin()
    head = join_as(node, started)
    pid, start_time = started.pids["head"], start_time_of(started.pids["head"])
    asked: list[Shutdown] = []
    node.pump.on(Shutdown, lambda sender, message: asked.append(message))
    os.kill(pid, signal.SIGTERM)
    while not asked:
        node.pump.run_once(1.0)
    assert asked[0].reason == "the head stops: SIGTERM received"
    assert 0 < asked[0].grace_s < 5
    assert alive(pid, start_time)
    node.pump.send(head, NodeGone(node.process_id, _INTENDED))
    wait_gone(pid, start_time, timeout_s=3)
    log = Path(started.session.logs, "gcs_server.out").read_text()
    assert "head has ended with code 0" in log
    assert not os.path.exists(started.head.ipc)


def test_a_node_that_does_not_answer_does_not_hold_up_the_end(
    begin: Callable[..., Started], node: Client
) -> None:
    started = begin()
    head = join_as(node, started)
    pid, start_time = started.pids["head"], start_time_of(started.pids["head"])
    node.pump.request(head, lambda rid: Shutdown(rid, "test", 0.2), lambda reply: None, 5.0)
    node.pump.run_once(0.1)
    wait_gone(pid, start_time)


def test_sigusr1_writes_the_stacks(begin: Callable[..., Started]) -> None:
    started = begin()
    os.kill(started.pids["head"], signal.SIGUSR1)
    with Client() as client:
        client.ask(client.reach(f"ipc://{started.head.ipc}"), Ping, Ack)
    stacks = Path(started.session.logs, "gcs_server.err").read_text()
    assert "node/head/server.py" in stacks


# -- dying with the driver

_DRIVER = """
import json, os, sys
from mray.bootstrap import start_head
from mray.config import load
from mray.process import start_time_of
from mray.session import create_session
resolved = load({"tmpdir": sys.argv[1]}, os.environ)
session = create_session(sys.argv[1])
started = start_head(session, resolved, with_node=sys.argv[2] == "node", die_with_pid=os.getpid())
pids = list(started.pids.values())
print(json.dumps([session.path, pids, [start_time_of(pid) for pid in pids]]), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("what", ["head", "node"])
def test_a_cluster_of_a_driver_that_is_killed_is_gone_within_five_seconds(
    resolved: Resolved, what: str
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _DRIVER, resolved.config.node.tmpdir, what],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as driver:
        assert driver.stdout is not None
        line = driver.stdout.readline()
        driver.kill()
        give_up_at = time.monotonic() + 5
        path, pids, starts = json.loads(line)
    for pid, start_time in zip(pids, starts, strict=True):
        wait_gone(pid, start_time, timeout_s=give_up_at - time.monotonic())
    session = Session(path)
    assert not session.running()
    # Whoever starts next finds nothing to kill, and clears the rest away.
    end_session(session, force=True)
    assert session.ended


# -- whole clusters


def test_head_and_node_start_together_and_end_together(resolved: Resolved) -> None:
    started = start_local(resolved, node=NodeOptions(resources={"CPU": 2}))
    assert started.node is not None
    session = started.session
    assert session.info().started_by == "init"
    with Client(node_id=started.node.node_id) as client:
        client.ask(started.node, Ping, Ack)
        (view,) = client.ask(started.head, GetNodes, Nodes).nodes
    assert view.node.node_id == started.node.node_id
    assert view.node.is_head
    report = stop_local(started)
    assert report.survivors == []
    assert {"head", "node"} <= {record.kind for record in report.stopped}
    assert session.ended
    assert not [name for name in os.listdir("/dev/shm") if session.name in name]


def test_another_machine_joins_by_the_port(
    begin: Callable[..., Started], resolved: Resolved
) -> None:
    started = begin(with_node=True, tcp_host="127.0.0.1", tcp_port=0)
    joined = join(started.head.tcp, resolved, node=NodeOptions(resources={"CPU": 1}))
    assert joined.cluster_id == started.cluster_id
    assert joined.session.info().role == "node"
    assert [s.path for s in all_running(resolved.config.node.tmpdir)] == [
        started.session.path,
        joined.session.path,
    ]
    with Client() as client:
        head = client.reach(f"ipc://{started.head.ipc}")
        assert len(client.ask(head, GetNodes, Nodes).nodes) == 2
        assert stop_local(joined).survivors == []
        states = [view.state for view in client.ask(head, GetNodes, Nodes).nodes]
    assert states == ["ALIVE", "DEAD"]


def test_a_second_node_may_live_in_the_session_of_the_first(
    begin: Callable[..., Started], resolved: Resolved
) -> None:
    started = begin(with_node=True, node=NodeOptions(resources={"CPU": 1}))
    second = start_node(
        started.session,
        resolved,
        cluster_id=started.cluster_id,
        head=started.head,
        node=NodeOptions(resources={"CPU": 1}),
    )
    assert len(started.session.info().nodes) == 2
    with Client() as client:
        head = client.reach(f"ipc://{started.head.ipc}")
        assert len(client.ask(head, GetNodes, Nodes).nodes) == 2
    assert second.node is not None


def test_joining_where_no_head_is_says_so(
    resolved: Resolved, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mray.bootstrap, "_JOIN_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(ConnectionError, match=f"no mray head answered at 127.0.0.1:{port}"):
            join(f"127.0.0.1:{port}", resolved)
    assert find_running(resolved.config.node.tmpdir) is None
