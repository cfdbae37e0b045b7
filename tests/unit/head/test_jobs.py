"""Drivers and submissions, from beginning to end."""

from __future__ import annotations

from typing import TypeVar

import pytest

from mray.node.head.events import (
    Effect,
    From,
    JobEnded,
    JobOver,
    LastActorGone,
    NodeLost,
    NodeUp,
    Note,
    Send,
    ToNodes,
)
from mray.node.head.jobs import ENDED_MAX, JobTable, StopPolicy
from mray.wire.messages import (
    Ack,
    Address,
    DeathCause,
    FinishJob,
    GetJobInfo,
    GetJobs,
    JobDetails,
    JobExited,
    JobGone,
    JobInfo,
    JobInfoReply,
    JobRegistered,
    Jobs,
    JobStarted,
    JobSubmitted,
    Message,
    NodeInfo,
    Ping,
    ProcessDied,
    Refused,
    RegisterJob,
    SignalJob,
    StartJob,
    StopJob,
    SubmitJob,
)

NODE, OTHER_NODE = b"n" * 28, b"o" * 28
DRIVER, CLI = b"d" * 28, b"c" * 28
JOB1, JOB2 = b"\1\0\0\0", b"\2\0\0\0"
ReplyT = TypeVar("ReplyT", bound=Message)


def node(node_id: bytes, *, is_head: bool) -> NodeInfo:
    address = Address(node_id, node_id)
    return NodeInfo(
        node_id, address, "ip", "host", 1, {}, {}, "", "", "", 0, is_head, "0.1.0", "3.11.7"
    )


def register(submission_id: str = "", driver: bytes = DRIVER) -> RegisterJob:
    address = Address(driver, NODE)
    return RegisterJob(1, address, 42, "python x.py", "space", submission_id, cwd="/w")


def submit(name: str = "raysubmit_1", rid: int = 1) -> SubmitJob:
    return SubmitJob(
        rid, name, ["python", "x.py"], "python x.py", b"", {"k": "v"}, "/w", {"A": "1"}
    )


@pytest.fixture
def table() -> JobTable:
    made = JobTable(stop=StopPolicy(signal=15, wait_s=3.0), unix_offset_s=1000.0)
    made.handle(NodeUp(node(NODE, is_head=True)), 0.0)
    return made


def send(table: JobTable, message: Message, sender: bytes = CLI, now: float = 1.0) -> list[Effect]:
    effects = table.handle(From(sender, message), now)
    table.check()
    return [effect for effect in effects if not isinstance(effect, Note)]


def answer(effects: list[Effect], kind: type[ReplyT]) -> ReplyT:
    """The message of that kind that goes out."""
    found = [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]
    assert len(found) == 1, effects
    return found[0]


def details(table: JobTable, prefix: str = "") -> list[JobDetails]:
    return answer(send(table, GetJobs(9, prefix)), Jobs).jobs


# -- drivers


def test_jobs_are_numbered_from_one(table: JobTable) -> None:
    assert send(table, register(), DRIVER) == [Send(DRIVER, JobRegistered(1, JOB1, "space"))]
    effects = send(table, register(driver=CLI), CLI)
    assert effects == [Send(CLI, JobRegistered(1, JOB2, "space"))]


def test_registering_again_gives_the_same_job(table: JobTable) -> None:
    send(table, register(), DRIVER)
    assert answer(send(table, register(), DRIVER), JobRegistered).job_id == JOB1
    assert len(details(table)) == 1


def test_workers_learn_of_a_job_while_it_runs(table: JobTable) -> None:
    send(table, register(), DRIVER)
    info = JobInfo(JOB1, Address(DRIVER, NODE), "space", b"", [], "/w", False, True)
    assert answer(send(table, GetJobInfo(5, JOB1)), JobInfoReply) == JobInfoReply(5, info)
    send(table, FinishJob(1, JOB1), DRIVER)
    # For its detached actors, which may be started on a node that never had to do with it.
    assert answer(send(table, GetJobInfo(5, JOB1)), JobInfoReply) == JobInfoReply(5, info, True)
    assert answer(send(table, GetJobInfo(5, JOB2)), JobInfoReply) == JobInfoReply(5, None)


def test_a_driver_that_finishes_ends_its_job(table: JobTable) -> None:
    send(table, register(), DRIVER, now=1.0)
    assert send(table, FinishJob(2, JOB1), DRIVER, now=4.0) == [
        Send(DRIVER, Ack(2)),
        ToNodes(JobGone(JOB1)),
        JobEnded(JOB1),
    ]
    (job,) = details(table)
    assert (job.status, job.exit_code, job.kind) == ("SUCCEEDED", 0, "DRIVER")
    assert (job.start_unix_s, job.end_unix_s) == (1001.0, 1004.0)
    assert send(table, FinishJob(3, JOB1), DRIVER) == [Send(DRIVER, Ack(3))]


@pytest.mark.parametrize(
    ("cause", "status", "code", "text"),
    [
        (DeathCause("signal", signal=9, pid=42), "FAILED", 137, "killed by signal 9 (pid 42)"),
        (DeathCause("exit", exit_code=3), "FAILED", 3, "exit code 3"),
        (DeathCause("exit"), "FAILED", None, "the driver ended without saying goodbye: exit"),
        (DeathCause("exit", exit_code=0), "SUCCEEDED", 0, ""),
    ],
)
def test_a_driver_that_dies_ends_its_job(
    table: JobTable, cause: DeathCause, status: str, code: int | None, text: str
) -> None:
    send(table, register(), DRIVER)
    effects = send(table, ProcessDied(DRIVER, "driver", JOB1, cause), NODE)
    assert effects == [ToNodes(JobGone(JOB1)), JobEnded(JOB1)]
    (job,) = details(table)
    assert (job.status, job.exit_code) == (status, code)
    assert text in job.message
    assert send(table, ProcessDied(DRIVER, "driver", JOB1, cause), NODE) == []


def test_the_death_of_other_processes_ends_no_job(table: JobTable) -> None:
    send(table, register(), DRIVER)
    assert send(table, ProcessDied(CLI, "worker", JOB1, DeathCause("exit")), NODE) == []


def test_the_loss_of_its_node_ends_a_job(table: JobTable) -> None:
    send(table, register(), DRIVER)
    effects = table.handle(NodeLost(NODE, DeathCause("node_died", "silence")), 2.0)
    table.check()
    assert JobEnded(JOB1) in effects
    assert "node of the driver is gone: silence" in details(table)[0].message


def test_a_job_is_over_when_neither_its_driver_nor_a_detached_actor_lives(table: JobTable) -> None:
    send(table, register(), DRIVER)
    assert table.handle(LastActorGone(JOB1), 1.0) == []
    send(table, FinishJob(1, JOB1), DRIVER)
    assert table.handle(LastActorGone(JOB1), 2.0) == [JobOver(JOB1)]
    assert table.handle(LastActorGone(b"\7\0\0\0"), 2.0) == [JobOver(b"\7\0\0\0")]


# -- submissions


def test_a_submission_is_started_on_the_heads_node(table: JobTable) -> None:
    table.handle(NodeUp(node(OTHER_NODE, is_head=False)), 0.0)
    assert send(table, submit()) == [
        Send(CLI, JobSubmitted(1, "raysubmit_1")),
        Send(NODE, StartJob("raysubmit_1", ["python", "x.py"], "/w", {"A": "1"}, b"")),
    ]
    (job,) = details(table)
    assert (job.status, job.log_name) == ("PENDING", "job-driver-raysubmit_1.log")


def test_a_submission_waits_for_the_heads_node() -> None:
    table = JobTable(stop=StopPolicy(signal=15, wait_s=3.0), unix_offset_s=0.0)
    assert send(table, submit()) == [Send(CLI, JobSubmitted(1, "raysubmit_1"))]
    assert table.handle(NodeUp(node(OTHER_NODE, is_head=False)), 1.0) == []
    (start,) = table.handle(NodeUp(node(NODE, is_head=True)), 1.0)
    assert isinstance(start, Send)
    assert (start.to, type(start.message)) == (NODE, StartJob)


def test_a_submission_runs_and_succeeds(table: JobTable) -> None:
    send(table, submit(), now=1.0)
    send(table, JobStarted("raysubmit_1", 77), NODE)
    assert (details(table)[0].status, details(table)[0].pid) == ("RUNNING", 77)
    send(table, JobExited("raysubmit_1", DeathCause("exit", exit_code=0)), NODE, now=6.0)
    (job,) = details(table)
    assert (job.status, job.exit_code, job.message) == ("SUCCEEDED", 0, "")
    assert (job.start_unix_s, job.end_unix_s) == (1001.0, 1006.0)


@pytest.mark.parametrize(
    ("cause", "code"),
    [(DeathCause("exit", exit_code=3), 3), (DeathCause("signal", signal=11), 139)],
)
def test_a_failed_submission_keeps_its_exit_code(
    table: JobTable, cause: DeathCause, code: int
) -> None:
    send(table, submit())
    send(table, JobStarted("raysubmit_1", 77), NODE)
    send(table, JobExited("raysubmit_1", cause), NODE)
    (job,) = details(table)
    assert (job.status, job.exit_code) == ("FAILED", code)
    assert "the entrypoint failed" in job.message


def test_an_entrypoint_that_cannot_start_fails_with_the_reason(table: JobTable) -> None:
    send(table, submit())
    send(table, JobStarted("raysubmit_1", 0, "no such file: pyton"), NODE)
    (job,) = details(table)
    assert (job.status, job.exit_code) == ("FAILED", None)
    assert "no such file: pyton" in job.message


def test_the_same_submission_sent_again_is_one_job(table: JobTable) -> None:
    send(table, submit(rid=1))
    assert send(table, submit(rid=2)) == [Send(CLI, JobSubmitted(2, "raysubmit_1"))]


def test_a_submission_id_is_used_once(table: JobTable) -> None:
    send(table, submit())
    refused = answer(send(table, submit(), DRIVER), Refused)
    assert refused.kind == "ValueError"
    assert "'raysubmit_1' exists already" in refused.text


def test_a_submission_needs_an_entrypoint(table: JobTable) -> None:
    empty = SubmitJob(1, "x", [], "", b"", {}, "/", {})
    assert answer(send(table, empty), Refused).kind == "ValueError"
    assert details(table) == []


def test_a_driver_of_a_submission_is_shown_with_it(table: JobTable) -> None:
    send(table, submit())
    send(table, JobStarted("raysubmit_1", 77), NODE)
    send(table, register("raysubmit_1"), DRIVER)
    (job,) = details(table)
    assert (job.submission_id, job.job_id, job.kind) == ("raysubmit_1", JOB1, "SUBMISSION")


def test_a_driver_that_names_an_unknown_submission_stands_alone(table: JobTable) -> None:
    send(table, register("raysubmit_of_another_cluster"), DRIVER)
    (job,) = details(table)
    assert (job.submission_id, job.kind) == ("", "DRIVER")


def test_the_end_of_a_submission_ends_its_drivers(table: JobTable) -> None:
    send(table, submit())
    send(table, register("raysubmit_1"), DRIVER)
    effects = send(table, JobExited("raysubmit_1", DeathCause("exit", exit_code=1)), NODE)
    assert effects == [ToNodes(JobGone(JOB1)), JobEnded(JOB1)]


def test_stopping_signals_the_driver_and_the_end_is_stopped(table: JobTable) -> None:
    send(table, submit())
    send(table, JobStarted("raysubmit_1", 77), NODE)
    assert send(table, StopJob(4, "raysubmit_1")) == [
        Send(CLI, Ack(4)),
        Send(NODE, SignalJob("raysubmit_1", 15, 3.0)),
    ]
    assert details(table)[0].status == "RUNNING"
    send(table, JobExited("raysubmit_1", DeathCause("signal", signal=15)), NODE)
    (job,) = details(table)
    assert (job.status, job.exit_code) == ("STOPPED", 143)
    assert send(table, StopJob(5, "raysubmit_1")) == [Send(CLI, Ack(5))]


def test_a_submission_that_never_started_is_stopped_at_once() -> None:
    table = JobTable(stop=StopPolicy(signal=15, wait_s=3.0), unix_offset_s=0.0)
    send(table, submit())
    assert send(table, StopJob(4, "raysubmit_1")) == [Send(CLI, Ack(4))]
    assert details(table)[0].status == "STOPPED"
    assert table.handle(NodeUp(node(NODE, is_head=True)), 1.0) == []


def test_only_submissions_can_be_stopped(table: JobTable) -> None:
    send(table, register(), DRIVER)
    refused = answer(send(table, StopJob(4, "01000000")), Refused)
    assert refused.kind == "ValueError"
    assert "no submitted job '01000000'" in refused.text


def test_the_loss_of_the_heads_node_fails_what_ran_there(table: JobTable) -> None:
    send(table, submit())
    table.handle(NodeLost(NODE, DeathCause("node_died", "crash")), 2.0)
    table.check()
    assert details(table)[0].status == "FAILED"
    # The next submission waits for a node to come.
    assert send(table, submit("raysubmit_2")) == [Send(CLI, JobSubmitted(1, "raysubmit_2"))]


def test_jobs_are_found_by_the_beginning_of_either_id(table: JobTable) -> None:
    send(table, submit("raysubmit_ab"))
    send(table, submit("raysubmit_cd"))
    send(table, register("raysubmit_ab"), DRIVER)
    send(table, register(driver=CLI), CLI)
    assert [job.submission_id for job in details(table, "raysubmit_a")] == ["raysubmit_ab"]
    assert [job.submission_id for job in details(table, "010")] == ["raysubmit_ab"]
    assert [job.job_id for job in details(table, "02")] == [JOB2]
    assert len(details(table)) == 3
    assert details(table, "zz") == []


def test_late_news_of_an_ended_submission_changes_nothing(table: JobTable) -> None:
    send(table, submit())
    send(table, JobExited("raysubmit_1", DeathCause("exit", exit_code=0)), NODE)
    assert send(table, JobStarted("raysubmit_1", 77), NODE) == []
    assert send(table, JobExited("raysubmit_1", DeathCause("exit", exit_code=9)), NODE) == []
    assert send(table, JobExited("unknown", DeathCause("exit")), NODE) == []
    assert details(table)[0].exit_code == 0


def test_ended_jobs_are_remembered_up_to_a_bound(table: JobTable) -> None:
    for number in range(ENDED_MAX + 5):
        driver = number.to_bytes(28, "big")
        table.handle(From(driver, register(driver=driver)), 1.0)
        table.handle(From(driver, FinishJob(1, (number + 1).to_bytes(4, "little"))), 2.0)
    table.check()
    assert len(details(table)) == ENDED_MAX
    assert details(table, JOB1.hex()) == []


def test_other_messages_are_a_mistake(table: JobTable) -> None:
    with pytest.raises(TypeError):
        table.handle(From(CLI, Ping(1)), 0.0)
