"""Who gets in, who gets to see what: S1 to S7, F21 to F23, and the truth table of CURVE."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import secrets
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import pytest
import zmq

from mray.ids import new_process_id
from mray.rpc.client import Client
from mray.rpc.door import Door, Keys
from mray.session import all_sessions
from mray.session_end import SESSION_VARIABLE
from mray.wire.codec import encode
from mray.wire.messages import Address, GetNodes, Nodes, Ping

from ..netcluster import Driver
from ..waiting import eventually

pytestmark = pytest.mark.failure

ROOT = Path(__file__).resolve().parents[2]
TOKEN = secrets.token_hex(32)
NOBODY = 65534


class Cluster:
    """A cluster with ports, begun by `mray start`, with its token in the environment alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
        self.environ = {**kept, "HOME": str(folder), "MRAY_TMPDIR": str(folder),
                        "RAY_AUTH_TOKEN": TOKEN}  # fmt: skip

    def cli(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "mray.cli", *words],
            env={**self.environ, **variables}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def processes(self) -> list[psutil.Process]:
        """All of the cluster, but for drivers that users started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(SESSION_VARIABLE, "").startswith(str(self.folder)):
                    found.append(process)
        return found

    def ports(self) -> list[tuple[str, int, str]]:
        """Host, port and command line of each tcp socket that the cluster listens on."""
        return [
            (each.laddr.ip, each.laddr.port, " ".join(process.cmdline()))
            for process in self.processes()
            for each in process.net_connections("tcp")
            if each.status == psutil.CONN_LISTEN
        ]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    folder = Path(os.environ["MRAY_TMPDIR"]) / "trust"
    folder.mkdir()
    # What follows must be private by its own modes.
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    cluster = Cluster(folder)
    done = cluster.cli("start", "--head", "--port=0", "--num-cpus=2")
    assert done.returncode == 0, done.stdout + done.stderr
    yield cluster
    assert cluster.cli("stop").returncode == 0


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[Driver]:
    """A driver that has run tasks, an actor, a task that failed and one that was killed."""
    path = Path(__file__).parents[1] / "netcluster_driver.py"
    process = subprocess.Popen(
        [sys.executable, str(path)], env=cluster.environ, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    made = Driver(process)
    made.do(
        "import os, mray, numpy\n"
        "mray.init('auto')\n"
        "@mray.remote(max_retries=0)\n"
        "def fails(how):\n"
        "    print('fails')\n"
        "    if how == 'raise': raise ValueError(how)\n"
        "    os.abort()\n"
        "for how in ('raise', 'abort'):\n"
        "    try: mray.get(fails.remote(how))\n"
        "    except Exception as error: print(error)\n"
        "@mray.remote\n"
        "class Actor:\n"
        "    def environ(self): return dict(os.environ)\n"
        "actor = Actor.remote()\n"
        "kept = mray.put(numpy.zeros(1 << 20, 'uint8'))\n"
        "environ = mray.get(actor.environ.remote())\n"
    )
    yield made
    made.close()
    assert process.stderr is not None
    process.stderr.close()


def test_the_token_is_nowhere_but_where_the_user_put_it(cluster: Cluster, driver: Driver) -> None:
    assert TOKEN not in str(driver.do("result = environ"))
    script = cluster.folder / "job.py"
    script.write_text(
        "import os, mray\nmray.init()\nprint(dict(os.environ))\n"
        "print(mray.get(mray.remote(lambda: dict(os.environ)).remote()))\n"
    )
    said = cluster.cli("submit", str(script))
    assert said.returncode == 0, said.stdout + said.stderr
    for words in (("status",), ("stack",), ("logs", "raylet"), ("memory",), ("list", "workers")):
        said.stdout += cluster.cli(*words).stdout
    for process in cluster.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            said.stdout += f"{process.cmdline()} {process.environ()}"
    assert "mray.node" in said.stdout
    assert TOKEN not in said.stdout + said.stderr
    for path in cluster.folder.rglob("*"):
        if path.is_file() and path.name != "overflow":  # sparse, and huge
            assert TOKEN.encode() not in path.read_bytes(), path


def test_all_files_are_for_the_user_alone(cluster: Cluster, driver: Driver) -> None:
    (session,) = all_sessions(str(cluster.folder))
    places = [Path(session.path), *Path("/dev/shm").glob(f"{Path(session.store_prefix).name}*")]
    assert len(places) == 2
    for place in places:
        assert stat.S_IMODE(place.stat().st_mode) == 0o700, place
        for path in place.rglob("*"):
            mode = path.lstat().st_mode
            assert stat.S_ISLNK(mode) or not mode & 0o077, path


def _as_nobody(call: Callable[[], list[str]]) -> list[str]:
    """What ``call`` returns in a child that is another user."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(write, "\n".join(call()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        lines = answers.read().splitlines()
    os.waitpid(pid, 0)
    return lines


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_another_user_of_the_machine_reaches_nothing(cluster: Cluster, driver: Driver) -> None:
    (session,) = all_sessions(str(cluster.folder))
    stores = [str(each) for each in Path("/dev/shm").glob(f"{Path(session.store_prefix).name}*")]
    files = [str(path) for place in (session.path, *stores) for path in Path(place).rglob("*")]
    daemons = [record.pid for record in session.processes() if record.alive]
    assert any("raylet" in path for path in files)
    assert any("arena" in path for path in files)

    def reach() -> list[str]:
        reached = [] if os.getuid() == NOBODY else ["still root"]
        for path in [session.path, session.logs, session.sockets, *stores, *files]:
            for way in (os.listdir, lambda path: os.open(path, os.O_RDONLY), _connect):
                with contextlib.suppress(OSError):
                    way(path)
                    reached.append(path)
        for pid in daemons:
            for name in ("environ", "mem", "fd"):
                with contextlib.suppress(OSError):
                    path = f"/proc/{pid}/{name}"
                    os.listdir(path) if name == "fd" else os.open(path, os.O_RDONLY)
                    reached.append(path)
            with contextlib.suppress(OSError):
                os.kill(pid, 0)
                reached.append(f"signal to {pid}")
        return reached

    assert _as_nobody(reach) == []
    names = Path("/proc/net/unix").read_text()
    assert not re.search(r"@\S*mray", names), "a socket without permissions"


def _connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as guest:
        guest.connect(path)


def test_everything_listens_on_loopback_unless_told_otherwise(
    cluster: Cluster, driver: Driver
) -> None:
    ports = cluster.ports()
    assert len(ports) >= 2
    assert {host for host, _, _ in ports} == {"127.0.0.1"}


# -- the truth table: who gets in at each port


def _answered(
    port: int, public: bytes, pair: tuple[bytes, bytes] | None, seconds: float = 0.5
) -> bool:
    """Whether a ping is answered, or the handshake succeeds."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.linger = 0
        if pair is not None:
            dealer.curve_serverkey = public
            dealer.curve_publickey, dealer.curve_secretkey = pair
        monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(encode(Ping(1)))
        poller = zmq.Poller()
        poller.register(dealer, zmq.POLLIN)
        poller.register(monitor, zmq.POLLIN)
        found = bool(poller.poll(seconds * 1000))
        dealer.disable_monitor()
        monitor.close(0)
        return found


def _pair() -> tuple[bytes, bytes]:
    return zmq.curve_keypair()


def test_who_gets_in_at_every_port(cluster: Cluster, driver: Driver) -> None:
    right, wrong = Keys.from_token(TOKEN), Keys.from_token("w" * 64)
    (session,) = all_sessions(str(cluster.folder))
    head = int(session.info().head_tcp.rpartition(":")[2])
    for _, port, command in cluster.ports():
        strangers = {
            "no CURVE": (b"", None),
            "wrong token": (wrong.server_public, (wrong.client_public, wrong.client_secret)),
            "server key known, random client": (right.server_public, _pair()),
            "server key known, wrong client": (
                right.server_public, (wrong.client_public, wrong.client_secret)),
            "the server's own key": (
                right.server_public, (right.server_public, right.server_secret)),
        }  # fmt: skip
        for who, (public, pair) in strangers.items():
            assert not _answered(port, public, pair, 0.1), f"{who} at port {port} of {command}"
    assert _answered(head, right.server_public, (right.client_public, right.client_secret), 5)


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RAY_AUTH_TOKEN": "w" * 64}, "refuses the cluster token"),
        ({"RAY_AUTH_TOKEN": TOKEN[::-1]}, "refuses the cluster token"),
        ({"RAY_AUTH_TOKEN": ""}, "there is no cluster token"),
        ({"RAY_AUTH_TOKEN": "short"}, "5 characters"),
    ],
    ids=["wrong", "stale", "missing", "short"],
)
def test_a_client_with_another_token_is_told_so_within_five_seconds(
    cluster: Cluster, driver: Driver, tmp_path: Path, variables: dict[str, str], says: str
) -> None:
    (session,) = all_sessions(str(cluster.folder))
    elsewhere = {"MRAY_TMPDIR": str(tmp_path), "HOME": str(tmp_path), **variables}
    address = session.info().head_tcp
    for words in (("status", "--address", address), ("start", "--address", address)):
        begun = time.monotonic()
        ended = cluster.cli(*words, **elsewhere)
        assert time.monotonic() - begun < 5
        assert (ended.returncode, ended.stdout) == (1, "")
        assert says in ended.stderr
        assert "Traceback" not in ended.stderr


def test_without_an_authenticator_nobody_gets_in() -> None:
    keys = Keys.from_token(TOKEN)
    server, client = Door(new_process_id(), keys), Door(new_process_id(), keys)
    try:
        port = server.listen_tcp("127.0.0.1", 0)
        assert server._listening.get(zmq.ZAP_ENFORCE_DOMAIN) == 1
        assert int(server._listening.get(zmq.MAXMSGSIZE)) > 0  # type: ignore[arg-type]
        zap = server._zap
        assert zap is not None
        server._poller.unregister(zap)
        zap.close()
        server._zap = None
        client._dialling.set(zmq.LINGER, 0)
        client.dial(Address(server.process_id, b"o", tcp=f"127.0.0.1:{port}"), b"n")
        client.send(server.process_id, encode(Ping(1)))

        def refused() -> bool:
            assert list(server.poll(0.01)) == []
            assert list(client.poll(0.0)) == []
            return client.refusals > 0 or not client.send(server.process_id, encode(Ping(1)))

        eventually(refused)
    finally:
        client.close()
        server.close()


def test_libzmq_lets_strangers_in_where_the_domain_is_not_enforced() -> None:
    """Why ZAP_ENFORCE_DOMAIN has to be set. If this fails, libzmq has changed for the better."""
    public, secret = zmq.curve_keypair()
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.curve_server = True
        router.curve_secretkey = secret
        router.setsockopt(zmq.ZAP_DOMAIN, b"mray")
        port = router.bind_to_random_port("tcp://127.0.0.1")
        assert _answered(port, public, _pair(), 5)


def test_sockets_are_made_in_one_place() -> None:
    makers = []
    for folder in ("core", "cli", "node"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                    call = ast.unparse(node)
                    if node.func.attr == "socket" and "zmq." in call:
                        makers.append((path.relative_to(ROOT).as_posix(), call))
    assert set(makers) == {
        ("core/rpc/door.py", "self._context.socket(zmq.ROUTER)"),  # of a Door; the authenticator
        ("core/rpc/dialler.py", "self._context.socket(zmq.PAIR)"),  # within the process: a monitor
    }


# -- junk and floods


_JUNK = (b"", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00", b"\xff" * 9)


def test_idle_and_endless_connections_stop_nobody_and_leave_nothing(
    cluster: Cluster, driver: Driver
) -> None:
    (session,) = all_sessions(str(cluster.folder))
    host, _, port = session.info().head_tcp.rpartition(":")
    (pid,) = [each.pid for each in session.processes() if each.kind == "head"]
    before = len(os.listdir(f"/proc/{pid}/fd"))
    log = Path(session.logs, "gcs_server.out")
    size = log.stat().st_size
    with contextlib.ExitStack() as guests:
        for number in range(300):
            guest = guests.enter_context(socket.create_connection((host, int(port))))
            guest.sendall(_JUNK[number % len(_JUNK)])
        with Client(Keys.from_token(TOKEN)) as client:
            peer = client.reach(f"tcp://{host}:{port}")
            for _ in range(20):
                assert client.ask(peer, GetNodes, Nodes, 5.0).nodes
        for _ in range(300):
            socket.create_connection((host, int(port))).close()
        assert driver.do("result = mray.get(mray.remote(lambda: 42).remote(), timeout=20)") == 42
    eventually(
        lambda: len(os.listdir(f"/proc/{pid}/fd")) <= before + 2, 15, "connections are closed"
    )
    assert log.stat().st_size < size + 10_000


def test_who_never_speaks_holds_no_socket_of_a_daemon_while_the_cluster_works(
    cluster: Cluster, driver: Driver
) -> None:
    (session,) = all_sessions(str(cluster.folder))
    pids = {each.pid: each.kind for each in session.processes() if each.kind in ("head", "node")}
    places = [
        (each.laddr.ip, each.laddr.port)
        for pid in pids
        for each in psutil.Process(pid).net_connections("tcp")
        if each.status == psutil.CONN_LISTEN
    ]
    assert len(places) >= 3, "head, node, objects"
    before = {pid: len(os.listdir(f"/proc/{pid}/fd")) for pid in pids}
    with contextlib.ExitStack() as guests:
        silent = [
            guests.enter_context(socket.create_connection(place))
            for place in places
            for _ in range(300)
        ]
        driver.do("task = mray.remote(lambda x: x)")
        for number in range(20):
            program = f"result = mray.get(task.remote({number}), timeout=20)"
            assert driver.do(program) == number

        def cut_off() -> bool:
            return all(_has_ended(each) for each in silent)

        # Workers and drivers have the patience of 30 s.
        eventually(cut_off, 20, "every silent connection is cut off")
        for pid, kind in pids.items():
            # New workers cost some; the guests were hundreds.
            eventually(
                lambda pid=pid: len(os.listdir(f"/proc/{pid}/fd")) <= before[pid] + 50,  # type: ignore[misc]
                10,
                f"the descriptors of the {kind}",
            )
    assert driver.do("result = mray.get(task.remote(7), timeout=20)") == 7


def _has_ended(guest: socket.socket) -> bool:
    """Whether the other side has closed a connection, after what it has said."""
    guest.setblocking(False)
    try:
        while guest.recv(1000):
            continue
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


# -- what is installed with mray


def test_native_code_comes_from_known_packages_only() -> None:
    known = {"pyzmq", "msgspec", "numpy", "psutil", "tomli", "pydantic-core"}
    todo, seen = ["mray"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        with contextlib.suppress(metadata.PackageNotFoundError):
            todo += [
                re.split(r"[^A-Za-z0-9_.-]", need)[0].lower()
                for need in metadata.requires(name) or []
                if "extra ==" not in need
            ]
    native = set()
    for name in seen:
        with contextlib.suppress(metadata.PackageNotFoundError):
            files: list[Any] = metadata.files(name) or []
            if any(str(path).endswith((".so", ".pyd")) for path in files):
                native.add(name)
    assert native <= known
    assert native >= {"pyzmq", "msgspec", "numpy"}
