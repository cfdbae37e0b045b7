"""`mray start` and `mray stop`: options, refusals, what they print; nothing is really started."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import pytest

from mray.bootstrap import Started, StartError
from mray.cli import start, stop
from mray.session import ProcessRecord, SessionInfo, create_session
from mray.session_end import EndReport
from mray.wire.messages import Address, GetNodes


@dataclass
class Bootstrap:
    """Takes the place of start_head and join; ``outcome`` is raised where it is an exception."""

    calls: list[tuple[tuple[Any, ...], dict[str, Any]]]
    outcome: Any

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls.append((args, options))
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def session(tmp_path):
    session = create_session(str(tmp_path))
    yield session
    session.release()


@pytest.fixture
def bootstrap(monkeypatch, cluster, session):
    node_id = cluster.answers[GetNodes].nodes[0].node.node_id
    address = Address(node_id, node_id, ipc="/run/raylet")
    started = Started(
        session=session,
        cluster_id="c" * 32,
        head=cluster.answers[GetNodes].head,
        node=address,
        pids={"head": 11, "node": 12},
    )
    bootstrap = Bootstrap([], started)
    monkeypatch.setattr(start, "start_head", bootstrap)
    monkeypatch.setattr(start, "join", bootstrap)
    monkeypatch.setattr(start, "knock", lambda endpoint, why: None)
    monkeypatch.setattr(start, "find", lambda address, resolved: cluster_target(address))
    return bootstrap


def cluster_target(address):
    from mray.session import Target

    return Target(kind="tcp", endpoint=f"tcp://{address}", why="the address given")


def test_start_prints_what_to_do_next_and_what_was_set_up(mray, bootstrap, session):
    outcome = mray("start", "--head")
    assert (outcome.code, outcome.err) == (0, "")
    for part in (
        "Local node IP: 10.0.0.1",
        "mray start --address 127.0.0.1:6379",
        "ray.init()",
        "mray submit job.py",
        "mray status",
        f"mray stop --session {session.name}",
        "4 CPU",
        "2 GiB in /dev/shm/mray-0-x",
        "memory monitor",
        "every 250 ms, ends workers above 0.95",
        "no file is in effect",
        session.path,
    ):
        assert part in outcome.out


def test_start_hands_on_what_was_said(mray, bootstrap, home):
    (home / "c.toml").write_text("[logs]\nlog_to_driver = false\n")
    outcome = mray(
        "start", "--head", "--port", "7001", "--num-cpus", "3", "--num-gpus", "0.5",
        "--memory", "1GiB", "--resources", '{"license": 2}', "--object-store-memory", "100MiB",
        "--labels", "zone=a", "--node-ip-address", "127.0.0.2", "--config", "c.toml", "--verbose",
    )  # fmt: skip
    assert outcome.code == 0
    (_, resolved), options = bootstrap.calls[0]
    node = options["node"]
    assert options["tcp_port"] == 7001
    assert options["tcp_host"] == node.ip == node.tcp_host == "127.0.0.2"
    assert node.resources == {"CPU": 3, "GPU": 0.5, "memory": 2**30, "license": 2}
    assert node.labels == {"zone": "a"}
    assert resolved.config.object_store.object_store_memory == 100 * 2**20
    assert resolved.config.logs.log_to_driver is False
    assert "c.toml" in outcome.out
    assert "pid 11" in outcome.out


def test_without_an_ip_address_only_this_machine_is_listened_to(mray, bootstrap):
    mray("start", "--head")
    assert bootstrap.calls[0][1]["tcp_host"] == "127.0.0.1"


def test_a_temp_dir_is_mentioned_for_the_commands_that_follow(mray, bootstrap, tmp_path):
    outcome = mray("start", "--head", "--temp-dir", str(tmp_path / "elsewhere"))
    assert f"export MRAY_TMPDIR={tmp_path}/elsewhere" in outcome.out
    assert bootstrap.calls[0][0][1].config.node.tmpdir == f"{tmp_path}/elsewhere"


def test_start_address_joins(mray, bootstrap):
    outcome = mray("start", "--address", "10.0.0.5:6379", "--num-cpus", "1")
    assert outcome.code == 0
    (address, _), options = bootstrap.calls[0]
    assert address == "10.0.0.5:6379"
    assert options["node"].resources == {"CPU": 1}


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "say either --head"),
        (["--head", "--address", "h:1"], "not both"),
        (["--address", "h:1", "--port", "1"], "--port is the head's"),
        (["--head", "--port", "70000"], "--port"),
        (["--head", "--num-cpus", "-1"], "--num-cpus"),
        (["--head", "--num-cpus", "two"], "--num-cpus"),
        (["--head", "--memory", "lots"], "--memory"),
        (["--head", "--object-store-memory", "lots"], "--object-store-memory"),
        (["--head", "--object-store-memory", "1MiB"], "--object-store-memory"),
        (["--head", "--resources", "x"], "--resources"),
        (["--head", "--labels", "x"], "--labels"),
        (["--head", "--nope"], "--nope"),
        (["--head", "--include-dashboard", "true"], "option of Ray that this version of mray"),
        (["--head", "--system-config={}"], "use --config"),
        (["--head", "--disable-usage-stats"], "mray never reports usage"),
    ],
)
def test_wrong_options_are_one_line_and_start_nothing(mray, bootstrap, words, why):
    outcome = mray("start", *words)
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (2, "", 1)
    assert why in outcome.err
    assert bootstrap.calls == []


def test_a_start_that_fails_is_one_line(mray, bootstrap, session):
    text = "exit code 1; it wrote:\nTraceback\n  File x\nImportError: no zmq\n; its log is /l"
    bootstrap.outcome = StartError("head", "RuntimeError", text, "/l")
    outcome = mray("start", "--head")
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (1, "", 1)
    assert "ImportError: no zmq" in outcome.err


def test_a_second_start_on_the_port_names_the_first(mray, bootstrap, session, monkeypatch):
    session.write_info(_info())
    session.record_process("head", os.getpid())
    outcome = mray("start", "--head")
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (1, "", 1)
    assert "a cluster of yours already runs at 127.0.0.1:6379" in outcome.err
    assert f"mray stop --session {session.name}" in outcome.err
    assert mray("start", "--head", "--port", "6380").code == 0


def _info(started_by: str = "cli") -> SessionInfo:
    return SessionInfo(
        cluster_id="c" * 32,
        role="head",
        head_id="",
        head_ipc="/run/gcs",
        head_tcp="127.0.0.1:6379",
        nodes=[],
        started_by=started_by,  # type: ignore[arg-type]
        created_unix_s=0.0,
    )


@pytest.fixture
def ends(monkeypatch):
    """What end_session was asked; each session had a head and two workers."""
    asked = []
    records = [
        ProcessRecord(kind=kind, pid=pid, start_time=1, name="")
        for kind, pid in (("head", 11), ("worker", 12), ("worker", 13))
    ]

    def end(session, *, force, grace_s):
        asked.append((session.name, force, grace_s))
        return EndReport(stopped=records)

    monkeypatch.setattr(stop, "end_session", end)
    return asked


def test_stop_without_a_session_is_no_error(mray, ends):
    outcome = mray("stop")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("nothing to stop")


def test_stop_ends_what_start_started_and_says_so_in_a_line(mray, ends, session):
    session.write_info(_info())
    session.record_process("head", os.getpid())
    outcome = mray("stop")
    assert outcome == (0, f"stopped 1 head, 2 workers of {session.name}\n", "")
    assert ends == [(session.name, False, 16.0)]


def test_stop_leaves_the_cluster_of_a_program_alone_unless_told(mray, ends, session):
    session.write_info(_info(started_by="init"))
    session.record_process("head", os.getpid())
    outcome = mray("stop")
    assert (outcome.code, ends) == (0, [])
    assert "1 cluster that a program started is left alone (--all)" in outcome.out
    assert mray("stop", "--all", "--force", "--grace-period", "2").code == 0
    assert ends == [(session.name, True, 2.0)]


def test_stop_finds_a_session_by_prefix(mray, ends, session):
    session.write_info(_info(started_by="init"))
    assert mray("stop", "--session", session.name[:-2]).code == 0
    assert mray("stop", "--session", session.path).code == 0
    outcome = mray("stop", "--session", "session_nope")
    assert outcome.code == 1
    assert f"running: {session.name}" in outcome.err


def test_stop_names_what_survives(mray, monkeypatch, session):
    session.write_info(_info())
    record = ProcessRecord(kind="worker", pid=99, start_time=1, name="w1")
    report = EndReport(survivors=[record])
    monkeypatch.setattr(stop, "end_session", lambda *args, **options: report)
    outcome = mray("stop")
    assert outcome.code == 1
    assert outcome.err == "mray: still alive: worker pid 99 w1\n"
