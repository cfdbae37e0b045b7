"""Recording attempts that end: what is kept, what is told, what is dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mray.exceptions import OutOfMemoryError, TaskCancelledError, WorkerCrashedError
from mray.serialization.error_names import error_of, explain_error
from mray.serialization.failures import error_envelope, serialize_exception
from mray.tasks.event_batch import Record, views_of
from mray.tasks.events import TaskRecorder
from mray.tasks.task import Task, Template
from mray.wire.messages import DeathCause, Returned, TaskReply, TaskTemplate, TaskView

WORKER, NODE, OWNER, JOB = b"w" * 28, b"n" * 28, b"o" * 28, b"\x01\0\0\0"


def template(number: int = 1, name: str = "f", method: str = "") -> Template:
    wire = TaskTemplate(number, b"key", name, 1, JOB, {"CPU": 10_000}, method)
    return Template(wire, 0, 3)


def task(number: int, of: Template, born: float = 1.0, sent: float = 2.0) -> Task:
    made = Task(number.to_bytes(24, "little"), of, b"", [], [], [])
    made.born, made.sent_at = born, sent
    return made


def reply(to: Task, status: int = 0, run_us: int = 1000, data: bytes = b"x") -> TaskReply:
    return TaskReply(to.task_id, status, [Returned(data)], run_us)


def told(recorder: TaskRecorder, offset_s: float = 0.0) -> list[TaskView]:
    recorder.check()
    count, _, batch = recorder.take(OWNER, JOB, offset_s, explain_error)
    recorder.check()
    views = list(views_of(batch)) if batch else []
    assert len(views) == count
    return views


def test_a_finished_task_is_told_with_all_its_times() -> None:
    recorder, one = TaskRecorder(on=True), task(7, template())
    one.parent, one.ready_at = b"p" * 24, 1.5
    recorder.replied(WORKER, NODE, 42, [(one, reply(one, run_us=500_000))], 3.0)
    (view,) = told(recorder, offset_s=1000.0)
    assert (view.name, view.type, view.state, view.attempt) == ("f", "NORMAL_TASK", "FINISHED", 0)
    assert (view.worker_id, view.node_id, view.pid, view.owner_id) == (WORKER, NODE, 42, OWNER)
    assert view.parent_id == b"p" * 24
    times = (view.created_unix_s, view.ready_unix_s, view.sent_unix_s)
    assert times == (1001.0, 1001.5, 1002.0)
    assert (view.start_unix_s, view.end_unix_s) == (1002.5, 1003.0)


def test_tasks_told_in_one_message_ran_one_after_the_other() -> None:
    recorder, shared = TaskRecorder(on=True), template()
    tasks = [task(n, shared, sent=0.0 + 1e-9) for n in range(3)]
    recorder.replied(WORKER, NODE, 1, [(t, reply(t, run_us=1_000_000)) for t in tasks], 5.0)
    assert [view.end_unix_s for view in told(recorder)] == [5.0, 4.0, 3.0]


def test_calls_that_ran_beside_each_other_ended_when_they_were_told() -> None:
    recorder, shared = TaskRecorder(on=True), template(method="m")
    tasks = [task(n, shared, sent=4.5) for n in range(3)]
    recorder.replied(WORKER, NODE, 1, [(t, reply(t, run_us=400_000)) for t in tasks], 5.0)
    views = told(recorder)
    assert {view.end_unix_s for view in views} == {5.0}
    assert {view.type for view in views} == {"ACTOR_TASK"}


def test_what_a_task_raised_is_told_by_class_and_text() -> None:
    recorder, one = TaskRecorder(on=True), task(1, template())
    data = serialize_exception(ValueError("no such file"), "f")
    recorder.replied(WORKER, NODE, 1, [(one, reply(one, status=1, data=data))], 3.0)
    (view,) = told(recorder)
    assert (view.state, view.error_type) == ("FAILED", "TASK_EXECUTION_EXCEPTION")
    assert view.error_message == "ValueError: no such file"


def test_an_attempt_that_ended_with_its_worker_is_told_with_the_cause() -> None:
    recorder, one = TaskRecorder(on=True), task(1, template())
    lease = type("Lease", (), {})()
    lease.inflight = {one.task_id: one}
    lease.worker = type("Worker", (), {"process_id": WORKER, "node_id": NODE})()
    lease.pid = 9
    recorder.lost(lease)
    one.attempt = 1
    recorder.ran_again(error_of(DeathCause("exit", exit_code=3, pid=9)), 4.0)
    (view,) = told(recorder)
    assert (view.attempt, view.state, view.error_type, view.pid) == (0, "FAILED", "WORKER_DIED", 9)
    assert view.error_message == "its worker (pid 9) ended with exit code 3"


def test_a_task_that_never_ran_has_no_begin() -> None:
    recorder, one = TaskRecorder(on=True), task(1, template(), sent=0.0)
    recorder.failed(one, error_envelope(WorkerCrashedError("no worker")), 4.0)
    (view,) = told(recorder)
    assert (view.start_unix_s, view.error_type, view.error_message) == (
        0.0,
        "WORKER_DIED",
        "no worker",
    )


def test_creations_of_actors_are_told_by_class() -> None:
    recorder = TaskRecorder(on=True)
    record = Record(b"t" * 24, 0, 0, 1.0, 1.0, 2.0, 10, False, b"", b"a" * 16, 3.0)
    recorder.created("Counter", {"CPU": 10_000}, record, b"", (WORKER, NODE, 5))
    (view,) = told(recorder)
    assert (view.name, view.type, view.actor_id) == (
        "Counter.__init__", "ACTOR_CREATION_TASK", b"a" * 16,
    )  # fmt: skip


def test_functions_may_opt_out() -> None:
    recorder, quiet = TaskRecorder(on=True), template()
    quiet.recorded = False
    one = task(1, quiet)
    recorder.replied(WORKER, NODE, 1, [(one, reply(one))], 3.0)
    recorder.failed(one, ("WORKER_DIED", ""), 3.0)
    assert told(recorder) == []


def test_names_of_errors() -> None:
    def named(error: Exception) -> tuple[str, str]:
        return explain_error(error_envelope(error), False)  # type: ignore[arg-type]

    assert named(OutOfMemoryError("too much")) == ("OUT_OF_MEMORY", "too much")
    assert named(TaskCancelledError("ab"))[0] == "TASK_CANCELLED"
    raised = explain_error(error_envelope(WorkerCrashedError("of another")), True)
    assert raised[0] == "TASK_EXECUTION_EXCEPTION"
    assert explain_error(b"E\x01junk", True)[0] == "TASK_EXECUTION_EXCEPTION"
    long = explain_error(serialize_exception(ValueError("x" * 10_000), "f"), True)[1]
    assert len(long) == 500
    assert error_of(DeathCause("kernel_oom"))[0] == "OUT_OF_MEMORY"
    assert error_of(DeathCause("node_died", "gone")) == ("NODE_DIED", "gone")


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100))
def test_the_ring_is_bounded_and_counts_what_it_drops(batches: list[int], ring: int) -> None:
    recorder, shared, number = TaskRecorder(on=True, ring_max=ring), template(), 0
    for position, size in enumerate(batches):
        tasks = [task(number + n, shared) for n in range(size)]
        number += size
        worker = bytes([position % 3]) * 28
        recorder.replied(worker, NODE, 1, [(t, reply(t)) for t in tasks], 3.0)
        recorder.check()
    count, dropped, _ = recorder.take(OWNER, JOB, 0.0, explain_error)
    assert count <= ring
    assert count + dropped == number
