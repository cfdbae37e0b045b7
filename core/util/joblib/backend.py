"""The backend that joblib calls: every batch of calls is a task.

Owns how many tasks are under way (joblib hands out twice as many batches as there are jobs), what
of their arguments goes to the object store, once a Parallel call, and the thread that tells joblib
of results: joblib reads the caller's iterator and submits more in it, which the runtime's own
threads must not do. Started tasks of a call that failed run to their end; their results are
dropped.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Final

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from mray import api
from mray.decorator import remote
from mray.exceptions import RayTaskError
from mray.object_ref import ObjectRef

__all__ = ["MrayBackend"]

#: Arguments from this size on are stored once and read in place by every task.
_STORED_FROM_BYTES: Final = 100 * 1024


class _Stored:
    """Stands in a batch for the argument that travels as a reference."""

    def __init__(self, position: int) -> None:
        self.position = position


def _filled(value: Any, stored: Sequence[Any]) -> Any:
    return stored[value.position] if type(value) is _Stored else value


def _run_batch(batch: Any, *stored: Any) -> Any:
    if stored:
        batch.items = [
            (
                function,
                [_filled(arg, stored) for arg in args],
                {name: _filled(arg, stored) for name, arg in kwargs.items()},
            )
            for function, args, kwargs in batch.items
        ]
    return batch()


_task = remote(_run_batch)


class _Job:
    """One batch: the calls, what becomes of them, and whom to tell."""

    def __init__(self, batch: Any, callback: Callable[[Any], Any]) -> None:
        self.batch = batch
        self.callback = callback
        self.outcome: Future[Any] = Future()


class _Call:
    """The tasks of one Parallel call, ``limit`` of them at a time."""

    def __init__(self, task: Any, limit: int) -> None:
        self._task = task
        self._limit = limit
        #: Guards the next three: joblib submits in the caller's thread and in ours.
        self._lock = threading.Lock()
        self._running_count = 0
        self._waiting: deque[_Job] = deque()
        self._stored: dict[int, tuple[Any, ObjectRef[Any]]] = {}
        self._results: SimpleQueue[tuple[_Job, Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._tell, name="mray-joblib", daemon=True).start()

    def submit(self, batch: Any, callback: Callable[[Any], Any]) -> Future[Any]:
        job = _Job(batch, callback)
        with self._lock:
            self._waiting.append(job)
            self._start_next()
        return job.outcome

    def _start_next(self) -> None:
        """Start what there is room for. The lock is held."""
        while self._waiting and self._running_count < self._limit:
            job = self._waiting.popleft()
            self._running_count += 1
            try:
                light, stored = self._lightened(job.batch)
                done = self._task.remote(light, *stored).future()
            except Exception as error:  # Arguments that cannot be sent: joblib is told in its turn.
                done = Future()
                done.set_exception(error)
            del job.batch
            done.add_done_callback(partial(self._done, job))

    def _done(self, job: _Job, done: Future[Any]) -> None:
        self._results.put((job, done))

    def _tell(self) -> None:
        while (item := self._results.get()) is not None:
            job, done = item
            with self._lock:
                self._running_count -= 1
                self._start_next()
            error = done.exception()
            if error is None:
                job.outcome.set_result(done.result())
            else:
                # As joblib's own backends: what the call raised, with how it came about behind it.
                cause = error.cause if isinstance(error, RayTaskError) else None
                if cause is not None:
                    cause.__cause__ = error
                job.outcome.set_exception(cause or error)
            job.callback(job.outcome)

    def _lightened(self, batch: Any) -> tuple[Any, list[ObjectRef[Any]]]:
        """The batch without its big arguments, and the references of these."""
        stored: list[ObjectRef[Any]] = []
        positions: dict[int, int] = {}

        def light(value: Any) -> Any:
            if _size_of(value) < _STORED_FROM_BYTES:
                return value
            key = id(value)
            if key not in self._stored:
                # The value is kept with its reference: no other can get its id.
                self._stored[key] = value, api.put(value)
            if key not in positions:
                positions[key] = len(stored)
                stored.append(self._stored[key][1])
            return _Stored(positions[key])

        items = [
            (function, [light(arg) for arg in args], {n: light(arg) for n, arg in kwargs.items()})
            for function, args, kwargs in batch.items
        ]
        if not stored:
            return batch, stored
        lighter = copy.copy(batch)
        lighter.items = items
        return lighter, stored

    def abort(self) -> None:
        """Start no more."""
        with self._lock:
            self._waiting.clear()

    def end(self) -> None:
        """The call is over."""
        self.abort()
        self._results.put(None)


def _size_of(value: Any) -> int:
    """About how many bytes a value has: exact for arrays, frames, sparse matrices and strings."""
    if isinstance(value, ObjectRef):
        return 0
    sizes = (getattr(value, "nbytes", 0), getattr(getattr(value, "data", None), "nbytes", 0))
    return max(sys.getsizeof(value, 0), *(size for size in sizes if isinstance(size, int)))


class MrayBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib: untyped
    """Runs joblib's batches as tasks.

    ``ray_remote_args``: options of the tasks, as ``.options()`` takes them; one CPU each by
    default. ``n_jobs``: tasks at a time; -1 means the CPUs of the cluster, -2 one less.
    """

    default_n_jobs = -1
    supports_retrieve_callback = True

    def __init__(self, *, ray_remote_args: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._remote_args = ray_remote_args
        self._n_jobs = 1
        self._task = _task
        self._call: _Call | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many tasks run at a time. ValueError for 0."""
        if n_jobs == 0:
            raise ValueError("n_jobs=0 has no meaning: use a number of jobs, or -1 for all CPUs")
        if n_jobs is None:
            return 1
        if n_jobs > 0:
            return n_jobs
        return max(1, int(api.cluster_resources().get("CPU", 0)) + 1 + n_jobs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: str | None = None,
        require: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
        **backend_kwargs: Any,
    ) -> int:
        """Take the settings of one Parallel object; how many tasks will run at a time."""
        self.parallel = parallel
        self._n_jobs = self.effective_n_jobs(n_jobs)
        if self._n_jobs == 1:
            # Nothing to gain: the calls stay in the caller's process, as with joblib's own.
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        options = self._remote_args if ray_remote_args is None else ray_remote_args
        self._task = _task.options(**options) if options else _task
        return self._n_jobs

    def start_call(self) -> None:
        """A Parallel call begins."""
        self._call = _Call(self._task, self._n_jobs)

    def stop_call(self) -> None:
        """A Parallel call is over."""
        call, self._call = self._call, None
        if call is not None:
            call.end()

    def submit(self, func: Any, callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """Run a batch; ``callback`` is called with a future of its results."""
        assert self._call is not None
        assert callback is not None
        return self._call.submit(func, callback)

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """The results of a batch, or the exception that a call in it raised."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A call failed: start no more of its batches."""
        if self._call is not None:
            self._call.abort()
