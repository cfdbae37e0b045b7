"""Several machines on one: each node of a cluster in a network namespace of its own.

``NetCluster`` makes a bridge in a namespace of its own and, for each node, a namespace with an
address on it (10.77.0.<n>), a cable that can be pulled, a private temporary directory and, if
asked, a small /dev/shm of its own. Daemons are started by `mray start` inside, drivers too
(``NetNode.driver``). Needs root and `ip`; ``why_not()`` says what is missing.

Processes, sessions and namespaces are removed by ``close()`` whatever happened, and it is an error
if any is left.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from mray.session import all_sessions
from mray.session_end import SESSION_VARIABLE
from mray.session_files import ProcessRecord, Session

from .waiting import eventually

_DRIVER = str(Path(__file__).parent / "netcluster_driver.py")
_NETWORK = "10.77.0"
_START_S = 60.0


def why_not() -> str:
    """Why no NetCluster can be made here; "" where one can."""
    if os.getuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "tc", "unshare"):
        if shutil.which(program) is None:
            return f"the program {program} is missing (Debian: apt-get install iproute2)"
    name = f"mr{secrets.token_hex(3)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode != 0:
        return f"no network namespace can be made: {made.stderr.strip()}"
    linked = subprocess.run(
        ["ip", "-n", name, "link", "add", "br0", "type", "bridge"], capture_output=True, text=True
    )
    subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return "" if linked.returncode == 0 else f"no bridge can be made: {linked.stderr.strip()}"


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class DriverError(AssertionError):
    """A program raised in a driver. ``kind`` is the exception's name."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Driver:
    """A process on a node that runs programs one after the other, in one namespace of names."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._under_way = False

    def begin(self, program: str) -> None:
        """Run a program and do not wait; ``end()`` does."""
        assert self.process.stdin is not None
        assert not self._under_way
        self._under_way = True
        self.process.stdin.write(json.dumps({"do": program}) + "\n")
        self.process.stdin.flush()

    def end(self, timeout_s: float = 60.0) -> Any:
        """The ``result`` of the program that runs. DriverError: it raised."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], timeout_s)[0]:
            raise AssertionError(f"the driver has not answered within {timeout_s} s")
        line = self.process.stdout.readline()
        self._under_way = False
        if not line:
            raise AssertionError(f"the driver has ended: {self.process.wait(10)}")
        answer = json.loads(line)
        if "error" in answer:
            raise DriverError(answer["kind"], answer["error"])
        return answer["result"]

    def do(self, program: str, timeout_s: float = 60.0) -> Any:
        """Run a program and return what it left in ``result``."""
        self.begin(program)
        return self.end(timeout_s)

    def is_done(self) -> bool:
        """Whether the program that runs has an answer."""
        return bool(select.select([self.process.stdout], [], [], 0)[0])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def close(self) -> None:
        """End it by the end of its input; by force where that takes too long."""
        self._close_pipes()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


class NetNode:
    """One machine. Its daemons are those of ``session``."""

    def __init__(self, cluster: NetCluster, number: int, shm_bytes: int) -> None:
        self.number = number
        self.ip = f"{_NETWORK}.{number}"
        self.namespace = f"{cluster.name}n{number}"
        self._cluster = cluster
        self._port = f"p{number}"
        self._shm_bytes = shm_bytes
        #: Whether the cable is pulled.
        self.is_cut_off = False
        self.folder = cluster.folder / f"n{number}"
        self.folder.mkdir()
        bridge = cluster.bridge
        _run("ip", "netns", "add", self.namespace)
        cluster.namespaces.append(self.namespace)
        _run("ip", "-n", bridge, "link", "add", self._port, "type", "veth", "peer", "name", "v0",
             "netns", self.namespace)  # fmt: skip
        _run("ip", "-n", bridge, "link", "set", self._port, "master", "br0")
        _run("ip", "-n", bridge, "link", "set", self._port, "up")
        for words in (
            ("link", "set", "lo", "up"),
            ("addr", "add", f"{self.ip}/24", "dev", "v0"),
            ("link", "set", "v0", "up"),
        ):
            _run("ip", "-n", self.namespace, *words)

    # -- processes

    def environ(self) -> dict[str, str]:
        """Of what runs on this machine."""
        return {**self._cluster.environ, "MRAY_TMPDIR": str(self.folder), "MRAY_ADDRESS": ""}

    def command(self, *words: str) -> list[str]:
        """A command line that runs on this machine."""
        if not self._shm_bytes:
            return ["ip", "netns", "exec", self.namespace, *words]
        mount = f"mount -t tmpfs -o size={self._shm_bytes} tmpfs /dev/shm && exec \"$@\""
        return ["ip", "netns", "exec", self.namespace, "unshare", "--mount", "--propagation",
                "private", "sh", "-c", mount, "sh", *words]  # fmt: skip

    def cli(self, *words: str, timeout_s: float = _START_S) -> subprocess.CompletedProcess[str]:
        """`mray …` on this machine."""
        return subprocess.run(
            self.command(sys.executable, "-m", "mray.cli", *words),
            env=self.environ(), capture_output=True, text=True, timeout=timeout_s, check=False,
        )  # fmt: skip

    def start(self, *options: str) -> None:
        """`mray start …` on this machine. RuntimeError with what it said where it fails."""
        done = self.cli("start", f"--node-ip-address={self.ip}", *options)
        if done.returncode != 0:
            raise RuntimeError(f"mray start on {self.ip}: {done.stdout}{done.stderr}")

    def driver(self) -> Driver:
        """A driver on this machine; it ends with the cluster at the latest."""
        process = subprocess.Popen(
            self.command(sys.executable, _DRIVER),
            env=self.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        made = Driver(process)
        self._cluster.drivers.append(made)
        return made

    def sessions(self) -> list[Session]:
        """All sessions that this machine has had, the oldest first."""
        return sorted(all_sessions(str(self.folder)), key=lambda session: session.name)

    @property
    def session(self) -> Session:
        """The newest session."""
        return self.sessions()[-1]

    def daemon(self, kind: str = "node") -> ProcessRecord:
        """The head or the node daemon that runs here."""
        for session in reversed(self.sessions()):
            for record in session.processes():
                if record.kind == kind and record.alive:
                    return record
        raise LookupError(f"no {kind} runs on {self.ip}")

    def signal(self, number: signal.Signals, kind: str = "node") -> ProcessRecord:
        """Send a signal to the head or the node daemon; returns which process it was."""
        record = self.daemon(kind)
        os.kill(record.pid, number)
        return record

    def workers(self) -> list[psutil.Process]:
        """All that descends from the node daemon."""
        with contextlib.suppress(LookupError, psutil.NoSuchProcess):
            return psutil.Process(self.daemon().pid).children(recursive=True)
        return []

    # -- the network

    def pull_cable(self) -> None:
        """Silence: packets vanish in both directions, and nobody is told."""
        _run("ip", "-n", self._cluster.bridge, "link", "set", self._port, "down")
        self.is_cut_off = True

    def plug_in(self) -> None:
        """Undo pull_cable()."""
        _run("ip", "-n", self._cluster.bridge, "link", "set", self._port, "up")
        self.is_cut_off = False

    def block(self, other: NetNode) -> None:
        """Packets to ``other`` are errors here; those from it arrive (one way, and loud)."""
        _run("ip", "-n", self.namespace, "route", "add", "blackhole", f"{other.ip}/32")

    def unblock(self, other: NetNode) -> None:
        """Undo block()."""
        _run("ip", "-n", self.namespace, "route", "del", "blackhole", f"{other.ip}/32")

    def slow_down(self, rate: str) -> None:
        """Send no faster than ``rate``, as in "8mbit"."""
        _run("tc", "-n", self.namespace, "qdisc", "replace", "dev", "v0", "root", "tbf", "rate",
             rate, "burst", "32kbit", "latency", "400ms")  # fmt: skip

    def full_speed(self) -> None:
        """Undo slow_down()."""
        _run("tc", "-n", self.namespace, "qdisc", "del", "dev", "v0", "root")


class NetCluster:
    """See the module. ``settings`` are environment variables of all that runs on the nodes."""

    def __init__(self, settings: dict[str, str] | None = None) -> None:
        self.name = f"mr{secrets.token_hex(3)}"
        self.bridge = f"{self.name}br"
        self.nodes: list[NetNode] = []
        self.drivers: list[Driver] = []
        self.namespaces: list[str] = []
        # Short: the path of a unix socket has at most 107 bytes.
        base = os.environ.get("MRAY_TMPDIR", "/tmp")
        self.folder = Path(tempfile.mkdtemp(prefix="n", dir=base))
        token = self.folder / "token"
        token.touch(0o600)
        token.write_text(secrets.token_hex(32))
        self.environ = {
            **os.environ,
            "RAY_AUTH_TOKEN_PATH": str(token),
            # Nodes share the file system, and must not find each other by it.
            "MRAY_SAME_MACHINE_IPC": "0",
            **(settings or {}),
        }
        self.port = 6379
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        try:
            _run("ip", "netns", "add", self.bridge)
            self.namespaces.append(self.bridge)
            _run("ip", "-n", self.bridge, "link", "add", "br0", "type", "bridge")
            _run("ip", "-n", self.bridge, "link", "set", "br0", "up")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def add_machine(self, shm_bytes: int = 0) -> NetNode:
        """A machine on which nothing of mray runs yet."""
        machine = NetNode(self, next(self._numbers), shm_bytes)
        self.nodes.append(machine)
        return machine

    def add_node(self, *options: str, num_cpus: int = 2, shm_bytes: int = 0) -> NetNode:
        """A machine with a node of the cluster; the first one has the head."""
        is_head = not self.nodes
        machine = self.add_machine(shm_bytes)
        where = ("--head", f"--port={self.port}") if is_head else (f"--address={self.address}",)
        machine.start(*where, f"--num-cpus={num_cpus}", *options)
        return machine

    @property
    def address(self) -> str:
        """The head's "host:port"."""
        return f"{self.nodes[0].ip}:{self.port}"

    # -- what quiescent.py asks for; the first driver is the one that looks

    def sessions(self) -> list[Session]:
        return [session for machine in self.nodes for session in machine.sessions()]

    def look(self, keep_actors: bool) -> dict[str, Any]:
        seen = self.drivers[0].do(f"result = look({keep_actors})", 30)
        assert isinstance(seen, dict)
        return seen

    def wait_for_nodes(self, count: int, timeout_s: float = 30.0) -> None:
        """Until the head knows so many living nodes; asked by the first driver."""
        program = "import mray\nresult = sum(node['Alive'] for node in mray.nodes())"
        eventually(
            lambda: self.drivers[0].do(program) == count, timeout_s, f"{count} living nodes"
        )

    # -- the end

    def close(self) -> None:
        """End every process, remove every namespace and folder. AssertionError: one was left."""
        for driver in self.drivers:
            driver.close()
        for process in self._processes():
            # A stopped one hears nothing else.
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        for machine in reversed(self.nodes):
            for session in machine.sessions():
                self._stop(session)
        left = [f"pid {each.pid}: {' '.join(each.cmdline())}" for each in _killed(self._running())]
        for namespace in self.namespaces:
            _run("ip", "netns", "delete", namespace)
        shutil.rmtree(self.folder, ignore_errors=True)
        named = [line for line in _run("ip", "netns", "list").split() if self.name in line]
        assert not left + named, f"left behind by a NetCluster: {left + named}"

    def _stop(self, session: Session) -> None:
        from mray.session_end import end_session

        if not session.ended:
            end_session(session, grace_s=5.0)

    def _processes(self) -> Iterator[psutil.Process]:
        """All that runs in our sessions."""
        folder = f"{self.folder}/"
        for process in psutil.process_iter():
            try:
                if process.environ().get(SESSION_VARIABLE, "").startswith(folder):
                    yield process
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue

    def _running(self) -> list[psutil.Process]:
        """What still runs, of those above, a little later."""
        give_up_at = time.monotonic() + 10
        while True:
            found = [each for each in self._processes() if each.status() != psutil.STATUS_ZOMBIE]
            if not found or time.monotonic() > give_up_at:
                return found
            time.sleep(0.02)


def _killed(processes: list[psutil.Process]) -> list[psutil.Process]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return processes
