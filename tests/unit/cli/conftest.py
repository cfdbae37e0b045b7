"""A command line in an empty home, and a cluster that answers from a table."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest

from mray.cli.main import main
from mray.resources import to_fixed
from mray.session import Target
from mray.wire.messages import (
    Address,
    GetJobs,
    GetNodes,
    GetPlacementGroups,
    JobDetails,
    Jobs,
    Message,
    NodeInfo,
    Nodes,
    NodeView,
    PlacementGroups,
)

NODE_ID = b"\x6d" + b"\x11" * 27
HEAD = Address(b"\x6d" + b"\xaa" * 27, NODE_ID, ipc="/run/gcs", tcp="127.0.0.1:6379")


class Outcome(NamedTuple):
    """How a command ended. ``err_lines`` are the lines of standard error."""

    code: int
    out: str
    err: str

    @property
    def err_lines(self) -> list[str]:
        return self.err.splitlines()


@dataclass
class FakeClient:
    """Answers each kind of question from ``answers``: a message, an exception, or a function."""

    answers: dict[type[Message], Any]
    asked: list[Message] = field(default_factory=list)
    closed: bool = False

    def reach(self, endpoint: str) -> bytes:
        return b"head"

    def ask(
        self,
        peer: bytes | Address,
        make: Callable[[int], Message],
        reply: type[Message],
        timeout_s: float = 5.0,
    ) -> Message:
        question = make(7)
        self.asked.append(question)
        answer = self.answers[type(question)]
        if callable(answer):
            answer = answer(question)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, reply)
        return answer

    def close(self) -> None:
        self.closed = True

    def questions(self, kind: type[Message]) -> list[Any]:
        return [question for question in self.asked if type(question) is kind]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty home and working directory, and no settings in the environment."""
    for name in list(os.environ):
        if name.startswith(("RAY_", "MRAY_")):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MRAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(home)
    return home


@pytest.fixture
def mray(capsys) -> Callable[..., Outcome]:
    """Run a command line in this process."""

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def make_node() -> Callable[..., NodeView]:
    def make(number: int = 1, state: str = "ALIVE", **facts: Any) -> NodeView:
        node_id = b"\x6d" + bytes([0x10 + number]) * 27
        total = to_fixed({"CPU": 4, "memory": 8 * 2**30, "object_store_memory": 2 * 2**30})
        info = NodeInfo(
            node_id=node_id,
            address=Address(node_id, node_id, ipc=f"/run/raylet-{number}"),
            ip=f"10.0.0.{number}",
            hostname=f"host{number}",
            pid=4000 + number,
            resources=total,
            labels={},
            session_dir="/tmp/mray-0/session_x",
            log_dir="/tmp/mray-0/session_x/logs",
            store_path="/dev/shm/mray-0-x",
            store_capacity_bytes=2 * 2**30,
            is_head=number == 1,
            mray_version="0.1.0",
            python_version="3.11.7",
            memory_monitor="every 250 ms, ends workers above 0.95 of the limit (group_by_owner)",
        )
        view: dict[str, Any] = {
            "available": {**total, "CPU": 25_000},
            "pending": [],
            "store_used_bytes": 2**20,
            "workers": 3,
            "since_heartbeat_s": 0.1,
            "memory_used_bytes": 3 * 2**29,
            "memory_limit_bytes": 16 * 2**30,
            "memory_threshold_bytes": 15 * 2**30 + 2**28,
        }
        return NodeView(node=info, state=state, **(view | facts))

    return make


@pytest.fixture
def make_job(make_node) -> Callable[..., JobDetails]:
    def make(submission_id: str = "nightly", status: str = "RUNNING", **facts: Any) -> JobDetails:
        details: dict[str, Any] = {
            "job_id": b"\1\0\0\0",
            "entrypoint": "job.py --x 1",
            "message": "",
            "exit_code": None,
            "start_unix_s": 1_700_000_000.0,
            "end_unix_s": 0.0 if status in ("PENDING", "RUNNING") else 1_700_000_002.5,
            "metadata": {},
            "node_id": make_node().node.node_id,
            "pid": 4242,
            "log_name": f"job-driver-{submission_id}.log",
        }
        return JobDetails(submission_id=submission_id, status=status, **(details | facts))

    return make


@pytest.fixture
def cluster(monkeypatch, make_node) -> FakeClient:
    """A cluster of one node without jobs; change ``answers`` to make it another."""
    nodes = Nodes(7, "c" * 32, HEAD, [make_node()], uptime_s=90.0)
    client = FakeClient(
        {GetNodes: nodes, GetJobs: Jobs(7, []), GetPlacementGroups: PlacementGroups(7, [])}
    )
    target = Target(kind="session", endpoint="ipc:///run/gcs", why="a test")
    monkeypatch.setattr("mray.cli.cluster.find", lambda address, resolved: target)
    monkeypatch.setattr("mray.cli.cluster.Client", lambda keys, node_id: client)
    return client
