"""`mray submit` and `mray job`: what is sent, what is printed, and the exit codes."""

from __future__ import annotations

import json
import sys

import msgspec
import pytest

from mray.cli.follow import ending, exit_code
from mray.rpc.client import AskError
from mray.wire.messages import (
    Ack,
    GetJobs,
    GetNodes,
    Jobs,
    JobSubmitted,
    LogChunk,
    PackageState,
    PutPackage,
    ReadLog,
    StopJob,
    SubmitJob,
)


@pytest.fixture
def script(home):
    (home / "job.py").write_text("print('hello')\n")
    return home / "job.py"


def stored(message):
    """A head that has a package once it was sent whole."""
    end = message.offset + len(message.data)
    complete = bool(message.data) and end == message.total_bytes
    return PackageState(message.rid, end, complete=complete)


class Job:
    """A job whose log grows by one of ``parts`` at each read, and which then ends."""

    def __init__(self, cluster, make_job, parts, status="SUCCEEDED", **facts):
        self.log = b""
        self.parts = list(parts)
        self.status = status
        self.make = make_job
        self.facts = facts
        self.submission_id = ""
        self.cluster = cluster
        cluster.answers |= {
            SubmitJob: self.submit, GetJobs: self.jobs, ReadLog: self.read,
            StopJob: lambda m: Ack(m.rid),
        }  # fmt: skip

    def submit(self, message):
        self.submission_id = message.submission_id
        return JobSubmitted(message.rid, message.submission_id)

    def jobs(self, message):
        over = not self.parts
        job = (
            self.make(self.submission_id, self.status, **self.facts)
            if over
            else self.make(self.submission_id, "RUNNING")
        )
        return Jobs(message.rid, [job])

    def read(self, message):
        if len(self.log) == message.offset and self.parts:
            part = self.parts.pop(0)
            if isinstance(part, BaseException):
                return part
            self.log += part
        data = self.log[message.offset : message.offset + message.max_bytes]
        return LogChunk(message.rid, data, message.offset + len(data), not data)


def test_submit_prints_the_log_to_its_last_byte_and_ends_with_the_jobs_code(
    mray, cluster, make_job, script
):
    lines = [b"one\n", b"tw", b"o\n", b"", b"last"]
    Job(cluster, make_job, lines, "FAILED", exit_code=3, message="exit code 3 (pid 1)")
    outcome = mray("submit", "--submission-id", "nightly", "job.py", "--x", "1")
    assert (outcome.code, outcome.out) == (3, "one\ntwo\nlast")
    assert outcome.err_lines == [
        "mray: job nightly submitted to 127.0.0.1:6379",
        "mray: job nightly failed with exit code 3 after 2.5 s",
    ]


def test_a_job_that_succeeds_is_exit_code_0(mray, cluster, make_job, script):
    Job(cluster, make_job, [b"x\n"], exit_code=0)
    outcome = mray("submit", "job.py")
    assert (outcome.code, outcome.out) == (0, "x\n")
    assert outcome.err_lines[-1].endswith("succeeded after 2.5 s")


def test_a_script_is_launched_by_this_interpreter_with_its_own_options(
    mray, cluster, make_job, script
):
    Job(cluster, make_job, [])
    mray("submit", "--as-ray", "job.py", "--as-ray", "--", "-x")
    (message,) = cluster.questions(SubmitJob)
    assert message.entrypoint == [
        sys.executable, "-m", "mray.launch", "--as-ray", "job.py", "--as-ray", "--", "-x"
    ]  # fmt: skip
    assert message.display == "job.py --as-ray -- -x"
    assert message.cwd == str(script.parent)
    assert message.environ == {}


def test_words_after_dashes_are_a_command(mray, cluster, make_job):
    Job(cluster, make_job, [])
    assert mray("submit", "--", "echo", "a b").code == 0
    assert mray("job", "submit", "--", "echo", "a b").code == 0
    for message in cluster.questions(SubmitJob):
        assert message.entrypoint == ["echo", "a b"]
        assert message.display == "echo 'a b'"


def test_a_module_is_launched_as_one(mray, cluster, make_job):
    Job(cluster, make_job, [])
    mray("submit", "-m", "package.module", "-m")
    (message,) = cluster.questions(SubmitJob)
    assert message.entrypoint[1:] == ["-m", "mray.launch", "-m", "package.module", "-m"]


def test_the_environment_is_merged_checked_and_sent(mray, cluster, make_job, script):
    Job(cluster, make_job, [])
    cluster.answers[PutPackage] = stored
    other = script.parent / "other"
    other.mkdir()
    (other / "inner.py").write_text("")
    mray(
        "submit", "--working-dir", "other", "--runtime-env-json", '{"env_vars": {"A": "1"}}',
        "--metadata-json", '{"who": "me"}', "inner.py",
    )  # fmt: skip
    (message,) = cluster.questions(SubmitJob)
    env = msgspec.msgpack.decode(message.runtime_env)
    uploaded = cluster.questions(PutPackage)[-1]
    assert env == {"env_vars": {"A": "1"}, "working_dir": f"gcs://{uploaded.name}"}
    assert uploaded.total_bytes == len(uploaded.data)
    assert message.metadata == {"who": "me"}
    assert message.entrypoint[-1] == "inner.py"


def test_a_script_outside_the_working_dir_is_sent_with_its_whole_path(
    mray, cluster, make_job, script
):
    Job(cluster, make_job, [])
    cluster.answers[PutPackage] = stored
    (script.parent / "other").mkdir()
    mray("submit", "--working-dir", "other", "job.py")
    assert cluster.questions(SubmitJob)[0].entrypoint[-1] == str(script)


def test_no_wait_prints_the_id_alone(mray, cluster, make_job, script):
    Job(cluster, make_job, [b"x"])
    outcome = mray("submit", "--no-wait", "job.py")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("mraysubmit_")
    assert cluster.questions(ReadLog) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["missing.py"], "the script missing.py does not exist"),
        (["bash", "-c", "true"], "mray submit -- bash"),
        (["."], "is a directory"),
        (["--runtime-env-json", "{", "job.py"], "--runtime-env-json"),
        (["--runtime-env-json", '{"conda": "x"}', "job.py"], "['conda'] is a field of Ray"),
        (["--runtime-env-json", "{}", "--runtime-env", "x", "job.py"], "not both"),
        (["--metadata-json", '{"a": 1}', "job.py"], "--metadata-json"),
        (["--working-dir", "nowhere", "job.py"], "is no directory"),
        (["--submission-id", "a/b", "job.py"], "--submission-id"),
        (["--as-ray", "--", "job.py"], "not with a command"),
        (["--entrypoint-num-cpus", "1", "job.py"], "option of Ray"),
        (["--nope", "job.py"], "no such option: --nope"),
    ],
)
def test_what_cannot_be_submitted_is_exit_code_2_before_any_contact(
    mray, cluster, script, words, why
):
    outcome = mray("submit", *words)
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (2, "", 1)
    assert why in outcome.err
    assert cluster.asked == []


def test_a_refusal_of_the_head_is_one_line(mray, cluster, script):
    cluster.answers[SubmitJob] = AskError("ValueError", "there is a job nightly already")
    outcome = mray("submit", "job.py")
    assert outcome == (1, "", "mray: there is a job nightly already\n")


def test_ctrl_c_leaves_the_job_running_and_says_how_to_stop_it(mray, cluster, make_job, script):
    Job(cluster, make_job, [b"one\n", KeyboardInterrupt(), b"two\n"])
    outcome = mray("submit", "--submission-id", "n", "job.py")
    assert (outcome.code, outcome.out) == (130, "one\n")
    assert "job n goes on" in outcome.err
    assert "mray job stop n" in outcome.err
    assert cluster.questions(StopJob) == []


def test_ctrl_c_stops_the_job_where_asked_for(mray, cluster, make_job, script):
    Job(cluster, make_job, [KeyboardInterrupt(), b"two\n"])
    assert mray("submit", "--stop-on-interrupt", "--submission-id", "n", "job.py").code == 130
    assert [message.submission_id for message in cluster.questions(StopJob)] == ["n"]


def test_a_cluster_that_is_lost_ends_the_watching(mray, cluster, make_job, script):
    Job(cluster, make_job, [b"one\n", AskError("RpcError", "the peer is gone")])
    outcome = mray("submit", "job.py")
    assert (outcome.code, outcome.out) == (1, "one\n")
    assert outcome.err_lines[-1].startswith("mray: node 10.0.0.1 (6d1111111111) does not answer")


def test_a_log_that_is_not_there_yet_is_waited_for(mray, cluster, make_job, script, monkeypatch):
    monkeypatch.setattr("mray.cli.follow.time.sleep", lambda s: None)
    missing = AskError("FileNotFoundError", "no such log")
    Job(cluster, make_job, [missing, missing, b"x\n"])
    assert mray("submit", "job.py").out == "x\n"


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        ("SUCCEEDED", 0, 0),
        ("FAILED", 3, 3),
        ("FAILED", 137, 137),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("FAILED", 0, 1),
        ("STOPPED", 143, 143),
        ("STOPPED", None, 143),
        ("STOPPED", 0, 0),
    ],
)
def test_exit_codes(make_job, status, code, outcome):
    assert exit_code(make_job(status=status, exit_code=code)) == outcome


def test_the_ending_says_how(make_job):
    job = make_job(status="FAILED", exit_code=137, message="killed by signal 9 (pid 4)")
    assert ending(job) == (
        "job nightly failed with exit code 137 after 2.5 s: killed by signal 9 (pid 4)"
    )
    assert ending(make_job(status="STOPPED", exit_code=143)) == (
        "job nightly was stopped after 2.5 s"
    )


def test_job_list_and_status(mray, cluster, make_job):
    jobs = [make_job("nightly", "FAILED", exit_code=3, message="exit code 3"), make_job("other")]
    cluster.answers[GetJobs] = Jobs(7, jobs)
    lines = mray("job", "list").out.splitlines()
    assert lines[0].split() == ["ID", "STATUS", "STARTED", "TOOK", "ENTRYPOINT"]
    assert len(lines) == 3
    text = mray("job", "status", "nig").out
    assert text.startswith("job nightly failed with exit code 3 after 2.5 s\n")
    assert "job.py --x 1" in text
    facts = json.loads(mray("job", "status", "nightly", "--json").out)
    assert (facts["status"], facts["exit_code"]) == ("FAILED", 3)
    assert json.loads(mray("job", "list", "--json").out)[0]["submission_id"] == "nightly"


def test_a_job_is_found_by_id_prefix_or_job_id_and_never_guessed(mray, cluster, make_job):
    jobs = [
        make_job("mraysubmit_abc", job_id=b"\1\0\0\0"),
        make_job("mraysubmit_abd", job_id=b"\2\0\0\0"),
    ]
    cluster.answers[GetJobs] = Jobs(7, jobs)
    for id in ("mraysubmit_abc", "abc", "01000000"):
        assert mray("job", "status", id).out.startswith("job mraysubmit_abc is RUNNING")
    outcome = mray("job", "status", "mraysubmit_ab")
    assert (outcome.code, outcome.out) == (1, "")
    assert "means 2 jobs: mraysubmit_abc, mraysubmit_abd" in outcome.err
    assert "there is no job 'zzz'" in mray("job", "status", "zzz").err


def test_job_stop_waits_for_the_end(mray, cluster, make_job, monkeypatch):
    monkeypatch.setattr("mray.cli.job.time.sleep", lambda s: None)
    states = iter(["RUNNING", "RUNNING", "STOPPED"])
    cluster.answers[GetJobs] = lambda m: Jobs(m.rid, [make_job(status=next(states))])
    cluster.answers[StopJob] = lambda m: Ack(m.rid)
    assert mray("job", "stop", "nightly") == (0, "job nightly was stopped after 2.5 s\n", "")
    assert len(cluster.questions(StopJob)) == 1


def test_job_stop_of_an_ended_job_says_so_and_is_no_error(mray, cluster, make_job):
    cluster.answers[GetJobs] = Jobs(7, [make_job(status="SUCCEEDED", exit_code=0)])
    outcome = mray("job", "stop", "nightly")
    assert outcome.code == 0
    assert outcome.out.startswith("nothing to stop: job nightly succeeded")
    assert cluster.questions(StopJob) == []


def test_job_logs_prints_the_tail_or_all(mray, cluster, make_job):
    cluster.answers[GetJobs] = Jobs(7, [make_job(status="SUCCEEDED", exit_code=0)])
    cluster.answers[ReadLog] = lambda m: LogChunk(m.rid, b"a\nb\n"[m.offset :], 4, True)
    assert mray("job", "logs", "nightly").out == "a\nb\n"
    mray("job", "logs", "nightly", "--tail", "5")
    assert cluster.questions(ReadLog)[-1].offset == -5


def test_a_job_that_connected_by_itself_has_no_log(mray, cluster, make_job):
    job = make_job("", kind="DRIVER", log_name="")
    cluster.answers[GetJobs] = Jobs(7, [job])
    outcome = mray("job", "logs", "01")
    assert outcome.code == 1
    assert "connected by itself" in outcome.err


def test_a_pending_job_is_polled_until_it_has_a_node(mray, cluster, make_job, script, monkeypatch):
    monkeypatch.setattr("mray.cli.follow.time.sleep", lambda s: None)
    job = Job(cluster, make_job, [])
    states = iter([make_job("n", "PENDING", node_id=b""), make_job("n", "PENDING", node_id=b"")])
    done = make_job("n", "FAILED", node_id=b"", exit_code=None, message="no node has room")
    cluster.answers[GetJobs] = lambda m: Jobs(m.rid, [next(states, done)])
    outcome = mray("submit", "--submission-id", "n", "job.py")
    assert outcome.code == 1
    assert outcome.err_lines[-1].endswith(": no node has room")
    assert job.log == b""
    assert len(cluster.questions(GetNodes)) == 1
