"""What a simulated worker does in place of running Python functions: it follows a plan.

Stands in for runtime/executor.py; the worker around it (tasks in, replies out, blocking, actors) is
the real one, and so is what reads arguments and packs results. A plan is a dict:

    number    of the call, for the story and for what must be true of it
    run_s     how long it takes
    kids      plans of tasks to submit; their results are waited for with ``get`` and added
    big       its value is so many bytes, which go into the store
    keep      an actor keeps the references among its arguments
    fail      raises (an application's error)

Its value is its number, plus those of its kids, plus its arguments. An actor counts its calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mray.runtime.calls import NO_ARGUMENTS, OK, Done, Work, running
from mray.runtime.inputs import Inputs
from mray.runtime.results import Results

from .strands import Strand, sleep

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
        self.printed = None  # Workers here have no log files.
        self.exiting = False
        self.results = Results(runtime)
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
        item = self.queue.items.popleft()
        self._busy = True
        Strand(worker.door, self.rt, lambda: self._serve(worker, item))

    def _serve(self, worker: SimWorker, item: Any) -> None:
        if item is None:
            self.cluster.worker_exits(worker, 0)
        elif type(item) is not Work:
            item()
        elif not self.exiting and self.pending.pop(item.spec.task_id, None) is not None:
            self._execute(worker, item)
        self._busy = False
        self.look()

    # -- calls

    def _execute(self, worker: SimWorker, work: Work) -> None:
        spec, template = work.spec, work.template
        worker.last_seq = spec.seq
        self.open = work
        self.executing[spec.task_id] = 0
        done = Done(work.owner, spec, OK)
        try:
            args, _ = self._inputs.read(
                spec.args, spec.deps, spec.args_in_store, spec.args_located, done.borrowed, b""
            )
        except Exception as error:
            done.status = NO_ARGUMENTS
            self.results.fail(done, template, error)
        else:
            try:
                self.results.take(done, template, self._follow(worker, work, *args))
            except Exception as error:
                done.status = self.results.verdict(template, error)
                self.results.fail(done, template, error)
            del args
        done.run_us = 100
        self.open = None
        self.executing.pop(spec.task_id, None)
        self.finished(done)

    def _follow(self, worker: SimWorker, work: Work, plan: dict[str, Any], *rest: Any) -> Any:
        record = self.cluster.record
        record.began(plan, work, self)
        self.calls_served += 1
        if plan.get("keep"):
            self._kept.append(rest)
        total = plan["number"] + sum(int_of(value) for value in rest)
        sleep(plan["run_s"])
        if plan.get("kids"):
            running.work = work
            try:
                refs = [self.cluster.submit(self.rt, kid, ()) for kid in plan["kids"]]
            finally:
                running.work = None
            total += sum(int_of(value) for value in self.rt.objects.get(refs, None))
            del refs
        if plan.get("fail"):
            raise ValueError(f"plan {plan['number']} fails")
        record.ended(plan, work, self)
        if self.actor_spec is not None:
            return total, self.calls_served, worker.incarnation
        if plan.get("big"):
            return np.full(plan["big"] // 8, total, dtype=np.int64)
        return total

    # -- actors

    def make_actor(self, spec: Any, borrowed: list[Any], inside: list[Any]) -> bytes:
        """The constructor takes no time."""
        self.actor_spec = spec
        assert self.worker is not None
        self.cluster.record.actor_made(spec, self.worker)
        return b""


def int_of(value: Any) -> int:
    """What a value stands for: a number, or an array that is full of it. ValueError where the array
    is not."""
    if isinstance(value, np.ndarray):
        if not (value == value[0]).all():
            raise ValueError(f"an array with other values than {value[0]}")
        return int(value[0])
    return value if isinstance(value, int) else 0
