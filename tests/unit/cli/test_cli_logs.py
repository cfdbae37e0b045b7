"""`mray logs`: finding a log by what a person knows of it, and printing it byte for byte."""

from __future__ import annotations

import fnmatch
import json

import pytest
from msgspec.structs import replace

from mray.session import create_session
from mray.wire.messages import (
    ActorList,
    ActorState,
    GetJobs,
    GetNodes,
    Jobs,
    ListActors,
    ListLogs,
    LogChunk,
    LogFile,
    LogFiles,
    Nodes,
    ReadLog,
)

FILES = {
    "raylet.out": b"r1\nr2\nr3\n",
    "raylet.err": b"",
    "gcs_server.out": b"g\n",
    "job-driver-mraysubmit_abc.log": b"driver\n",
    "job-driver-nightly.log": b"night\n",
    "worker-6daa11-01000000-71.out": b"w71\n",
    "worker-6daa11-01000000-71.err": b"oops\n",
    "worker-6daa22-01000000-72.out": b"w72\n",
    "worker-6daa22-01000000-72.err": b"",
    "binary.log": b"\xff\x00\r\x1b[31m",
}


@pytest.fixture
def logs(cluster, make_job):
    """The cluster's one node has FILES, two of them of jobs."""

    def found(m):
        names = [name for name in FILES if fnmatch.fnmatchcase(name, m.pattern)]
        return LogFiles(m.rid, [LogFile(name, len(FILES[name]), 1.7e9) for name in names])

    def read(m):
        data, offset = FILES[m.name], m.offset
        if offset < 0:
            offset = sum(len(line) for line in data.splitlines(keepends=True)[:offset])
        part = data[offset : offset + m.max_bytes]
        return LogChunk(m.rid, part, offset + len(part), True)

    jobs = [make_job("nightly", job_id=b"\3\0\0\0"), make_job("mraysubmit_abc")]
    cluster.answers |= {
        ListLogs: found, ReadLog: read, ListActors: ActorList(7, []), GetJobs: Jobs(7, jobs)
    }  # fmt: skip
    return cluster


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["raylet"], "r1\nr2\nr3\n"),
        (["raylet.out"], "r1\nr2\nr3\n"),
        (["gcs"], "g\n"),
        (["gcs_server"], "g\n"),
        (["cluster", "raylet.out"], "r1\nr2\nr3\n"),
        (["gcs*"], "g\n"),
        (["job", "nightly"], "night\n"),
        (["job", "nig"], "night\n"),
        (["job", "abc"], "driver\n"),
        (["job", "03000000"], "night\n"),
        (["nightly"], "night\n"),
        (["job-driver-nightly"], "night\n"),
        (["worker", "6daa22"], "w72\n"),
        (["worker", "72"], "w72\n"),
        (["6daa22"], "w72\n"),
        (["worker", "6daa11", "--err"], "oops\n"),
        (["raylet", "--err"], ""),
    ],
)
def test_a_log_is_found_by_name_pattern_or_id(mray, logs, words, text):
    outcome = mray("logs", *words)
    assert (outcome.code, outcome.out) == (0, text)


def test_output_of_a_worker_mentions_its_errors(mray, logs):
    assert mray("logs", "worker", "71").err == (
        "mray: there are 5 B on standard error too: --err shows them\n"
    )
    assert mray("logs", "worker", "72").err == ""


def test_an_actor_is_found_by_its_id_or_name(mray, logs):
    actor = ActorState(b"\xab" * 16, "DEAD", 0, None, pid=72, name="counter")
    logs.answers[ListActors] = ActorList(7, [actor])
    assert mray("logs", "actor", "abab").out == "w72\n"
    assert mray("logs", "actor", "counter").out == "w72\n"
    assert mray("logs", "abab").out == "w72\n"


def test_an_ambiguous_prefix_lists_the_candidates(mray, logs):
    outcome = mray("logs", "worker", "6daa")
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (1, "", 1)
    assert "means 2 logs: worker-6daa11-01000000-71.out, worker-6daa22" in outcome.err


@pytest.mark.parametrize("words", [["nope"], ["nope*"], ["job", "nope"], ["actor", "nope"]])
def test_a_log_that_is_not_there_is_exit_code_1(mray, logs, words):
    outcome = mray("logs", *words)
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (1, "", 1)
    assert "`mray logs` lists what there is" in outcome.err


@pytest.mark.parametrize("words", [["a", "b"], ["job", "a", "b"], ["raylet", "--tail", "-2"]])
def test_wrong_words_are_exit_code_2(mray, logs, words):
    assert mray("logs", *words).code == 2


def test_the_list_groups_logs_and_shows_sizes(mray, logs):
    text = mray("logs").out
    assert text.startswith("node 10.0.0.1 (6d1111111111): 10 logs\n")
    assert text.index("daemons") < text.index("jobs") < text.index("workers") < text.index("other")
    assert "       9 B" in text
    entries = json.loads(mray("logs", "--json").out)
    assert {entry["name"] for entry in entries} == set(FILES)
    assert entries[0]["category"] == "daemons"


def test_a_pattern_of_several_lists_them(mray, logs):
    assert "2 logs" in mray("logs", "worker-*.err").out


def test_the_tail_is_cut_and_said(mray, logs):
    outcome = mray("logs", "raylet", "--tail", "2")
    assert outcome.out == "r2\nr3\n"
    assert outcome.err == "mray: the last 2 lines of raylet.out; --tail -1 shows all there is\n"
    assert mray("logs", "raylet", "--tail", "3").err == ""
    assert mray("logs", "raylet", "--tail", "0").out == ""
    assert logs.questions(ReadLog)[0].offset == -2


def test_bytes_are_printed_as_they_are(logs, capsysbinary):
    from mray.cli.main import main

    assert main(["logs", "binary.log"]) == 0
    assert capsysbinary.readouterr().out == FILES["binary.log"]


def test_follow_goes_on_until_ctrl_c(mray, logs):
    parts = iter([b"r1\n", b"", b"r2\n", KeyboardInterrupt()])

    def read(m):
        part = next(parts)
        if isinstance(part, BaseException):
            return part
        return LogChunk(m.rid, part, m.offset + len(part) if m.offset > 0 else 100, True)

    logs.answers[ReadLog] = read
    outcome = mray("logs", "raylet", "-f")
    assert (outcome.code, outcome.out) == (130, "r1\nr2\n")
    assert [m.wait_s > 0 for m in logs.questions(ReadLog)] == [False, True, True, True]


def test_a_node_is_chosen_by_ip_or_id(mray, logs, make_node):
    nodes = logs.answers[GetNodes]
    logs.answers[GetNodes] = Nodes(
        7, nodes.cluster_id, nodes.head, [make_node(2), make_node(1), make_node(3, "DEAD")]
    )
    assert mray("logs", "raylet.out", "-ip", "10.0.0.2").code == 0
    assert mray("logs", "raylet", "--node-id", "6d12").code == 0
    outcome = mray("logs", "raylet.out", "-ip", "10.9.9.9")
    assert outcome.code == 1
    assert "10.0.0.1, 10.0.0.2" in outcome.err
    assert "is DEAD and cannot be asked" in mray("logs").err


def test_the_logs_of_a_node_that_died_here_are_read_from_its_files(mray, cluster, make_node, home):
    (home / "raylet.out").write_bytes(b"last words\n")
    dead = make_node(1, "DEAD")
    dead = replace(dead, node=replace(dead.node, log_dir=str(home)))
    nodes = cluster.answers[GetNodes]
    cluster.answers[GetNodes] = Nodes(7, nodes.cluster_id, nodes.head, [dead])
    outcome = mray("logs", "raylet")
    assert (outcome.code, outcome.out) == (0, "last words\n")
    assert f"is DEAD; its logs are read from {home}" in outcome.err


def test_the_logs_of_a_session_that_ended_are_read_from_its_files(mray, tmp_path):
    session = create_session(str(tmp_path))
    session.release()
    logs = tmp_path / session.path / "logs"
    (logs / "raylet.out.2").write_bytes(b"a\nb\n")
    (logs / "raylet.out.1").write_bytes(b"c\n")
    (logs / "raylet.out").write_bytes(b"d\ne\n")
    outcome = mray("logs", "raylet", "--tail", "-1")
    assert (outcome.code, outcome.out) == (0, "a\nb\nc\nd\ne\n")
    assert "which has ended" in outcome.err
    assert mray("logs", "raylet", "--tail", "3").out == "c\nd\ne\n"
    assert "1 log\n" in mray("logs").out
