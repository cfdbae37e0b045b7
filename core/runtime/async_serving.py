"""Runs the calls of an async actor on asyncio loops: one for each concurrency group.

Owns these loops and how many calls are under way on each. The default group's turns in the main
thread, where the constructor ran within it too, and lets mray's own loop turn there while it has
nothing to do (leading_selector.py); the others have a thread each. The only asyncio in mray.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from mray.runtime.calls import OK, RAISED, Done, Work, async_work, cancelled_error
from mray.runtime.executor import Executor, Terminated
from mray.runtime.generators import Slot
from mray.runtime.inputs import explain_read_only
from mray.runtime.lanes import Lane, Queue
from mray.runtime.leading_selector import LeadingSelector


class AsyncServing:
    """All groups of one actor. Made in the main thread."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor
        rt = executor.rt
        policy = type(asyncio.get_event_loop_policy())
        selector = None
        # A policy of the user's decides on all loops.
        if rt.turn is not None and policy is asyncio.DefaultEventLoopPolicy:
            selector = LeadingSelector(rt, rt.turn)
        self._main = _LoopLane(self, executor.queue, selector)
        self._lanes = [self._main]

    def maker(self, actor_class: Any) -> Callable[..., Any]:
        """What makes the instance: on the default group's loop, so that the constructor can start
        tasks there. It may be a coroutine."""
        return self._main.maker(actor_class)

    def run(self, max_concurrency: int, groups: Iterable[Lane]) -> int:
        """Serve until told to end, in the default group at most ``max_concurrency`` calls at a
        time; the exit code."""
        executor = self.executor
        threads = []
        for group in groups:
            lane = _LoopLane(self, group.queue)
            self._lanes.append(lane)
            threads.append(
                threading.Thread(
                    target=lane.run, args=(group.limit,), name=f"mray-{group.name}", daemon=True
                )
            )
        executor.kick = self._kick
        executor.cancel_async = self._cancel
        for thread in threads:
            thread.start()
        self._main.run(max_concurrency)
        for lane in self._lanes[1:]:
            lane.end()
        for thread in threads:
            thread.join()
        return executor.exit_code or 0

    def end(self) -> None:
        """A call has ended the actor: what runs is finished, and nothing more is begun."""
        self._main.end()

    def _kick(self) -> None:
        for lane in self._lanes:
            if not lane.queue.empty():
                lane.kick()

    def _cancel(self, task_id: bytes) -> None:
        for lane in self._lanes:
            lane.cancel(task_id)


class _LoopLane:
    """One loop and the calls on it."""

    def __init__(
        self, serving: AsyncServing, queue: Queue, selector: LeadingSelector | None = None
    ) -> None:
        self.serving = serving
        self.executor = serving.executor
        self.queue = queue
        self._selector = selector
        self._loop: asyncio.AbstractEventLoop
        if selector is None:
            self._loop = asyncio.new_event_loop()
        else:
            self._loop = asyncio.SelectorEventLoop(selector)
        self._thread = threading.get_ident() if selector is not None else 0
        self._tasks: dict[asyncio.Task[None], Work] = {}
        self._ending: asyncio.Task[None] | None = None

    # -- any thread

    def kick(self) -> None:
        """Have what came in begun."""
        if threading.get_ident() == self._thread:
            # mray's loop is turned by asyncio's own thread, which need not be woken.
            assert self._selector is not None
            self._loop.call_soon(self._drain)
            self._selector.nudge()
        else:
            self._loop.call_soon_threadsafe(self._drain)

    def cancel(self, task_id: bytes) -> None:
        """Cancel a call, if it is here."""
        self._loop.call_soon_threadsafe(self._cancel, task_id)

    def end(self) -> None:
        """Stop once what runs has ended."""
        self._loop.call_soon_threadsafe(self._end)

    # -- its own thread

    def maker(self, actor_class: Any) -> Callable[..., Any]:
        """See AsyncServing.maker."""

        async def make(*args: Any, **kwargs: Any) -> Any:
            constructor = actor_class.__init__
            if not inspect.iscoroutinefunction(constructor):
                return actor_class(*args, **kwargs)
            instance = actor_class.__new__(actor_class)
            await constructor(instance, *args, **kwargs)
            return instance

        asyncio.set_event_loop(self._loop)
        return lambda *args, **kwargs: self._loop.run_until_complete(make(*args, **kwargs))

    def run(self, limit: int) -> None:
        """Serve until told to end."""
        asyncio.set_event_loop(self._loop)
        self._limit = asyncio.Semaphore(limit)
        self._loop.call_soon(self._drain)
        self._loop.run_forever()

    def _drain(self) -> None:
        executor, loop, tasks = self.executor, self._loop, self._tasks
        queue = self.queue
        while not queue.empty():
            work = queue.get_nowait()
            if type(work) is Work:
                if executor.exiting:
                    continue
                if executor.pending.pop(work.spec.task_id, None) is not None:
                    task = loop.create_task(self._one(work))
                    tasks[task] = work
                    task.add_done_callback(self._ended)
            elif work is None:
                self._end()
            else:
                assert callable(work)
                work()

    def _ended(self, task: asyncio.Task[None]) -> None:
        work = self._tasks.pop(task)
        if task.cancelled():  # before its call had begun
            done = Done(work.owner, work.spec, RAISED)
            self.executor.results.fail(done, work.template, cancelled_error(work))
            self.executor.finished(done)

    def _cancel(self, task_id: bytes) -> None:
        for task, work in self._tasks.items():
            if work.spec.task_id == task_id:
                task.cancel()

    def _end(self) -> None:
        if self._ending is None:
            self._ending = self._loop.create_task(self._finish())

    async def _one(self, work: Work) -> None:
        async with self._limit:
            if not self.executor.exiting:
                await self._execute(work)
        if self.executor.exit_code is not None:
            self.serving.end()

    async def _finish(self) -> None:
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        self._loop.stop()

    async def _execute(self, work: Work) -> None:
        executor = self.executor
        template, spec = work.template, work.spec
        done = Done(work.owner, spec, OK)
        begun_at = executor.executing[spec.task_id] = time.perf_counter_ns()
        args: Sequence[Any] = ()
        kwargs: Mapping[str, Any] = {}
        function: Any = None
        try:
            if executor.serializers.wanted > executor.serializers.version:
                executor.serializers.catch_up()
            function = executor.function_of(template)
            async_work.set(work)
            args, kwargs = executor.arguments_of(work, done)
            value = function(*args, **kwargs)
            if inspect.isawaitable(value):
                value = await value
            if executor.cancelled and (stop := executor.heeds(work)):
                raise stop
            if template.num_returns < 0:
                await self._generate(done, work, value)
            else:
                executor.results.take(done, template, value)
        except SystemExit as exit_:
            executor.exit(exit_)
            if isinstance(exit_, Terminated):
                raise  # Out of the loop.
            return
        except BaseException as raised:
            error = raised
            if isinstance(raised, asyncio.CancelledError):  # Also what nobody asked for, as in Ray.
                error = cancelled_error(work).with_traceback(raised.__traceback__)
            explain_read_only(error, function, args, kwargs)
            done.status = executor.results.verdict(template, error)
            if done.flow is None:
                executor.results.fail(done, template, error)
            else:
                executor.generators.fail(done, work, error)
        done.run_us = (time.perf_counter_ns() - begun_at) // 1000
        executor.executing.pop(spec.task_id, None)
        if done.flow is None:
            executor.finished(done)
        else:
            executor.generators.finished(done)

    async def _generate(self, done: Done, work: Work, value: Any) -> None:
        """Run a generator, plain or async, to its end; see GeneratorsPart.run."""
        generators = self.executor.generators
        flow = generators.open(done, work, value, "__anext__", "__next__")
        pace, skip = flow.pace, flow.skip
        async for item in value if hasattr(value, "__anext__") else _in_turns(value):
            pace.made += 1
            if pace.unwanted:
                if flow.orphaned:
                    break
                continue
            if pace.made <= skip:
                continue
            packed = self.executor.results.item(done, work.template, pace.made + 1, item)
            # The stand-in turns the loop here, always: it would be slow to take it back.
            generators.emit(flow, Slot(flow, *packed), send=False)
            del item, packed
            while generators.full(flow):
                signal = flow.waiting = _Signal(self._loop)
                # Room that was made before the event loop could know of this wait.
                if generators.full(flow):
                    await signal.event.wait()
        generators.conclude(flow, False)


class _Signal:
    """What a coroutine waits on, released from any thread as a lock is."""

    __slots__ = ("_loop", "event")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.event = asyncio.Event()

    def release(self) -> None:
        """End the wait."""
        self._loop.call_soon_threadsafe(self.event.set)


async def _in_turns(values: Any) -> AsyncIterator[Any]:
    """A plain generator: other calls get their turn between its items."""
    for value in values:
        yield value
        await asyncio.sleep(0)
