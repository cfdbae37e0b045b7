"""``mray.util.multiprocessing.Pool``: multiprocessing.Pool, each of its processes an actor.

Owns the actors, which of them gets which calls, and the end. Calls travel in chunks, a chunk to
one actor; results.py waits for them.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

from mray import api
from mray.actor import ActorHandle
from mray.decorator import remote
from mray.object_ref import ObjectRef
from mray.util.multiprocessing.results import (
    AsyncResult,
    Call,
    Chunk,
    IMapIterator,
    OrderedIMapIterator,
    PoolTaskError,
    UnorderedIMapIterator,
)

__all__ = ["AsyncResult", "IMapIterator", "Pool", "PoolTaskError"]

#: See call_sites.py.
CALLS_FOR_USERS = True

log = logging.getLogger("mray")

#: Chunks that each process gets of a map whose chunk size nobody named.
_CHUNKS_A_PROCESS = 4


class _PoolProcess:
    """What each actor of a pool runs."""

    def __init__(self, initializer: Callable[..., Any] | None, initargs: Sequence[Any]) -> None:
        if initializer is not None:
            initializer(*initargs)

    def run_batch(self, func: Callable[..., Any], batch: Iterable[Call]) -> list[Any]:
        results: list[Any] = []
        for args, kwargs in batch:
            try:
                results.append(func(*args, **kwargs))
            except Exception as error:
                # The traceback does not travel; what it said does.
                error.add_note(f"In process {os.getpid()} of the pool:\n{traceback.format_exc()}")
                results.append(PoolTaskError(error))
        return results


_Process = remote(num_cpus=0)(_PoolProcess)


class Pool:
    """A pool of processes of the cluster with the methods of multiprocessing.Pool.

    ``processes``: as many actors as the cluster has CPUs by default, and not more. ``initializer``
    runs in each with ``initargs``. ``maxtasksperchild``: so many chunks until a process is replaced
    by a fresh one, None or 0 without limit. ``context`` means nothing here, a warning says so.
    ``ray_address``: the cluster to join where this process has joined none; without it init()
    decides. ``ray_remote_args``: options of the actors, which need no CPU by default.

    Raises ValueError for a wrong number of processes or a wrong option, ActorDiedError when the
    initializer fails.
    """

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., Any] | None = None,
        initargs: Iterable[Any] | None = None,
        maxtasksperchild: int | None = None,
        context: Any = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if context is not None:
            log.warning("Pool(context=...) has no effect: the processes are actors")
        if maxtasksperchild is not None and maxtasksperchild < 0:
            raise ValueError(f"maxtasksperchild must be 0 or more, not {maxtasksperchild}")
        if processes is not None and processes < 1:
            raise ValueError(f"a pool needs one process or more, not {processes}")
        _connect(processes, ray_address)
        cpus = int(api.cluster_resources().get("CPU", 0))
        if processes is None:
            processes = cpus
        if not 1 <= processes <= cpus:
            raise ValueError(
                f"a pool of {processes} processes was asked for: the cluster has {cpus} CPUs"
            )
        self._process = _Process.options(**(ray_remote_args or {}))
        self._initial = (initializer, tuple(initargs or ()))
        self._maxtasksperchild = maxtasksperchild or None
        #: Guards all below: a pool may be used by several threads.
        self._lock = threading.Lock()
        self._closed = False
        #: The actors, and how many chunks each was given.
        self._actors: list[tuple[ActorHandle, int]] = []
        #: Actors told to end when they have done all they were given; the answers to that.
        self._ending: dict[ObjectRef[Any], ActorHandle] = {}
        self._last_place = -1
        self._actors = [(self._start(), 0) for _ in range(processes)]
        # An initializer that fails shall fail here.
        api.get([actor.__ray_ready__.remote() for actor, _ in self._actors])

    # ------------------------------------------------------------------------------- one call

    def apply(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """``func(*args, **kwargs)`` in a process of the pool."""
        return self.apply_async(func, args, kwargs).get()

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Like apply(), without waiting.

        ``callback`` is called with the result, or ``error_callback`` with what ``func`` raised, in
        a thread of its own.
        """
        self._check_running()
        self._last_place = place = (self._last_place + 1) % len(self._actors)
        chunk = self.run_batch(place, func, [(args or (), kwargs or {})])
        return AsyncResult([chunk], callback, error_callback, single_result=True)

    # ------------------------------------------------------------------------------- many calls

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """``[func(item) for item in iterable]``, by all processes."""
        return self._map(func, iterable, chunksize, False, None, None).get()  # type: ignore[no-any-return]

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> AsyncResult:
        """Like map(), without waiting.

        ``callback`` is called once with all results, or ``error_callback`` once with what the
        first call to fail raised.
        """
        return self._map(func, iterable, chunksize, False, callback, error_callback)

    def starmap(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
    ) -> list[Any]:
        """``[func(*item) for item in iterable]``, by all processes."""
        return self._map(func, iterable, chunksize, True, None, None).get()  # type: ignore[no-any-return]

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        *,
        chunksize: int | None = None,
    ) -> AsyncResult:
        """Like starmap(), without waiting; callbacks as in map_async().

        The order of the parameters is Ray's, which has no ``chunksize`` here.
        """
        return self._map(func, iterable, chunksize, True, callback, error_callback)

    def imap(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> IMapIterator:
        """An iterator over the results in order, which reads ``iterable`` as it is read itself.

        A failed call gives a PoolTaskError in place of a result.
        """
        self._check_running()
        return OrderedIMapIterator(self, func, iterable, chunksize)

    def imap_unordered(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = 1
    ) -> IMapIterator:
        """Like imap(), with results in the order in which they come."""
        self._check_running()
        return UnorderedIMapIterator(self, func, iterable, chunksize)

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        unpack: bool,
        callback: Callable[[list[Any]], object] | None,
        error_callback: Callable[[BaseException], object] | None,
    ) -> AsyncResult:
        self._check_running()
        items = list(iterable)
        size = self.chunksize_for(len(items)) if chunksize is None else chunksize
        if size < 1:
            raise ValueError(f"chunksize must be 1 or more, not {chunksize}")
        chunks = []
        for number, first in enumerate(range(0, len(items), size)):
            some = items[first : first + size]
            batch: list[Call] = [(tuple(item) if unpack else (item,), {}) for item in some]
            chunks.append(self.run_batch(number % len(self._actors), func, batch))
        return AsyncResult(chunks, callback, error_callback)

    # ------------------------------------------------------------------------------- the processes

    @property
    def process_count(self) -> int:
        """How many processes the pool has."""
        return len(self._actors)

    def chunksize_for(self, item_count: int) -> int:
        """The size of the chunks of a map over so many items."""
        return max(1, -(-item_count // (len(self._actors) * _CHUNKS_A_PROCESS)))

    def run_batch(self, place: int, func: Callable[..., Any], batch: list[Call]) -> Chunk:
        """Have the process at a place of the pool make calls; the reference of their results."""
        with self._lock:
            actor, count = self._actors[place]
            chunk: Chunk = actor.run_batch.remote(func, batch)
            count += 1
            if count == self._maxtasksperchild:
                self._end(actor)
                actor, count = self._start(), 0
            self._actors[place] = (actor, count)
        return chunk

    def _start(self) -> ActorHandle:
        actor: ActorHandle = self._process.remote(*self._initial)
        return actor

    def _end(self, actor: ActorHandle) -> None:
        """Have an actor end when it has done what it was given."""
        if self._ending:
            ended, _ = api.wait(list(self._ending), num_returns=len(self._ending), timeout=0)
            for answer in ended:
                del self._ending[answer]
        self._ending[actor.__ray_terminate__.remote()] = actor

    # ------------------------------------------------------------------------------- the end

    def _check_running(self) -> None:
        if self._closed:
            raise ValueError("the pool is not running: it was closed or terminated")

    def __enter__(self) -> Pool:  # noqa: PYI034 (not made to be subclassed)
        self._check_running()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.terminate()

    def close(self) -> None:
        """Take no more calls; the processes end when they have done those they have."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for actor, _ in self._actors:
                    self._end(actor)

    def terminate(self) -> None:
        """Take no more calls and end the processes at once."""
        self.close()
        for actor in self._ending.values():
            api.kill(actor)

    def join(self) -> None:
        """Wait until the processes have ended. ValueError unless the pool was closed."""
        if not self._closed:
            raise ValueError("the pool is running: close() or terminate() it before join()")
        if self._ending:
            api.wait(list(self._ending), num_returns=len(self._ending))


def _connect(processes: int | None, address: str | None) -> None:
    """Connect this process, unless it is: a cluster that is started has a CPU for each process."""
    if api.is_initialized():
        return
    named = address or os.environ.get("MRAY_ADDRESS") or os.environ.get("RAY_ADDRESS")
    starts_cluster = named in (None, "", "local")
    api.init(address, num_cpus=processes if starts_cluster else None)
