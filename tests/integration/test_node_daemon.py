"""A real node daemon with its zygote and workers; head, driver and the workers' code are ours.

The fake worker runs the Python source that it is sent, so each test says in itself what happens in
a worker. Nothing here waits by sleeping: pumps are turned until what is expected has come.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from mray.config import Config
from mray.daemon_params import DaemonParams, NodeOptions
from mray.ids import job_id, new_node_id, new_process_id
from mray.process import alive, start_time_of
from mray.resources import to_fixed
from mray.rpc.door import Door
from mray.rpc.pump import Pump
from mray.session import Session, create_session
from mray.session_end import end_session
from mray.wire import messages as m

pytestmark = pytest.mark.integration

FAKE_WORKER = """
import ctypes, os, signal, subprocess, sys, time
from mray.rpc.door import Door
from mray.rpc.pump import Pump
from mray.wire.messages import *

def run_worker(params):
    door = Door(params.process_id)
    door.listen_ipc(params.ipc)
    pump = Pump(door, params.node.node_id)
    node_id = params.node.address.process_id
    address = Address(params.process_id, params.node.node_id, params.ipc)

    def push(sender, message):
        for spec in message.tasks:
            with open(params.progress_path, "r+b") as file:
                file.write(spec.seq.to_bytes(8, "little", signed=True))
            scope = {"params": params, "tell": lambda message: pump.send(node_id, message)}
            exec(spec.args, globals(), scope)
            data = repr(scope.get("result")).encode()
            reply = TaskReply(spec.task_id, 0, [Returned(data)])
            pump.send(sender, TaskReplies([reply]))

    def start_actor(sender, message):
        started = ActorStarted(message.spec.actor_id, message.incarnation, address, os.getpid())
        pump.send_to(params.head, started)

    pump.on(PushTasks, push)
    pump.on(StartActor, start_actor)
    pump.on(TerminateActor, lambda sender, message: sys.exit(0))
    door.dial(params.node.address, params.node.node_id)
    register = lambda rid: RegisterProcess(rid, "worker", address, os.getpid(), params.job.job_id)
    pump.request(node_id, register, lambda reply: None, 30.0)
    while True:
        pump.run_once(None)
"""
RUN_NODE = """
import sys
from mray.node.agent import run_node
from mray.node.daemon import run_daemon
sys.exit(run_daemon("node", lambda daemon: run_node(daemon, "fake_worker:run_worker")))
"""
JOB = job_id(1)
CPU = to_fixed({"CPU": 1})
MessageT = TypeVar("MessageT", bound=m.Message)


class Peer:
    """A process of the protocol that lives in the test: it keeps what it hears."""

    def __init__(self, session: Session, name: str, node_id: bytes) -> None:
        self.process_id = new_process_id()
        path = f"{session.sockets}/{name}"
        door = Door(self.process_id)
        door.listen_ipc(path)
        self.pump = Pump(door, node_id)
        self.address = m.Address(self.process_id, node_id, path)
        self.heard: list[m.Message] = []

    def keep(self, *kinds: type[m.Message]) -> None:
        for kind in kinds:
            self.pump.on(kind, lambda sender, message: self.heard.append(message))

    def all(self, kind: type[MessageT]) -> list[MessageT]:
        return [message for message in self.heard if isinstance(message, kind)]


class World:
    """A node daemon, its head, and a driver."""

    def __init__(self, tmp_path: Path, config: Config | None = None) -> None:
        (tmp_path / "fake_worker.py").write_text(FAKE_WORKER)
        self.path = tmp_path
        self.config = config or Config()
        self.session = create_session(os.environ["MRAY_TMPDIR"])
        self.node_id = new_node_id()
        self.head = Peer(self.session, "gcs", self.node_id)
        self.driver = Peer(self.session, "driver", self.node_id)
        self.head.keep(
            m.ProcessDied, m.Heartbeat, m.ActorStarted, m.ActorStartFailed, m.JobStarted,
            m.JobExited, m.NodeGone,
        )  # fmt: skip
        self.driver.keep(
            m.LeaseGranted, m.LeaseRefused, m.LeasesWanted, m.TaskReplies, m.ProcessDied,
            m.WorkerLines,
        )  # fmt: skip
        self.head.pump.on(m.RegisterNode, self._register_node)
        self.head.pump.on(m.GetJobInfo, self._job_info)
        self.node: m.NodeInfo | None = None
        self.head_process = subprocess.Popen(["sleep", "1000"])
        self.helpers = [self.head_process]
        self.task_count = 0
        self.ready_fd, their_end = os.pipe()
        try:
            self.process = self._start_node(their_end)
        finally:
            os.close(their_end)
        try:
            self.until(lambda: self.node is not None)
        except BaseException:
            self.close()
            raise

    def _start_node(self, ready_fd: int) -> subprocess.Popen[bytes]:
        params = DaemonParams(
            process_id=self.node_id,
            cluster_id="c1",
            session_dir=self.session.path,
            is_head=True,
            head=self.head.address,
            head_pid=self.head_process.pid,
            head_start_time=start_time_of(self.head_process.pid),
            ipc=f"{self.session.sockets}/raylet",
            config=self.config.to_bytes(),
            token="",
            tcp_host="",
            tcp_port=0,
            node=NodeOptions(
                resources={"CPU": 2, "object_store_memory": 100 * 2**20}, ip="127.0.0.1"
            ),
            owner_pid=0,
            owner_start_time=0,
            ready_fd=ready_fd,
        )
        err = open(f"{self.session.logs}/raylet.err", "wb")  # noqa: SIM115
        out = open(f"{self.session.logs}/raylet.out", "wb")  # noqa: SIM115
        with err, out:
            process = subprocess.Popen(
                [sys.executable, "-c", RUN_NODE],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={
                    **os.environ,
                    "PYTHONPATH": str(self.path),
                    "MRAY_SESSION_DIR": self.session.path,
                },
                pass_fds=(ready_fd,),
            )
        assert process.stdin is not None
        process.stdin.write(msgspec.msgpack.encode(params))
        process.stdin.close()
        return process

    def _register_node(self, sender: bytes, message: m.RegisterNode) -> None:
        self.node = message.node
        self.head.pump.send(
            sender,
            m.NodeRegistered(message.rid, "c1", b"", self.head.address, [message.node]),
        )

    def _job_info(self, sender: bytes, message: m.GetJobInfo) -> None:
        info = None
        if message.job_id == JOB:
            info = m.JobInfo(JOB, self.driver.address, "ns", b"", [], "", False, True)
        self.head.pump.send(sender, m.JobInfoReply(message.rid, info))

    # -- turning the world

    def until(self, true: Callable[[], object], seconds: float = 30.0) -> None:
        give_up_at = time.monotonic() + seconds
        while not true():
            if time.monotonic() > give_up_at:
                log = Path(f"{self.session.logs}/raylet.out").read_text()
                err = Path(f"{self.session.logs}/raylet.err").read_text()
                heard = [*self.driver.heard, *self.head.heard]
                raise AssertionError(f"it did not come; heard {heard}\n{log}\n{err}")
            self.head.pump.run_once(0.005)
            self.driver.pump.run_once(0.005)

    def ask(self, make: Callable[[int], m.Message], seconds: float = 20.0) -> m.Message:
        box: list[m.Message] = []
        self.tell_node()
        self.driver.pump.request(self.node_id, make, box.append, seconds)
        self.until(lambda: box)
        return box[0]

    def tell_node(self, *messages: m.Message) -> None:
        assert self.node is not None
        self.driver.pump.door.dial(self.node.address, self.node_id)
        for message in messages:
            assert self.driver.pump.send(self.node_id, message)

    # -- what drivers do

    def register_driver(self, pid: int = 0) -> m.ProcessRegistered:
        reply = self.ask(
            lambda rid: m.RegisterProcess(
                rid, "driver", self.driver.address, pid or os.getpid(), JOB
            )
        )
        assert isinstance(reply, m.ProcessRegistered)
        return reply

    def lease(self, count: int = 1, runtime_env: bytes = b"") -> list[m.LeaseGranted]:
        before = len(self.driver.all(m.LeaseGranted))
        self.tell_node(m.LeaseDemand(before, count, CPU, JOB, runtime_env, "f()"))
        self.until(lambda: len(self.driver.all(m.LeaseGranted)) == before + count)
        return self.driver.all(m.LeaseGranted)[before:]

    def push(self, lease: m.LeaseGranted, code: str, seq: int = 0) -> bytes:
        self.task_count += 1
        task_id = b"%024d" % self.task_count
        spec = m.TaskSpec(task_id, 0, seq, code.encode())
        self.driver.pump.send_to(lease.worker, m.PushTasks(self.driver.address, [], [spec]))
        return task_id

    def run(self, lease: m.LeaseGranted, code: str) -> object:
        task_id = self.push(lease, code)
        found: list[m.TaskReply] = []

        def replied() -> bool:
            for replies in self.driver.all(m.TaskReplies):
                found.extend(r for r in replies.replies if r.task_id == task_id)
            return bool(found)

        self.until(replied)
        data = found[0].returns[0].data
        assert data is not None
        return eval(data)  # Our own worker's repr.

    def death_of(self, lease: m.LeaseGranted) -> m.DeathCause:
        def deaths() -> list[m.ProcessDied]:
            died = self.driver.all(m.ProcessDied)
            return [d for d in died if d.process_id == lease.worker.process_id]

        self.until(deaths)
        return deaths()[0].cause

    def lines(self) -> list[tuple[str, str, bool]]:
        return [
            (message.name, line, message.is_error)
            for message in self.driver.all(m.WorkerLines)
            for line in message.lines
        ]

    def stop(self) -> int:
        self.tell_node(m.Shutdown(1_000_000, "the test is over", 5.0))
        self.until(lambda: self.process.poll() is not None)
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for helper in self.helpers:
            helper.kill()
            helper.wait()
        self.head.pump.door.close()
        self.driver.pump.door.close()
        os.close(self.ready_fd)
        assert end_session(self.session, force=True).survivors == []


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def gone(*pids: int) -> Callable[[], bool]:
    """Whether all have ended: there is none, or it only waits for its parent."""

    def look() -> bool:
        for pid in pids:
            try:
                if alive(pid, start_time_of(pid)):
                    return False
            except ProcessLookupError:
                continue
        return True

    return look


def zygote_of(world: World) -> int:
    """The zygote is the one child of the daemon that was started from its own module."""
    children = Path(f"/proc/{world.process.pid}/task/{world.process.pid}/children").read_text()
    found = 0
    for pid in children.split():
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"mray.node.workers.zygote" in command and os.getsid(int(pid)) == int(pid):
            stat = Path(f"/proc/{pid}/oom_score_adj").read_text()
            if stat == Path(f"/proc/{world.process.pid}/oom_score_adj").read_text():
                found = int(pid)
    return found


# -- workers and their ends


def test_a_registered_driver_leases_a_worker_that_belongs_to_the_node(world: World) -> None:
    registered = world.register_driver()
    assert registered.node == world.node
    (lease,) = world.lease()
    facts = world.run(
        lease,
        "result = (os.getpid(), os.getppid(), os.getsid(0), os.environ['MRAY_NODE_ID'],"
        " os.readlink('/proc/self/fd/1'), params.out_path, os.readlink('/proc/self/fd/2'),"
        " os.getpriority(os.PRIO_PROCESS, 0), signal.getsignal(signal.SIGTERM).name,"
        " open('/proc/self/oom_score_adj').read().strip())",
    )
    assert isinstance(facts, tuple)
    pid, parent, session, node_id, out, out_path, err, nice, on_term, oom = facts
    assert (pid, parent, session) == (lease.worker_pid, world.process.pid, pid)
    assert node_id == world.node_id.hex()
    stem = f"worker-{lease.worker.process_id.hex()}-{JOB.hex()}-{pid}"
    assert out == out_path == f"{world.session.logs}/{stem}.out"
    assert err == f"{world.session.logs}/{stem}.err"
    assert os.stat(out).st_mode & 0o777 == 0o600
    assert (nice, on_term, oom) == (15, "SIG_DFL", "1000")


def test_a_returned_worker_serves_again_and_random_numbers_differ_between_workers(
    world: World,
) -> None:
    world.register_driver()
    first, second = world.lease(2)
    draw = "import random, numpy; result = (random.random(), float(numpy.random.random()))"
    one, other = world.run(first, draw), world.run(second, draw)
    assert isinstance(one, tuple)
    assert isinstance(other, tuple)
    assert one[0] != other[0]
    assert one[1] != other[1]
    world.tell_node(m.LeaseReturned(first.lease_id))
    (again,) = world.lease()
    assert again.worker == first.worker


@pytest.mark.parametrize(
    ("code", "kind", "exit_code", "number", "text"),
    [
        ("os._exit(7)", "exit", 7, None, ""),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal", None, 9, "a SIGKILL from outside"),
        ("ctypes.string_at(0)", "signal", None, 11, ""),
        ("tell(ActorExiting(DeathCause('intended', 'I go'))); sys.exit(0)", "intended", 0, None,
         "I go"),
    ],
)  # fmt: skip
def test_the_cause_of_a_death_is_exact(
    world: World, code: str, kind: str, exit_code: int | None, number: int | None, text: str
) -> None:
    world.register_driver()
    (lease,) = world.lease()
    world.push(lease, f"print('last words', file=sys.stderr); {code}", seq=41)
    cause = world.death_of(lease)
    assert (cause.kind, cause.exit_code, cause.signal) == (kind, exit_code, number)
    assert text in cause.text
    assert cause.pid == lease.worker_pid
    assert cause.last_seq == 41
    assert "last words" in cause.stderr_tail
    assert ("", "last words", True) in world.lines()
    world.until(lambda: world.head.all(m.ProcessDied))
    assert world.lease()[0].worker != lease.worker


def test_what_a_dead_worker_left_behind_is_killed(world: World) -> None:
    world.register_driver()
    (lease,) = world.lease()
    pids = world.run(
        lease,
        """
child = subprocess.Popen(["sleep", "1000"])
daemon = subprocess.Popen(["sleep", "1000"], start_new_session=True)
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, str(os.getpid()).encode())
        time.sleep(1000)
    os._exit(0)
os.wait()
result = (child.pid, daemon.pid, int(os.read(read, 20)))
""",
    )
    assert isinstance(pids, tuple)
    assert not gone(pids[2])()
    world.push(lease, "os._exit(1)")
    world.until(gone(*pids))


def test_environment_variables_reach_forked_and_fresh_workers(world: World) -> None:
    world.register_driver()
    env = msgspec.msgpack.encode({"env_vars": {"GREETING": "hello ${HOME}"}})
    early = msgspec.msgpack.encode({"env_vars": {"OMP_NUM_THREADS": "3"}})
    (forked,) = world.lease(runtime_env=env)
    (fresh,) = world.lease(runtime_env=early)
    assert world.run(forked, "result = os.environ['GREETING']") == f"hello {os.environ['HOME']}"
    assert world.run(forked, "result = 'numpy' in sys.modules") is True
    facts = world.run(fresh, "result = (os.environ['OMP_NUM_THREADS'], os.getppid())")
    assert facts == ("3", world.process.pid)
    assert world.run(fresh, "result = 'numpy' in sys.modules") is False


def test_the_end_of_an_owner_ends_its_leased_workers(world: World) -> None:
    owner = subprocess.Popen(["sleep", "1000"])
    world.helpers.append(owner)
    world.register_driver(owner.pid)
    (lease,) = world.lease()
    owner.kill()
    world.until(gone(lease.worker_pid))
    world.until(lambda: len(world.head.all(m.ProcessDied)) == 2)
    kinds = {d.process_kind: d.cause.kind for d in world.head.all(m.ProcessDied)}
    assert kinds == {"driver": "exit", "worker": "owner_died"}


def test_the_end_of_a_job_ends_its_workers(world: World) -> None:
    world.register_driver()
    leased, idle = world.lease(2)
    world.tell_node(m.LeaseReturned(idle.lease_id))
    world.head.pump.send(world.node_id, m.JobGone(JOB))
    world.until(gone(leased.worker_pid, idle.worker_pid))
    world.until(lambda: len(world.head.all(m.ProcessDied)) == 3)
    assert {died.cause.kind for died in world.head.all(m.ProcessDied)} == {"intended"}


@pytest.mark.slow
@pytest.mark.timeout(90)
def test_workers_that_cannot_start_fail_the_demand_with_their_last_words(world: World) -> None:
    world.register_driver()
    env = msgspec.msgpack.encode({"env_vars": {"PYTHONHOME": "/nowhere"}})
    world.tell_node(m.LeaseDemand(0, 1, CPU, JOB, env, "f()"))
    world.until(lambda: world.driver.all(m.LeaseRefused), 60.0)
    (refused,) = world.driver.all(m.LeaseRefused)
    assert refused.kind == "worker_start_failed"
    assert "in 5 tries" in refused.text
    assert "No module named 'encodings'" in refused.text


def test_an_environment_that_cannot_be_had_is_refused_at_once(world: World) -> None:
    world.register_driver()
    env = msgspec.msgpack.encode({"working_dir": "/no/such/directory"})
    world.tell_node(m.LeaseDemand(0, 1, CPU, JOB, env, "f()"))
    world.until(lambda: world.driver.all(m.LeaseRefused))
    assert world.driver.all(m.LeaseRefused)[0].kind == "env_failed"


def test_a_newborn_worker_is_not_taken_for_a_leftover(world: World) -> None:
    world.register_driver()
    for _ in range(20):
        # The end of the only worker and the birth of the next fall together.
        before = len(world.driver.all(m.LeaseGranted))
        (lease,) = world.lease()
        world.tell_node(m.LeaseDemand(1000 + before, 1, CPU, JOB, b"", "f()"))
        world.push(lease, "os._exit(0)")
        world.until(lambda: len(world.driver.all(m.LeaseGranted)) == before + 2)  # noqa: B023
        other = world.driver.all(m.LeaseGranted)[-1]
        assert world.run(other, "result = 5") == 5
        world.tell_node(m.LeaseReturned(other.lease_id, False))
    causes = {died.cause.kind for died in world.driver.all(m.ProcessDied)}
    assert causes == {"exit", "intended"}


def test_a_new_zygote_takes_over_when_one_dies(world: World) -> None:
    world.register_driver()
    world.lease()
    os.kill(zygote_of(world), signal.SIGKILL)
    (lease,) = world.lease()
    assert world.run(lease, "result = 1 + 1") == 2


def test_killing_the_node_daemon_leaves_no_process(world: World) -> None:
    world.register_driver()
    (lease,) = world.lease()
    stray = world.run(
        lease, 'result = subprocess.Popen(["sleep", "1000"], start_new_session=True).pid'
    )
    assert isinstance(stray, int)
    zygote = zygote_of(world)
    world.process.kill()
    world.until(gone(lease.worker_pid, zygote, stray))


def test_an_orderly_end_leaves_nothing(world: World) -> None:
    world.register_driver()
    (lease,) = world.lease()
    zygote = zygote_of(world)
    assert world.node is not None
    assert os.path.exists(world.node.store_path)
    assert world.stop() == 0
    assert gone(lease.worker_pid, zygote)()
    assert not os.path.exists(world.node.store_path)
    left = {name for name in os.listdir(world.session.sockets) if not name.endswith(".lock")}
    assert left == {"gcs", "driver"}
    world.until(lambda: world.head.all(m.NodeGone))


def test_the_end_of_the_head_ends_a_node_that_does_not_wait_for_another(tmp_path: Path) -> None:
    liveness = msgspec.structs.replace(Config().liveness, gcs_rpc_server_reconnect_timeout_s=0.0)
    world = World(tmp_path, msgspec.structs.replace(Config(), liveness=liveness))
    try:
        world.head_process.kill()
        world.until(lambda: world.process.poll() is not None, 5.0)
        assert world.process.returncode == 0
        assert "the head (pid" in Path(f"{world.session.logs}/raylet.out").read_text()
    finally:
        world.close()


# -- actors, questions


def actor_spec(world: World) -> m.ActorSpec:
    return m.ActorSpec(
        actor_id=b"a" * 16, job_id=JOB, owner=world.driver.address, class_key=b"",
        class_name="Counter", task_id=b"", args=b"", deps=[], args_in_store=None,
        args_located=None, resources={}, placement_resources=CPU, max_restarts=0,
        max_task_retries=0, max_concurrency=1,
    )  # fmt: skip


def test_an_actor_is_started_and_ended_on_behalf_of_the_head(world: World) -> None:
    world.register_driver()
    world.head.pump.send(world.node_id, m.StartActor(actor_spec(world), 0))
    world.until(lambda: world.head.all(m.ActorStarted))
    reply = world.ask(m.GetWorkers)
    assert isinstance(reply, m.Workers)
    assert [(w.state, w.actor_id) for w in reply.workers] == [("actor", b"a" * 16)]
    assert [d.pid for d in reply.drivers] == [os.getpid()]
    cause = m.DeathCause("ray_kill", "ray.kill()")
    world.head.pump.send(world.node_id, m.StopActor(b"a" * 16, 0, True, cause))
    world.until(lambda: world.head.all(m.ProcessDied))
    died = world.head.all(m.ProcessDied)[0].cause
    assert (died.kind, died.text, died.signal) == ("ray_kill", "ray.kill()", signal.SIGKILL)


def test_a_detached_actor_outlives_its_job_and_can_be_started_again(world: World) -> None:
    world.register_driver()
    spec = msgspec.structs.replace(actor_spec(world), detached=True)
    world.head.pump.send(world.node_id, m.StartActor(spec, 0))
    world.until(lambda: world.head.all(m.ActorStarted))
    (lease,) = world.lease()
    world.head.pump.send(world.node_id, m.JobGone(JOB))
    world.until(gone(lease.worker_pid))
    (started,) = world.head.all(m.ActorStarted)
    assert not gone(started.pid)()
    os.kill(started.pid, signal.SIGKILL)
    world.until(lambda: any(d.cause.kind == "signal" for d in world.head.all(m.ProcessDied)))
    world.head.pump.send(world.node_id, m.StartActor(spec, 1))
    world.until(lambda: len(world.head.all(m.ActorStarted)) == 2)


def test_an_actor_of_a_job_that_is_over_is_refused(world: World) -> None:
    spec = msgspec.structs.replace(actor_spec(world), job_id=job_id(9))
    world.head.pump.send(world.node_id, m.StartActor(spec, 3))
    world.until(lambda: world.head.all(m.ActorStartFailed))
    assert "is over" in world.head.all(m.ActorStartFailed)[0].cause.text


def test_heartbeats_tell_what_is_free_and_what_waits(world: World) -> None:
    world.register_driver()
    world.lease(2)
    world.tell_node(m.LeaseDemand(50, 4, CPU, JOB))
    world.until(
        lambda: any(
            beat.available["CPU"] == 0 and beat.pending == [(CPU, 4)] and beat.workers == 2
            for beat in world.head.all(m.Heartbeat)
        )
    )


# -- logs


def test_lines_reach_the_driver_with_the_name_of_what_printed_them(world: World) -> None:
    world.register_driver()
    (lease,) = world.lease()
    world.run(
        lease,
        "tell(SetWorkerTitle('f', 0, 0)); print('one'); print('two')\n"
        "tell(SetWorkerTitle('g', 8, 0)); print('three'); print('four', file=sys.stderr)",
    )
    world.until(lambda: len(world.lines()) == 4)
    assert sorted(world.lines()) == [
        ("f", "one", False),
        ("f", "two", False),
        ("g", "four", True),
        ("g", "three", False),
    ]
    assert world.driver.all(m.WorkerLines)[0].pid == lease.worker_pid


def test_drained_logs_hold_all_lines_and_an_unfinished_one(world: World) -> None:
    world.register_driver()
    (lease,) = world.lease()
    world.run(lease, "[print('line', i) for i in range(5000)]; print('no end', end='', flush=True)")
    assert isinstance(world.ask(lambda rid: m.DrainLogs(rid, JOB)), m.Ack)
    assert [line for _, line, _ in world.lines()] == [
        *(f"line {i}" for i in range(5000)),
        "no end",
    ]


def test_log_files_are_listed_and_read(world: World) -> None:
    Path(f"{world.session.logs}/some.log").write_text("one\ntwo\nthree\n")
    files = world.ask(lambda rid: m.ListLogs(rid, "some*"))
    assert isinstance(files, m.LogFiles)
    assert [(f.name, f.size_bytes) for f in files.files] == [("some.log", 14)]
    chunk = world.ask(lambda rid: m.ReadLog(rid, "some.log", -2))
    assert isinstance(chunk, m.LogChunk)
    assert (chunk.data, chunk.next_offset, chunk.at_end) == (b"two\nthree\n", 14, True)
    for name in ("../session.json", "/etc/passwd", "", ".."):
        refused = world.ask(partial(m.ReadLog, name=name, offset=0))
        assert isinstance(refused, m.Refused)
        assert refused.kind == "ValueError"


def test_a_reader_that_waits_is_answered_when_something_is_written(world: World) -> None:
    log = Path(f"{world.session.logs}/some.log")
    log.write_text("one\n")
    box: list[m.Message] = []
    world.tell_node()
    world.driver.pump.request(
        world.node_id, lambda rid: m.ReadLog(rid, "some.log", 4, wait_s=20.0), box.append, 30.0
    )
    assert isinstance(world.ask(m.Ping), m.Ack)
    assert not box
    with log.open("a") as file:
        file.write("two\n")
    world.until(lambda: box)
    assert isinstance(box[0], m.LogChunk)
    assert box[0].data == b"two\n"


# -- submitted jobs


def start_job(world: World, argv: list[str], name: str = "job_1") -> None:
    world.head.pump.send(
        world.node_id, m.StartJob(name, argv, str(world.path), dict(os.environ), b"")
    )


def finished(world: World) -> m.DeathCause:
    world.until(lambda: world.head.all(m.JobExited))
    return world.head.all(m.JobExited)[0].cause


def job_log(world: World, name: str = "job_1") -> str:
    return Path(f"{world.session.logs}/job-driver-{name}.log").read_text()


def test_all_that_a_job_printed_is_in_its_log_when_it_has_exited(world: World) -> None:
    code = "import os\nfor i in range(10000): print('line', i)\nos._exit(3)"
    start_job(world, [sys.executable, "-c", code])
    cause = finished(world)
    assert (cause.kind, cause.exit_code) == ("exit", 3)
    assert job_log(world) == "".join(f"line {i}\n" for i in range(10000))
    chunk = world.ask(lambda rid: m.ReadLog(rid, "job-driver-job_1.log", -1))
    assert isinstance(chunk, m.LogChunk)
    assert (chunk.data, chunk.at_end) == (b"line 9999\n", True)


def test_the_log_of_a_running_job_has_no_end(world: World) -> None:
    start_job(world, [sys.executable, "-c", "print('hi', flush=True); import time; time.sleep(99)"])
    world.until(lambda: world.head.all(m.JobStarted))
    chunk = world.ask(lambda rid: m.ReadLog(rid, "job-driver-job_1.log", 0, wait_s=20.0))
    assert isinstance(chunk, m.LogChunk)
    assert (chunk.data, chunk.at_end) == (b"hi\n", False)
    world.head.pump.send(world.node_id, m.SignalJob("job_1", signal.SIGTERM, 5.0))
    chunk = world.ask(lambda rid: m.ReadLog(rid, "job-driver-job_1.log", 3, wait_s=20.0))
    assert isinstance(chunk, m.LogChunk)
    assert (chunk.data, chunk.at_end) == (b"", True)


def test_a_job_knows_its_cluster_and_its_own_name(world: World) -> None:
    code = "import os; print(os.environ['RAY_ADDRESS'], os.environ['MRAY_JOB_SUBMISSION_ID'])"
    start_job(world, [sys.executable, "-c", code])
    assert finished(world).exit_code == 0
    assert job_log(world) == f"{world.session.path} job_1\n"
    assert world.head.all(m.JobStarted)[0].pid > 0


@pytest.mark.parametrize(
    ("argv", "error"),
    [
        ([sys.executable, "missing.py"], "there is no script"),
        (["no-such-program"], "'no-such-program' cannot be run: No such file"),
    ],
)
def test_a_job_that_cannot_start_says_why(world: World, argv: list[str], error: str) -> None:
    start_job(world, argv)
    world.until(lambda: world.head.all(m.JobStarted))
    (started,) = world.head.all(m.JobStarted)
    assert started.pid == 0
    assert error in started.error


def test_a_job_that_ignores_its_signal_is_killed_with_its_children(world: World) -> None:
    code = (
        "import signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(1000)"
    )
    start_job(world, [sys.executable, "-c", code])
    log = Path(f"{world.session.logs}/job-driver-job_1.log")
    world.until(lambda: log.exists() and log.read_text().endswith("\n"))
    child = int(job_log(world))
    world.head.pump.send(world.node_id, m.SignalJob("job_1", signal.SIGTERM, 0.3))
    cause = finished(world)
    assert (cause.kind, cause.signal) == ("killed", signal.SIGKILL)
    assert cause.text == "stopped on request with SIGTERM, killed 0.3 s after it"
    world.until(gone(child))


def test_jobs_end_with_the_node_daemon(world: World) -> None:
    start_job(world, [sys.executable, "-c", "import time; time.sleep(1000)"])
    world.until(lambda: world.head.all(m.JobStarted))
    pid = world.head.all(m.JobStarted)[0].pid
    world.process.kill()
    world.until(gone(pid))
