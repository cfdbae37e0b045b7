"""What a simulated worker does in place of running Python functions: it follows a plan.

Stands in for runtime/executor.py; the worker around it (tasks in, replies out, blocking, actors) is
the real one. A plan is a dict:

    number    of the call, for the story and for what must be true of it
    run_s     how long it takes
    kids      plans of tasks to submit; their results are waited for, as ``get`` does, and added
    keep      an actor keeps the references among its arguments
    fail      raises (an application's error)
    bear      returns references to so many values that it puts

Its value is its number, plus those of its kids, plus its arguments. An actor counts its calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mray import current
from mray.exceptions import RayError, RayTaskError
from mray.object_ref import ObjectRef
from mray.runtime.calls import NO_ARGUMENTS, OK, RAISED, Done, Work, running
from mray.runtime.inputs import Inputs
from mray.runtime.mailbox import Watcher
from mray.serialization.failures import error_envelope, serialize_exception
from mray.serialization.pickler import Serialized, pack

if TYPE_CHECKING:
    from .cluster import SimCluster, SimWorker


class Queue:
    """The executor's queue: what is put is taken up at this moment or when it is free."""

    def __init__(self, executor: PlanExecutor) -> None:
        self._executor = executor
        self.items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        """Take a call, a function of the loop's, or None for the end."""
        self.items.append(item)
        self._executor.look()

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self.items


class PlanExecutor:
    """See the module. Made by the real Worker."""

    cluster: SimCluster  # set by the patch that puts this class in place

    def __init__(
        self,
        runtime: Any,
        finished: Callable[[Done], None],
        announce: Callable[[str, bool], None],
        leaving: Callable[[str], None],
        progress: Any,
    ) -> None:
        self.rt = runtime
        self.finished = finished
        self.announce = announce
        self.leaving = leaving
        self.queue = Queue(self)
        self.put = self.queue.put
        self.pending: dict[bytes, Work] = {}
        self.open: Work | None = None
        self.cancelled: dict[bytes, None] = {}
        self.cancel_async = None
        self.executing: dict[bytes, int] = {}
        self.actor_spec: Any = None
        self.made_actor = False
        self.kick = None
        self.turn = None
        self.exiting = False
        self.results = None
        self.generators: Any = None
        self._inputs = Inputs(runtime)
        self._busy = False
        self._kept: list[Any] = []
        self.calls_served = 0
        #: Of the worker; set once that is made.
        self.worker: SimWorker | None = None

    def run(self) -> int:
        """Nothing: what the queue gets is taken up by itself."""
        return 0

    def serve_actor(self, spec: Any) -> int:
        """Nothing: see run()."""
        return 0

    def look(self) -> None:
        """Take up what waits, once what happens now is over."""
        self.cluster.world.after(0.0, self._next)

    def _next(self) -> None:
        worker = self.worker
        if worker is None:
            self.look()
            return
        if worker.door.is_dead or self._busy or not self.queue.items:
            return
        if self.cluster.world.now < worker.door.stopped_until:
            self.cluster.world.after(worker.door.stopped_until - self.cluster.world.now, self._next)
            return
        item = self.queue.items.popleft()
        current.runtime = self.rt
        if item is None:
            self.cluster.worker_exits(worker, 0)
        elif type(item) is Work:
            if self.exiting or self.pending.pop(item.spec.task_id, None) is None:
                self._next()
                return
            self._busy = True
            self._begin(item)
        else:
            item()
            worker.door.turn_soon()
            self.look()

    # -- calls

    def _begin(self, work: Work) -> None:
        worker = self.worker
        assert worker is not None
        spec = work.spec
        worker.last_seq = spec.seq
        self.open = work
        self.executing[spec.task_id] = 0
        done = Done(work.owner, spec, OK)
        try:
            args, _ = self._inputs.read(
                spec.args, spec.deps, spec.args_in_store, spec.args_located, done.borrowed, b""
            )
        except BaseException as error:
            done.status = NO_ARGUMENTS
            self._end(work, done, error=error)
            return
        plan, *rest = args
        self.cluster.record.began(plan, work, self)
        self.calls_served += 1
        number = self.calls_served if self.actor_spec is not None else 0
        if plan.get("keep"):
            self._kept.append(rest)
        total = plan["number"] + sum(value for value in rest if isinstance(value, int))

        def after_run() -> None:
            if not worker.is_awake(after_run):
                return
            current.runtime = self.rt
            if plan.get("fail"):
                self._end(work, done, error=ValueError(f"plan {plan['number']} fails"))
                return
            refs = [self.rt.objects.put(total + index) for index in range(plan.get("bear", 0))]
            value: Any = [total, *refs] if refs else total
            if self.actor_spec is not None:
                value = (total, number, self.worker.incarnation)
            self.cluster.record.ended(plan, work, self)
            self._end(work, done, value=value)

        def add(value: int) -> None:
            nonlocal total
            total += value

        def start() -> None:
            if worker.is_awake(start):
                self._nest(plan.get("kids", ()), work, done, add, after_run)

        self.cluster.world.after(plan["run_s"], start)

    def _nest(
        self,
        kids: Any,
        work: Work,
        done: Done,
        add: Callable[[int], None],
        after: Callable[[], None],
    ) -> None:
        if not kids:
            after()
            return
        current.runtime = self.rt
        worker = self.worker
        assert worker is not None
        running.work = work
        try:
            refs = [self.cluster.submit(self.rt, kid, ()) for kid in kids]
        finally:
            running.work = None
        worker.shell._before_wait()
        left = len(refs)

        def arrived(entry: Any) -> None:
            nonlocal left
            left -= 1
            if left:
                return
            worker.shell._after_wait()
            self.cluster.world.after(0.0, collect)

        def collect() -> None:
            if not worker.is_awake(collect):
                return
            current.runtime = self.rt
            try:
                for ref in refs:
                    add(self.rt.objects.load(ref._entry))
            except BaseException as error:
                refs.clear()
                self._end(work, done, error=error)
                return
            refs.clear()
            after()

        entries = [ref._entry for ref in refs]
        self.rt.post(lambda: self.rt.objects.begin_wait(Watcher(arrived), entries))

    def _end(
        self, work: Work, done: Done, value: Any = None, error: BaseException | None = None
    ) -> None:
        worker = self.worker
        assert worker is not None
        count = max(1, work.template.num_returns)
        nested: list[ObjectRef[Any]] = []
        if error is not None:
            if done.status == OK:
                done.status = RAISED
            if isinstance(error, RayError) and not isinstance(error, RayTaskError):
                data = error_envelope(error)
            else:
                data = serialize_exception(error, work.template.name, 1)
        else:
            packed = pack(value)
            if isinstance(packed, Serialized):
                nested = list(packed.refs)
                data = packed.to_bytes()
            else:
                data = packed
        done.returns = [(data, None)] * count
        done.nested = [list(nested) for _ in range(count)]
        done.run_us = 100
        self.open = None
        self.executing.pop(work.spec.task_id, None)
        self._busy = False
        self.finished(done)
        worker.door.turn_soon()
        self.look()

    # -- actors

    def make_actor(self, spec: Any, borrowed: list[Any]) -> bytes:
        """The constructor takes no time."""
        self.actor_spec = spec
        assert self.worker is not None
        self.cluster.record.actor_made(spec, self.worker)
        return b""
