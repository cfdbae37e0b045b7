"""``mray.util.Executor``: concurrent.futures over the cluster, each call a task.

mray's own; Ray has nothing like it. Owns futures and the end; pacing.py owns what runs when. A
function travels with each call, so importable functions are the cheap ones, and nothing of those
that are not stays behind in the cluster.
"""

from __future__ import annotations

import concurrent.futures
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from functools import lru_cache, partial
from itertools import chain, islice
from typing import Any, Final, TypeVar

from mray import api
from mray.decorator import remote
from mray.exceptions import TaskCancelledError
from mray.object_ref import ObjectRef
from mray.util.pacing import PacedTasks, settle

__all__ = ["Executor"]

#: See call_sites.py.
CALLS_FOR_USERS = True

T = TypeVar("T")

#: Calls under way for each CPU of the cluster where nobody said how many. Many short calls travel
#: in one message; what is not under way yet can be cancelled.
_CALLS_A_CPU: Final = 16
#: Functions whose names tasks have, remembered.
_NAMES_MAX: Final = 128


def _call(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)


def _call_each(function: Callable[..., Any], chunk: list[tuple[Any, ...]]) -> list[Any]:
    return [function(*args) for args in chunk]


_task = remote(_call)


class Executor(concurrent.futures.Executor):
    """Runs calls as tasks of the cluster.

    ``max_workers``: calls under way at most; by default enough to keep every CPU busy.
    ``remote_args``: options of the tasks, as ``.options()`` takes them.

    A call that is under way cannot be cancelled, but by shutdown() before it has begun. An
    ObjectRef among its arguments stands for its value.
    """

    def __init__(
        self, max_workers: int | None = None, *, remote_args: dict[str, Any] | None = None
    ) -> None:
        if max_workers is not None and max_workers < 1:
            raise ValueError(f"max_workers must be 1 or more, not {max_workers}")
        if max_workers is None:
            max_workers = max(1, int(api.cluster_resources().get("CPU", 0))) * _CALLS_A_CPU
        task = _task.options(**(remote_args or {}))
        #: Name of a function -> the remote function that is called so in reports.
        self._task_of = lru_cache(_NAMES_MAX)(lambda name: task.options(name=name))
        self._tasks = PacedTasks(max_workers, "mray-executor")
        # Whoever drops an executor without a shutdown() still has his futures done.
        weakref.finalize(self, self._tasks.end)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Call ``fn(*args, **kwargs)`` in the cluster. RuntimeError after shutdown()."""
        future: Future[T] = Future()
        name = getattr(fn, "__qualname__", type(fn).__qualname__)
        task = self._task_of(name)

        def start() -> ObjectRef[Any] | None:
            if not future.set_running_or_notify_cancel():
                return None
            ref: ObjectRef[Any] = task.remote(fn, *args, **kwargs)
            return ref

        self._tasks.submit(start, partial(_end, future))
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """``map(fn, *iterables)``, an iterator over the results in order.

        All calls are submitted at once, ``chunksize`` of them as one task. ``timeout``: seconds
        from now until the last result; TimeoutError from the iterator when they have passed.
        """
        if chunksize < 1:
            raise ValueError(f"chunksize must be 1 or more, not {chunksize}")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        calls = zip(*iterables, strict=False)
        chunks = iter(lambda: list(islice(calls, chunksize)), [])
        return chain.from_iterable(super().map(partial(_call_each, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. ``wait``: until all are done. ``cancel_futures``: all that have not
        begun; one that has is not run again if its worker dies."""
        self._tasks.end()
        if cancel_futures:
            dropped: Future[Any] = Future()
            dropped.cancel()
            for tell in self._tasks.drop_waiting():
                tell(dropped)
            self._tasks.take_back()
        if wait:
            self._tasks.join()


def _end(future: Future[Any], done: Future[Any]) -> None:
    if done.cancelled():
        future.cancel()
        future.set_running_or_notify_cancel()
    elif type(done.exception()) is TaskCancelledError:
        with future._condition:
            future._state = "PENDING"  # Its task was under way and had not begun: nothing ran.
        future.cancel()
        future.set_running_or_notify_cancel()
    else:
        settle(future, done)
