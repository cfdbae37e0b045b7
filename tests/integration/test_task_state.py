"""Tasks of a real cluster as `mray list`, `get`, `summary`, `timeline` and mray.util.state tell."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mray
from mray.cli.main import main
from mray.util import state as s

from ..waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2, log_to_driver=False)
    yield
    mray.shutdown()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """Tasks wait until this file is there."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture
def cli(cluster: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run a command; its JSON, or its text without --json."""

    def run(*words: str) -> Any:
        capsys.readouterr()
        assert main(list(words)) == 0
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in words else out

    return run


@mray.remote
def wait_for(path: Path) -> int:
    while not path.exists():
        time.sleep(0.005)
    return 1


@mray.remote
class Waiter:
    def wait(self, path: Path) -> int:
        while not path.exists():
            time.sleep(0.005)
        return 1

    def ping(self) -> int:
        return 1


@mray.remote
class Counted:
    def one(self) -> int:
        return 1

    def two(self) -> int:
        return 2


@mray.remote
class Broken:
    def __init__(self) -> None:
        raise KeyError("nothing")

    def one(self) -> int:
        return 1


def of(function: Any, *filters: tuple[str, str, str]) -> list[s.TaskState]:
    """The attempts of a remote function, or those with a name."""
    name = function if isinstance(function, str) else function._name
    return s.list_tasks(filters=[("name", "=", name), *filters], detail=True, limit=1000)


def test_queued_tasks_say_what_they_wait_for(cluster: None, gate: Path) -> None:
    @mray.remote
    def queued(x: int = 0) -> int:
        return x

    blockers = [wait_for.remote(gate) for _ in range(2)]
    dependent = queued.options(name="dependent").remote(blockers[0])
    refs = [queued.remote() for _ in range(20_000)]
    huge = queued.options(name="huge", num_cpus=64).remote()
    assert len(of(queued, ("state", "=", "PENDING_NODE_ASSIGNMENT"))) == 1000
    found = s.list_tasks(filters=[("name", "=", queued._name)], limit=1)
    assert found[0].task_id == refs[-1].task_id().hex()
    assert "waits for 1 CPU" in str(found[0].waits_for)
    (waiting,) = of("dependent")
    assert waiting.state == "PENDING_ARGS_AVAIL"
    assert "wait_for" in str(waiting.waits_for)
    eventually(lambda: "infeasible" in str(of("huge")[0].waits_for))
    gate.touch()
    assert mray.get([dependent, *refs]) == [1, *[0] * 20_000]
    del huge


def test_each_attempt_of_a_task_is_told_with_its_error(cluster: None, tmp_path: Path) -> None:
    @mray.remote(max_retries=1)
    def crashes_once(path: Path) -> int:
        if not path.exists():
            path.touch()
            os._exit(3)
        return 1

    @mray.remote(max_retries=2, retry_exceptions=True)
    def raises() -> None:
        raise ValueError("no such thing")

    assert mray.get(crashes_once.remote(tmp_path / "mark")) == 1
    second, first = of(crashes_once)
    assert (first.attempt_number, first.state, first.error_type) == (0, "FAILED", "WORKER_DIED")
    assert "exit code 3" in str(first.error_message)
    assert (second.attempt_number, second.state, second.error_type) == (1, "FINISHED", None)
    assert first.worker_pid != second.worker_pid
    with pytest.raises(ValueError, match="no such thing"):
        mray.get(raises.remote())
    attempts = of(raises)
    assert [attempt.attempt_number for attempt in attempts] == [2, 1, 0]
    assert {attempt.error_type for attempt in attempts} == {"TASK_EXECUTION_EXCEPTION"}
    assert attempts[0].error_message == "ValueError: no such thing"


def test_functions_may_opt_out_of_being_recorded(cluster: None) -> None:
    @mray.remote
    def quiet() -> int:
        return 1

    assert mray.get(quiet.options(enable_task_events=False).remote()) == 1
    assert of(quiet) == []
    assert mray.get(quiet.remote()) == 1
    assert len(of(quiet)) == 1
    with pytest.raises(TypeError, match="must be a bool"):
        quiet.options(enable_task_events="no")


def test_actors_and_methods_may_opt_out_of_being_recorded(cluster: None) -> None:
    recorded_before = len(of("Counted.__init__"))
    silent = Counted.options(enable_task_events=False).remote()
    assert mray.get(silent.two.remote()) == 2
    loud = Counted.remote()
    assert mray.get(loud.two.options(enable_task_events=False).remote()) == 2
    assert of("Counted.two") == []
    assert mray.get(loud.two.remote()) == 2
    assert len(of("Counted.two")) == 1
    assert len(of("Counted.__init__")) == recorded_before + 1


def test_nested_tasks_name_their_parent(cluster: None) -> None:
    @mray.remote
    def child() -> None:
        return None

    @mray.remote
    def parent() -> str:
        mray.get(child.remote())
        return mray.get_runtime_context().get_task_id() or ""

    parent_id = mray.get(parent.remote())
    (told,) = of(parent)
    assert told.parent_task_id == "f" * 40 + told.job_id
    (inner,) = eventually(lambda: of(child))
    assert inner.parent_task_id == told.task_id == parent_id


def test_actors_have_a_creation_and_calls(cluster: None) -> None:
    actor = Counted.remote()
    mray.get(actor.one.remote())
    (call,) = of("Counted.one")
    (created,) = of("Counted.__init__", ("actor_id", "=", str(call.actor_id)))
    assert (created.type, created.state) == ("ACTOR_CREATION_TASK", "FINISHED")
    assert (call.type, call.actor_id) == ("ACTOR_TASK", created.actor_id)
    assert call.worker_pid == created.worker_pid
    broken = Broken.remote()
    with pytest.raises(mray.exceptions.RayActorError):
        mray.get(broken.one.remote())
    (failed,) = of("Broken.__init__")
    assert failed.state == "FAILED"
    assert "nothing" in str(failed.error_message)
    assert of("Broken.one")[0].error_type == "ACTOR_DIED"


def test_one_task_by_its_id_or_its_reference(cli: Callable[..., Any]) -> None:
    @mray.remote
    def findable() -> int:
        return 1

    ref = findable.remote()
    mray.get(ref)
    told = s.get_task(ref)
    assert isinstance(told, s.TaskState)
    assert told["name"] == told.func_or_class_name == findable._name
    assert s.get_task("00" * 24) is None
    (facts,) = cli("get", "task", told.task_id[:30], "--json")
    assert facts["task_id"] == told.task_id
    assert 'state: "FINISHED"' in cli("get", "tasks", told.task_id)


def test_the_summary_and_the_trace_have_all_functions(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    @mray.remote
    def drawn() -> None:
        time.sleep(0.01)

    mray.get([drawn.remote() for _ in range(3)])
    (row,) = [
        row for row in cli("summary", "tasks", "--json") if row["func_or_class_name"] == drawn._name
    ]
    assert row["state_counts"] == {"FINISHED": 3}
    assert row["max_s"] >= row["p50_s"] >= 0.01
    path = tmp_path / "trace.json"
    cli("timeline", "-o", str(path))
    bars = [event for event in json.loads(path.read_text()) if event["name"] == drawn._name]
    assert len(bars) == 3
    assert all(bar["ph"] == "X" and bar["dur"] >= 10_000 for bar in bars)
    assert mray.timeline(str(path)) is None
    events = mray.timeline()
    assert events is not None
    assert len(json.loads(path.read_text())) <= len(events)


def test_other_lists_have_rays_fields(cluster: None) -> None:
    waiter = Waiter.options(name="listed").remote()
    mray.get(waiter.ping.remote())
    (actor,) = s.list_actors(filters=[("name", "=", "listed")], detail=True)
    assert (actor.state, actor["class_name"], actor.num_restarts) == ("ALIVE", "Waiter", 0)
    assert s.get_actor(actor.actor_id) == actor
    (node,) = s.list_nodes()
    assert (node.is_head_node, node.state) == (True, "ALIVE")
    assert node.resources_total["CPU"] == 2.0
    assert s.get_node(node.node_id) == node
    assert os.getpid() in [worker.pid for worker in s.list_workers(limit=1000)]
    assert s.list_jobs()[0].status == "RUNNING"
    ref = mray.put(b"x" * 1000)
    assert s.get_objects(ref.hex())[0].object_size == 1002
    assert s.summarize_objects()["cluster"]["total_objects"] >= 1
    assert s.summarize_actors()["cluster"]["summary"]["Waiter"]["state_counts"]["ALIVE"] >= 1
    with pytest.raises(ValueError, match="there is no 'colour'"):
        s.list_nodes(filters=[("colour", "=", "red")])


def test_the_log_of_a_task_is_what_an_attempt_printed(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    @mray.remote
    def prints(text: str) -> None:
        print("written by", text)

    @mray.remote(max_retries=2, retry_exceptions=True)
    def again(path: str) -> int:
        with open(path, "a") as file:
            attempt = file.tell()
            file.write("x")
        print("attempt", attempt)
        if attempt == 0:
            raise ValueError("once more")
        if attempt == 1:
            os._exit(3)
        return attempt

    def log(ref: Any, attempt: int = 0) -> str:
        return "".join(s.get_log(task_id=ref.task_id().hex(), attempt_number=attempt))

    refs = [prints.remote(f"task {number}") for number in range(20)]
    retried = again.remote(str(tmp_path / "attempts"))
    mray.get(refs)
    assert mray.get(retried) == 2
    assert [log(ref) for ref in refs] == [f"written by task {number}\n" for number in range(20)]
    assert [log(retried, attempt) for attempt in range(3)] == [
        "attempt 0\n", "attempt 1\n", "attempt 2\n"
    ]  # fmt: skip
    id = refs[3].task_id().hex()
    assert cli("logs", "task", id) == cli("logs", "task", "--id", id) == "written by task 3\n"
    assert cli("logs", id) == "written by task 3\n"
    last = retried.task_id().hex()
    assert cli("logs", "task", "--id", last, "--attempt-number", "1") == "attempt 1\n"
    assert cli("logs", "task", "--id", last) == "attempt 2\n"
    names = s.list_logs()
    assert any(name.startswith("worker-") for name in names["worker_out"])
    assert not any(".tasks" in name for kind in names.values() for name in kind)
    with pytest.raises(ValueError, match="only one"):
        next(s.get_log())


def test_the_log_of_a_call_is_its_own_where_calls_run_one_at_a_time() -> None:
    @mray.remote
    class Talks:
        def __init__(self) -> None:
            print("made")

        async def say(self, number: int) -> None:
            print("call", number)

    @mray.remote
    class Calm:
        def __init__(self) -> None:
            print("made")

        def say(self, number: int) -> None:
            print("call", number)

    def log(ref: Any) -> str:
        return "".join(s.get_log(task_id=ref.task_id().hex()))

    calm, talks = Calm.remote(), Talks.remote()
    calls = [calm.say.remote(number) for number in range(5)]
    beside = [talks.say.remote(number) for number in range(3)]
    mray.get([*calls, *beside])
    assert [log(ref) for ref in calls] == [f"call {number}\n" for number in range(5)]
    assert [log(ref) for ref in beside] == ["call 0\ncall 1\ncall 2\n"] * 3


def test_running_tasks_are_found_among_fifty_thousand(cli: Callable[..., Any], gate: Path) -> None:
    @mray.remote
    def tiny() -> None:
        return None

    for _ in range(5):
        mray.get([tiny.remote() for _ in range(10_000)])
    waiter = Waiter.remote()
    mray.get(waiter.ping.remote())
    refs = [wait_for.remote(gate) for _ in range(2)] + [waiter.wait.remote(gate)]

    def running() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = cli("list", "tasks", "-f", "state=RUNNING", "--json")
        return found if len(found) == 3 else []

    names = [facts["name"] for facts in eventually(running, what="three tasks that run")]
    assert sorted(names) == ["Waiter.wait", "wait_for", "wait_for"]
    counts = s.summarize_tasks()["cluster"]["summary"][tiny._name]["state_counts"]
    assert counts == {"FINISHED": 50_000}
    gate.touch()
    assert mray.get(refs) == [1, 1, 1]


@pytest.fixture
def why(cluster: None, capsys: pytest.CaptureFixture[str]) -> Callable[[str], tuple[int, str]]:
    """What `mray why` says, and its exit code."""

    def ask(id: str) -> tuple[int, str]:
        capsys.readouterr()
        code = main(["why", id])
        return code, capsys.readouterr().out

    return ask


def test_why_says_what_a_task_waits_for_and_what_to_do(
    why: Callable[[str], tuple[int, str]], gate: Path
) -> None:
    @mray.remote(max_retries=0)
    def fails() -> None:
        raise ValueError("no luck")

    blockers = [wait_for.remote(gate) for _ in range(2)]
    queued = wait_for.remote(gate)
    waiting = wait_for.options(name="waits").remote(queued)

    def said(ref: Any, words: str) -> bool:
        code, text = why(ref.task_id().hex())
        return code == 0 and words in text

    eventually(lambda: said(blockers[0], "has been running for"))
    eventually(lambda: said(queued, "mray list tasks -f state=RUNNING"))
    eventually(lambda: said(waiting, "waits for 1 argument(s): wait_for"))
    gate.touch()
    mray.get([*blockers, queued])
    assert said(queued, "wait_for finished after")
    failed = fails.remote()
    with pytest.raises(ValueError, match="no luck"):
        mray.get(failed)
    assert said(failed, "TASK_EXECUTION_EXCEPTION: ValueError: no luck")
    assert why("123456")[0] == 1


def test_why_of_actors(why: Callable[[str], tuple[int, str]]) -> None:
    actor = Waiter.options(name="alive-one").remote()
    mray.get(actor.ping.remote())
    assert "the actor Waiter is alive in pid" in why("alive-one")[1]
    mray.kill(actor)
    assert "the actor Waiter is dead" in eventually(
        lambda: text if "dead" in (text := why(actor._actor_id.hex())[1]) else ""
    )


def test_stacks_show_where_a_task_is_even_while_it_holds_the_interpreter(
    cli: Callable[..., Any], gate: Path
) -> None:
    @mray.remote
    def stuck_in_c(mark: Path) -> int:
        mark.touch()
        return _hold()

    def _hold() -> int:
        import ctypes

        # PyDLL keeps the interpreter's lock.
        ctypes.PyDLL(None).usleep(900_000)
        return 1

    mark = gate.with_name("mark")
    ref = stuck_in_c.remote(mark)
    eventually(mark.exists)
    stacks = cli("stack", "--json")
    assert os.getpid() in [entry["pid"] for entry in stacks]
    assert any("in _hold" in entry["stacks"] for entry in stacks)
    assert mray.get(ref) == 1
    assert main(["stack", "1"]) == 1
