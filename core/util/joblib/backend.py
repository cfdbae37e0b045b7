"""The backend that joblib calls: every batch of calls is a task.

Owns what of the arguments goes to the object store, once a Parallel call. joblib hands out twice as
many batches as there are jobs, and reads the caller's iterator where it is told of a result:
pacing.py sees to both. Started tasks of a call that failed run to their end; their results are
dropped.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Final

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
)

from mray import api
from mray.decorator import remote
from mray.object_ref import ObjectRef
from mray.util.pacing import PacedTasks, settle

__all__ = ["MrayBackend"]

#: See call_sites.py.
CALLS_FOR_USERS = True

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


class _Call:
    """The tasks of one Parallel call, ``limit`` of them at a time."""

    def __init__(self, task: Any, limit: int) -> None:
        self._task = task
        self._tasks = PacedTasks(limit, "mray-joblib")
        #: Big arguments by id, and the references of their copies in the store.
        self._stored: dict[int, tuple[Any, ObjectRef[Any]]] = {}

    def submit(self, batch: Any, callback: Callable[[Any], Any]) -> Future[Any]:
        outcome: Future[Any] = Future()

        def start() -> ObjectRef[Any]:
            light, stored = self._lightened(batch)
            ref: ObjectRef[Any] = self._task.remote(light, *stored)
            return ref

        def tell(done: Future[Any]) -> None:
            settle(outcome, done)
            callback(outcome)

        self._tasks.submit(start, tell)
        return outcome

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
        """Start no more, and cancel what runs: nobody wants its results."""
        self._tasks.drop_waiting()
        self._tasks.cancel_running()

    def end(self) -> None:
        """The call is over."""
        self._tasks.drop_waiting()
        self._tasks.end()


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
        """A call failed: start no more of its batches, and cancel those that run."""
        if self._call is not None:
            self._call.abort()
