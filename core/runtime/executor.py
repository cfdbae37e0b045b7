"""Runs user code in a worker: tasks one at a time, or the calls of one actor.

Owns fetching functions, arguments in, results out, errors, what runs in which thread. Talks to
nobody: the loop (worker.py) hands it work and takes its replies.

Who may run a task is settled by one dict: whoever pops its id from ``pending`` has it, the
executing thread to run it or the loop to hand it back. A dict pop is atomic.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from mray.exceptions import RayError, RayTaskError, TaskCancelledError
from mray.ids import object_id
from mray.ownership.references import Entry
from mray.runtime.borrowing import adopting
from mray.runtime.inputs import Inputs, explain_read_only
from mray.runtime.tasks import FUNCTIONS
from mray.serialization.failures import error_envelope, serialize_exception
from mray.serialization.inspection import unpicklable_error
from mray.serialization.pickler import Serialized, pack
from mray.wire.messages import (
    ActorSpec,
    Address,
    KvGet,
    KvValue,
    Located,
    TaskSpec,
    TaskTemplate,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime
    from mray.runtime.turn import Turn

_FETCH_WAIT_S = 20.0
#: The number of the task that begins, and when (ns); compiled, for it is written for each task.
_write_progress = struct.Struct("<qq").pack_into
_OK, _RAISED, _RETRY, _CANCELLED, _STALE, _NO_ARGUMENTS = 0, 1, 2, 3, 4, 5


class Work:
    """One call to run."""

    __slots__ = ("owner", "spec", "template")

    def __init__(self, owner: Address, template: TaskTemplate, spec: TaskSpec) -> None:
        self.owner = owner
        self.template = template
        self.spec = spec


class Done:
    """What the loop gets back: a reply, and what must be registered before it leaves."""

    __slots__ = ("borrowed", "exiting", "nested", "owner", "returns", "run_us", "spec", "status")

    def __init__(self, owner: Address, spec: TaskSpec, status: int) -> None:
        self.owner = owner
        self.spec = spec
        self.status = status
        self.run_us = 0
        #: (data, located) of each return.
        self.returns: list[tuple[bytes | None, Located | None]] = []
        #: For each return, the references inside it.
        self.nested: list[list[Any]] = []
        #: Entries of references among the arguments.
        self.borrowed: list[Entry] = []
        self.exiting = False


class RunningTask(threading.local):
    """What the present thread runs, for get_runtime_context()."""

    work: Work | None = None


running = RunningTask()


class ExitActor(SystemExit):
    """Raised by exit_actor(): end the actor on purpose."""


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
        #: Calls not begun, by task id.
        self.pending: dict[bytes, Work] = {}
        self.actor: Any = None
        self.actor_spec: ActorSpec | None = None
        #: Ends run() once: what serves the calls from now on depends on the kind of actor.
        self.made_actor = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self._progress = progress
        self._inputs = Inputs(runtime)
        self._serializers = runtime.serializers
        #: Set where the main thread turns the loop while it has nothing to run.
        self.turn: Turn | None = None
        self._functions: dict[bytes, Any] = {}
        self._calls_of: dict[bytes, int] = {}
        self._titled: TaskTemplate | None = None
        #: What was announced last: the name, and whether it may be run again.
        self._title = ("", False)
        self._exit_code: int | None = None
        #: max_calls was reached: nothing more is begun.
        self.exiting = False

    # -- the executing threads

    def run(self) -> int:
        """Run what the queue gives until told to end; the process's exit code."""
        queue, pending = self.queue, self.pending
        turn = self.turn if self.turn is not None and self.turn.here() else None
        while True:
            if turn is not None and queue.empty():
                turn.lead(lambda: not queue.empty())
            work = queue.get()
            if type(work) is Work:
                # What is left after the last allowed call stays for the loop to hand back.
                if self.exiting or pending.pop(work.spec.task_id, None) is None:
                    continue
                self.execute(work)
            elif work is None:
                return self._exit_code or 0
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
        # The monotonic clock, on Linux: the node daemon compares it with its own.
        begun_at = time.perf_counter_ns()
        if self._progress is not None:
            _write_progress(self._progress, 0, spec.seq, begun_at)
        running.work = work
        done = Done(work.owner, spec, _OK)
        try:
            if self._serializers.wanted > self._serializers.version:
                self._serializers.catch_up()
            function = self._function(template)
            args, kwargs = self._arguments(work, done)
        except BaseException as error:
            done.status = _NO_ARGUMENTS
            self._error(done, template, error)
        else:
            try:
                value = function(*args, **kwargs)
                if os.getpid() != self.rt.pid:
                    sys.exit(0)  # A child that the task forked came back: the parent answers.
                if self.actor is None and inspect.isgenerator(value):
                    value = list(value)
                self._results(done, template, value)
            except SystemExit as exit_:
                # No reply: the caller learns the cause of this process's end from its daemon.
                self._exit(exit_)
                raise
            except BaseException as error:
                if os.getpid() != self.rt.pid:
                    traceback.print_exc()
                    sys.exit(1)
                explain_read_only(error, function, args, kwargs)
                done.status = self._verdict(template, error)
                self._error(done, template, error)
            # Not until the next task: what they hold may be waited for.
            del args, kwargs, function
            value = None
        done.run_us = (time.perf_counter_ns() - begun_at) // 1000
        running.work = None
        sys.stdout.flush()
        sys.stderr.flush()
        if template.max_calls:
            count = self._calls_of.get(template.function_key, 0) + 1
            self._calls_of[template.function_key] = count
            done.exiting = self.exiting = count >= template.max_calls
        self.finished(done)

    def _exit(self, exit_: SystemExit) -> None:
        if isinstance(exit_, ExitActor):
            self.leaving("exit_actor() was called")
        code = exit_.code
        self._exit_code = code if isinstance(code, int) else 0 if code is None else 1

    # -- in

    def _function(self, template: TaskTemplate) -> Callable[..., Any]:
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

    def _arguments(self, work: Work, done: Done) -> tuple[Sequence[Any], Mapping[str, Any]]:
        spec = work.spec
        if not spec.args and spec.args_in_store is None:
            return (), {}
        return self._inputs.read(
            spec.args, spec.deps, spec.args_in_store, spec.args_located, done.borrowed,
            work.template.options,
        )  # fmt: skip

    # -- out

    def _results(self, done: Done, template: TaskTemplate, value: Any) -> None:
        count = template.num_returns
        if count == 1:
            self._return(done, template, 1, value)
            return
        if count == 0:
            return
        if not hasattr(value, "__len__"):
            raise TypeError(
                f"{template.name} was to return {count} values (num_returns={count}), "
                f"it returned one of type {type(value).__name__}, which has no length"
            )
        if len(value) != count:
            raise ValueError(
                f"{template.name} was to return {count} values (num_returns={count}), "
                f"it returned {len(value)}"
            )
        for index, item in enumerate(value, 1):
            self._return(done, template, index, item)

    def _return(self, done: Done, template: TaskTemplate, index: int, value: Any) -> None:
        try:
            packed = pack(value)
        except Exception as error:
            raise unpicklable_error(value, f"the return value of {template.name}", error) from error
        if type(packed) is bytes and len(packed) <= self.rt.objects.inline_max:
            done.returns.append((packed, None))
            done.nested.append([])
            return
        entry = Entry(object_id(done.spec.task_id, index), done.owner, self.rt.mailbox, 0)  # type: ignore[arg-type]
        refs = list(packed.refs) if isinstance(packed, Serialized) else []
        size = len(packed)
        if size <= self.rt.objects.inline_max:
            assert not isinstance(packed, bytes)
            done.returns.append((packed.to_bytes(), None))
        else:
            self._store(entry, packed, size)
            done.returns.append((None, Located(self.rt.node.node_id, size)))
        done.nested.append(refs)

    def _store(self, entry: Entry, packed: Any, size: int) -> None:
        copy = self.rt.store.copy

        def write(view: memoryview) -> None:
            if type(packed) is bytes:
                copy(view[:size], memoryview(packed))
            else:
                packed.write_into(view, copy)

        assert entry.owner is not None
        self.rt.store.put(entry.object_id, entry.owner.process_id, size, write)

    def _verdict(self, template: TaskTemplate, error: BaseException) -> int:
        wanted = template.retry_exceptions
        if not wanted:
            return _RAISED
        if wanted == b"*":
            return _RETRY if isinstance(error, Exception) else _RAISED
        types = pickle.loads(wanted)
        return _RETRY if isinstance(error, types) else _RAISED

    def _error(self, done: Done, template: TaskTemplate, error: BaseException) -> None:
        refs: list[Any] = []
        if isinstance(error, KeyboardInterrupt):
            error = TaskCancelledError(done.spec.task_id.hex(), task_name=template.name)
        data = self.envelope_of(error, template.name, refs)
        count = max(1, template.num_returns)
        done.returns = [(data, None)] * count
        done.nested = [refs] * count

    def envelope_of(self, error: BaseException, name: str, refs: list[Any]) -> bytes:
        """The error on the wire, as raised by ``name`` in this process."""
        if isinstance(error, RayError) and not isinstance(error, RayTaskError):
            frame = error.__traceback__
            if frame is None or frame.tb_next is None:
                return error_envelope(error, refs)
        spec = self.actor_spec
        return serialize_exception(
            error,
            name,
            os.getpid(),
            self.rt.node.ip,
            actor_repr=_repr(self.actor) if spec is not None else None,
            actor_id=spec.actor_id.hex() if spec is not None else None,
            proctitle=f"ray::{name}",
            refs=refs,
        )

    def _rename(self, name: str, retriable: bool) -> None:
        if (name, retriable) != self._title:
            self._title = (name, retriable)
            self.announce(name, retriable)

    # -- actors

    def make_actor(self, spec: ActorSpec, borrowed: list[Entry]) -> bytes:
        """Make the actor's instance; the envelope of its constructor's error, b"" if none."""
        self.actor_spec = spec
        self._rename(spec.class_name, False)
        actor_class: Any = None
        args: Sequence[Any] = ()
        kwargs: Mapping[str, Any] = {}
        try:
            if self._serializers.wanted > self._serializers.version:
                self._serializers.catch_up()
            actor_class = self.fetch(spec.class_key, f"the class {spec.class_name}")
            if spec.args or spec.args_in_store is not None:
                args, kwargs = self._inputs.read(
                    spec.args, spec.deps, spec.args_in_store, spec.args_located, borrowed,
                    spec.options,
                )  # fmt: skip
            self.actor = actor_class(*args, **kwargs)
        except BaseException as error:
            explain_read_only(error, actor_class, args, kwargs)
            refs: list[Any] = []
            return self.envelope_of(error, f"{spec.class_name}.__init__", refs)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return b""

    def serve_actor(self, spec: ActorSpec) -> int:
        """Run the actor's calls as its kind demands; the process's exit code."""
        if spec.is_async or spec.max_concurrency > 1:
            self.turn = None
        if spec.is_async:
            return self._serve_async(spec.max_concurrency)
        threads = [
            threading.Thread(target=self.run, name=f"mray-actor-{index}", daemon=True)
            for index in range(spec.max_concurrency - 1)
        ]
        self._progress = None if threads else self._progress
        for thread in threads:
            thread.start()
        return self.run()

    def _serve_async(self, max_concurrency: int) -> int:
        """All methods run on one loop in this thread; at most ``max_concurrency`` at a time."""
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        limit = asyncio.Semaphore(max_concurrency)
        tasks: set[asyncio.Task[None]] = set()

        async def one(work: Work) -> None:
            async with limit:
                await self._execute_async(work)
            if self._exit_code is not None:
                loop.stop()

        def drain() -> None:
            while not self.queue.empty():
                work = self.queue.get_nowait()
                if type(work) is Work:
                    if self.pending.pop(work.spec.task_id, None) is not None:
                        task = loop.create_task(one(work))
                        tasks.add(task)
                        task.add_done_callback(tasks.discard)
                elif work is None:
                    loop.create_task(finish())  # noqa: RUF006 (the loop ends with it)
                else:
                    assert callable(work)
                    work()

        async def finish() -> None:
            if tasks:
                await asyncio.wait(set(tasks))
            loop.stop()

        self.drain_async = drain
        self.loop = loop
        loop.call_soon(drain)
        loop.run_forever()
        return self._exit_code or 0

    drain_async: Callable[[], None]

    async def _execute_async(self, work: Work) -> None:
        template, spec = work.template, work.spec
        done = Done(work.owner, spec, _OK)
        begun_at = time.perf_counter_ns()
        args: Sequence[Any] = ()
        kwargs: Mapping[str, Any] = {}
        function: Any = None
        try:
            if self._serializers.wanted > self._serializers.version:
                self._serializers.catch_up()
            function = self._function(template)
            running.work = work
            args, kwargs = self._arguments(work, done)
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            self._results(done, template, value)
        except SystemExit as exit_:
            self._exit(exit_)
            return
        except BaseException as error:
            explain_read_only(error, function, args, kwargs)
            done.status = self._verdict(template, error)
            self._error(done, template, error)
        done.run_us = (time.perf_counter_ns() - begun_at) // 1000
        self.finished(done)


def _repr(actor: object) -> str | None:
    try:
        return repr(actor)
    except Exception:  # a broken __repr__ of the user's must not hide the error being told
        return type(actor).__name__


def _ready() -> None:
    return None


def _terminate() -> None:
    raise ExitActor(0)
