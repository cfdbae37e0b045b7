"""Runs user code in a worker: tasks one at a time, or the calls of one actor.

Owns fetching functions, arguments in, what runs in which thread. What a call leaves is results.py's
and generators.py's; async actors are async_serving.py's, queues of concurrency groups lanes.py's.
Talks to nobody: the loop (worker.py) hands it work and takes its replies.

Who may run a task is settled by one dict: whoever pops its id from ``pending`` has it, the
executing thread to run it or the loop to hand it back. A dict pop is atomic.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mray.class_names import short_name, shown_repr
from mray.exceptions import RayError
from mray.job_keys import FUNCTIONS
from mray.ownership.references import Entry
from mray.placement import plain
from mray.progress import write_begun
from mray.runtime.accelerators import Accelerators
from mray.runtime.borrowing import adopting
from mray.runtime.calls import (
    NO_ARGUMENTS,
    OK,
    Done,
    Work,
    cancelled,
    cancelled_error,
    present_work,
    running,
)
from mray.runtime.inputs import Inputs, explain_read_only
from mray.runtime.lanes import Lane, Lanes, Queue
from mray.runtime.results import Results
from mray.tasks.writable import TemplateOptions
from mray.wire.messages import ActorSpec, KvGet, KvValue, TaskTemplate

if TYPE_CHECKING:
    from mray.runtime.async_serving import AsyncServing
    from mray.runtime.generators import GeneratorsPart
    from mray.runtime.printed import Printed
    from mray.runtime.runtime import Runtime
    from mray.runtime.turn import Turn

_FETCH_WAIT_S = 20.0
#: How long an owner may take to give a function, while the head is away.
_OWNER_WAIT_S = 5.0
#: The number of the task that begins, when (ns), its id and attempt: what node/workers/death.py
#: reads. Compiled, for it is written for each task.


class ExitActor(SystemExit):
    """Raised by exit_actor(): end the actor on purpose."""


class Terminated(SystemExit):
    """Raised in the main thread by SIGTERM: nothing is waited for."""


class Executor:
    """See the module. ``finished(done)`` takes a result to the loop, from any thread."""

    def __init__(
        self,
        runtime: Runtime,
        finished: Callable[[Done], None],
        announce: Callable[[str, bool], None],
        leaving: Callable[[str], None],
        progress: Any,
    ) -> None:
        self.rt = runtime
        self.leaving = leaving
        self.finished = finished
        self.announce = announce
        self.queue: SimpleQueue[Work | Callable[[], None] | None] = SimpleQueue()
        #: Leaves a call for its thread: in an actor with concurrency groups, in one of ``_groups``.
        self.put: Callable[[Work], None] = self.queue.put
        self._groups: list[Lane] = []
        #: Calls not begun, by task id.
        self.pending: dict[bytes, Work] = {}
        #: What the main thread runs, from its arguments to its results: it may be interrupted.
        self.open: Work | None = None
        #: Calls that were cancelled after they had been taken up.
        self.cancelled = cancelled
        #: Of an async actor: cancels a call's coroutine, from any thread.
        self.cancel_async: Callable[[bytes], None] | None = None
        #: What runs now: task id -> when it began (ns, as in the progress file).
        self.executing: dict[bytes, int] = {}
        self.actor: Any = None
        self.actor_spec: ActorSpec | None = None
        #: Ends run() once: what serves the calls from now on depends on the kind of actor.
        self.made_actor = False
        #: Of an async actor: has the calls that came in begun, from any thread.
        self.kick: Callable[[], None] | None = None
        #: Of an async actor: its asyncio loop and what runs there, its constructor first.
        self._async_serving: AsyncServing | None = None
        self._progress = progress
        self._inputs = Inputs(runtime)
        self.results = Results(runtime)
        #: Set by the worker.
        self.generators: GeneratorsPart
        self.serializers = runtime.serializers
        #: Set where the main thread turns the loop while it has nothing to run.
        self.turn: Turn | None = None
        self._functions: dict[bytes, Any] = {}
        self._calls_of: dict[bytes, int] = {}
        self._titled: TaskTemplate | None = None
        self.accelerators = runtime.accelerators = Accelerators(runtime)
        #: Tasks of that template have GPUs, or are to see none.
        self._has_devices = False
        #: Where calls run one at a time; set by the worker.
        self.printed: Printed | None = None
        #: What was announced last: the name, and whether it may be run again.
        self._title = ("", False)
        #: What an actor's lines are shown under, whatever it runs; "" in workers of tasks.
        self.shown = ""
        self.exit_code: int | None = None
        #: max_calls was reached, or a call ended the actor: nothing more is begun.
        self.exiting = False

    # -- the executing threads

    def run(self, queue: Queue | None = None) -> int:
        """Run what a queue gives until told to end; the process's exit code."""
        queue, pending = queue or self.queue, self.pending
        turn = self.turn if self.turn is not None and self.turn.here() else None
        while True:
            if turn is not None and queue.empty():
                turn.lead(lambda: not queue.empty())
                if self.printed is not None:
                    self.printed.skip()
            work = queue.get()
            if type(work) is Work:
                # What is left after the last allowed call stays for the loop to hand back.
                if self.exiting or pending.pop(work.spec.task_id, None) is None:
                    continue
                self.execute(work)
            elif work is None:
                return self.exit_code or 0
            else:
                assert callable(work)
                work()
                if self.made_actor:
                    self.made_actor = False
                    return 0

    def execute(self, work: Work) -> None:
        """Run one call and hand in its result."""
        template, spec = work.template, work.spec
        if template is not self._titled:
            self._titled = template
            self._rename(template.name, template.retriable)
            if self.actor_spec is None:
                self.rt.placing.enter(template.group if template.captures else b"")
                self._has_devices = self.accelerators.concern(template.resources)
                self.accelerators.count_threads(template.resources)
        # The monotonic clock, on Linux: the node daemon compares it with its own.
        begun_at = time.perf_counter_ns()
        if self._progress is not None:
            write_begun(self._progress, 0, spec.seq, begun_at, spec.task_id, spec.attempt)
        running.work = work
        self.executing[spec.task_id] = begun_at
        done = Done(work.owner, spec, OK)
        try:
            self.open = work
            if self.cancelled and (stop := self.heeds(work)):
                raise stop
            if self.serializers.wanted > self.serializers.version:
                self.serializers.catch_up()
            if self._has_devices:
                self.accelerators.enter(template.resources)
            function = self.function_of(template)
            args, kwargs = self.arguments_of(work, done)
        except BaseException as error:
            self.open = None
            done.status = NO_ARGUMENTS
            self.results.fail(done, template, error)
        else:
            try:
                value = function(*args, **kwargs)
                if os.getpid() != self.rt.pid:
                    sys.exit(0)  # A child that the task forked came back: the parent answers.
                if self.cancelled and self.actor_spec and (stop := self.heeds(work)):
                    raise stop
                if template.num_returns < 0:
                    self.generators.run(done, work, value)
                else:
                    self.results.take(done, template, value)
                self.open = None
            except SystemExit as exit_:
                # No reply: the caller learns the cause of this process's end from its daemon.
                self.exit(exit_)
                raise
            except BaseException as error:
                self.open = None
                if os.getpid() != self.rt.pid:
                    traceback.print_exc()
                    sys.exit(1)
                explain_read_only(error, function, args, kwargs)
                done.status = self.results.verdict(template, error)
                if done.flow is None:
                    self.results.fail(done, template, error)
                else:
                    self.generators.fail(done, work, error)
            # Not until the next task: what they hold may be waited for.
            del args, kwargs, function
            value = None
        if self._has_devices:
            self.accelerators.leave()
        done.run_us = (time.perf_counter_ns() - begun_at) // 1000
        running.work = None
        self.executing.pop(spec.task_id, None)
        sys.stdout.flush()
        sys.stderr.flush()
        if self.printed is not None:
            self.printed.ended(spec.task_id, spec.attempt, done.status != OK)
        if template.max_calls:
            count = self._calls_of.get(template.function_key, 0) + 1
            self._calls_of[template.function_key] = count
            done.exiting = self.exiting = count >= template.max_calls
        if done.flow is None:
            self.finished(done)
        else:
            self.generators.finished(done)

    def heeds(self, work: Work) -> BaseException | None:
        """What to raise in a call that was cancelled after it had been taken up."""
        return cancelled_error(work) if work.spec.task_id in self.cancelled else None

    def exit(self, exit_: SystemExit) -> None:
        if isinstance(exit_, ExitActor):
            self.leaving("exit_actor() was called")
        elif self.actor_spec is not None and exit_.code == 0:
            self.leaving("sys.exit(0) was called")  # Meant, as in Ray: it is not restarted.
        code = exit_.code
        self.exiting = True
        self.exit_code = code if isinstance(code, int) else 0 if code is None else 1

    # -- in

    def function_of(self, template: TaskTemplate) -> Callable[..., Any]:
        if template.method:
            if template.method == "__ray_ready__":
                return _ready
            if template.method == "__ray_call__":
                return self._call_with_self
            if template.method == "__ray_terminate__":
                return _terminate
            method: Callable[..., Any] = getattr(self.actor, template.method)
            return method
        function = self._functions.get(template.function_key)
        if function is None:
            function = self._functions[template.function_key] = self.fetch(
                template.function_key, f"the function {template.name}"
            )
        found: Callable[..., Any] = function
        return found

    def _call_with_self(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return function(self.actor, *args, **kwargs)

    def fetch(self, key: bytes, what: str) -> Any:
        """An exported function or class. RayError if the head does not have it in time."""
        if self.rt.head_link.away and (data := self._from_owner(key)) is not None:
            adopting.context = None
            return pickle.loads(data)
        answer = self.rt.ask(
            self.rt.head,
            lambda rid: KvGet(rid, FUNCTIONS, key, _FETCH_WAIT_S),
            KvValue,
            _FETCH_WAIT_S + 10.0,
        )
        if answer.value is None:
            raise RayError(
                f"{what} was not exported to the head within {_FETCH_WAIT_S:g} s (its driver may "
                "be gone)"
            )
        adopting.context = None
        return pickle.loads(answer.value)

    def _from_owner(self, key: bytes) -> bytes | None:
        """What the owner of the present task has exported, while the head is away; None for what
        somebody else has: the head has to be waited for."""
        work = present_work()
        if work is None:
            return None
        answer = self.rt.ask_any(work.owner, lambda rid: KvGet(rid, FUNCTIONS, key), _OWNER_WAIT_S)
        return answer.value if isinstance(answer, KvValue) else None

    def arguments_of(self, work: Work, done: Done) -> tuple[Sequence[Any], Mapping[str, Any]]:
        spec = work.spec
        if not spec.args and spec.args_in_store is None:
            return (), {}
        return self._inputs.read(
            spec.args, spec.deps, spec.args_in_store, spec.args_located, done.borrowed,
            work.template.options,
        )  # fmt: skip

    def _rename(self, name: str, retriable: bool) -> None:
        if (name, retriable) != self._title:
            self._title = (name, retriable)
            self.announce(name, retriable)

    # -- actors

    def make_actor(self, spec: ActorSpec, borrowed: list[Entry], inside: list[Any]) -> bytes:
        """Make the actor's instance; the envelope of its constructor's error, b"" if none. The
        references in the error go into ``inside``."""
        self.actor_spec = self.results.actor_spec = spec
        self.rt.placing.enter(spec.group if spec.captures else b"")
        self.shown = short_name(spec.class_name)
        self._rename(self.shown, False)
        actor_class: Any = None
        args: Sequence[Any] = ()
        kwargs: Mapping[str, Any] = {}
        try:
            if self.serializers.wanted > self.serializers.version:
                self.serializers.catch_up()
            self._has_devices = False  # For life, whatever ran here before.
            needs = plain(spec.resources)
            self.accelerators.count_threads(needs)
            if self.accelerators.concern(needs):
                self.accelerators.enter(needs)
            actor_class = self.fetch(spec.class_key, f"the class {spec.class_name}")
            if spec.args or spec.args_in_store is not None:
                args, kwargs = self._inputs.read(
                    spec.args, spec.deps, spec.args_in_store, spec.args_located, borrowed,
                    spec.options,
                )  # fmt: skip
            make = self._prepare(spec, actor_class)
            self.actor = self.results.actor = make(*args, **kwargs)
            if (shown := shown_repr(self.actor)) is not None:
                self.shown = shown
                self.announce(*self._title)
        except BaseException as error:
            explain_read_only(error, actor_class, args, kwargs)
            return self.results.envelope_of(
                error, f"{short_name(spec.class_name)}.__init__", inside
            )
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return b""

    def _prepare(self, spec: ActorSpec, actor_class: Any) -> Callable[..., Any]:
        """Lay out what serves the actor's calls, which may come once it is made; what makes it."""
        if spec.options:
            options = TemplateOptions.decode(spec.options)
            self.generators.items_max = options.items_max
            if options.concurrency_groups:
                lanes = Lanes(self.queue, options.concurrency_groups)
                self._groups = list(lanes.named.values())
                self.put = lanes.put
        if not spec.is_async:
            maker: Callable[..., Any] = actor_class
            return maker
        # asyncio is nothing for workers without async actors.
        from mray.runtime.async_serving import AsyncServing

        self._async_serving = AsyncServing(self)
        return self._async_serving.maker(actor_class)

    def serve_actor(self, spec: ActorSpec) -> int:
        """Run the actor's calls as its kind demands; the process's exit code."""
        if spec.is_async or spec.max_concurrency > 1 or self._groups:
            self.turn = None
        if self._async_serving is not None:
            self._side_by_side()
            return self._async_serving.run(spec.max_concurrency, self._groups)
        threads = self._threads("actor", spec.max_concurrency - 1, self.queue)
        for group in self._groups:
            threads += self._threads(group.name, group.limit, group.queue)
        if threads:
            self._progress = None
            self._side_by_side()
        for thread in threads:
            thread.start()
        try:
            code = self.run()
        except Terminated:
            raise
        except SystemExit:
            self._finish(threads)
            raise
        self._finish(threads)
        return code

    def _side_by_side(self) -> None:
        printed, self.printed = self.printed, None
        if printed is not None:
            printed.give_up()

    def _finish(self, threads: list[threading.Thread]) -> None:
        """What runs beside a call that ends the actor is finished, as in Ray."""
        for queue in (self.queue, *(group.queue for group in self._groups)):
            queue.put(None)
        for thread in threads:
            thread.join()

    def _threads(self, name: str, count: int, queue: Queue) -> list[threading.Thread]:
        return [
            threading.Thread(
                target=self._serve, args=(queue,), name=f"mray-{name}-{index}", daemon=True
            )
            for index in range(count)
        ]

    def _serve(self, queue: Queue) -> None:
        """The life of a thread beside the main one."""
        try:
            self.run(queue)
        except SystemExit:
            self.queue.put(None)  # The call that ended the actor ran here: the main thread is told.
        queue.put(None)  # The others of this queue end too.


def _ready() -> bool:
    return True


def _terminate() -> None:
    raise ExitActor(0)
