"""What a Pool gives back: results that can be waited for, and iterators over results.

Owns waiting, the order of results, callbacks and what a failed call looks like. Submits nothing
itself: an iterator asks its pool to.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from multiprocessing import TimeoutError
from typing import TYPE_CHECKING, Any

from mray import api
from mray.exceptions import RayError
from mray.object_ref import ObjectRef

if TYPE_CHECKING:
    from mray.util.multiprocessing.pool import Pool

#: See call_sites.py.
CALLS_FOR_USERS = True

#: Arguments and keyword arguments.
Call = tuple[Sequence[Any], Mapping[str, Any]]
#: The results of a chunk of calls.
Chunk = ObjectRef[list[Any]]


class PoolTaskError(Exception):
    """Stands in a list of results for the one of a call that raised ``underlying``."""

    def __init__(self, underlying: BaseException) -> None:
        super().__init__(underlying)
        self.underlying = underlying


def _error_of(value: Any) -> BaseException | None:
    """What a call raised, if this is the result of one that did."""
    return value.underlying if isinstance(value, PoolTaskError) else None


class AsyncResult:
    """The result of a call, or the list of results of a map, which may not be there yet."""

    def __init__(
        self,
        chunks: list[Chunk],
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
        single_result: bool = False,
    ) -> None:
        self._chunks = chunks
        self._single_result = single_result
        self._callback = callback
        self._error_callback = error_callback
        #: Runs the callbacks. The result is ready when they have returned, as in the standard
        #: library.
        self._reporter: threading.Thread | None = None
        if callback is not None or error_callback is not None:
            self._reporter = threading.Thread(
                target=self._report, name="mray-pool-callback", daemon=True
            )
            self._reporter.start()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the result is ready, or after ``timeout`` seconds (None: for ever)."""
        if self._reporter is not None:
            self._reporter.join(None if timeout is None else max(0.0, timeout))
        elif self._chunks:
            # A time below 0 is over, as in the standard library; wait() refuses it.
            limit = None if timeout is None else max(0.0, timeout)
            api.wait(self._chunks, num_returns=len(self._chunks), timeout=limit)

    def get(self, timeout: float | None = None) -> Any:
        """The result.

        Raises ``multiprocessing.TimeoutError`` when it is not there after ``timeout`` seconds, what
        the first failed call raised, ActorDiedError when a process of the pool died over it.
        """
        self.wait(timeout)
        if not self.ready():
            raise TimeoutError(f"the result was not there after {timeout} s")
        results: list[Any] = []
        for chunk in self._chunks:
            for result in api.get(chunk):
                error = _error_of(result)
                if error is not None:
                    raise error
                results.append(result)
        return results[0] if self._single_result else results

    def ready(self) -> bool:
        """Whether the result is there, or known to have failed."""
        if self._reporter is not None:
            return not self._reporter.is_alive()
        if not self._chunks:
            return True
        return not api.wait(self._chunks, num_returns=len(self._chunks), timeout=0)[1]

    def successful(self) -> bool:
        """Whether no call failed. Raises ValueError while the result is not ready."""
        if not self.ready():
            raise ValueError("successful() is known only when the result is ready()")
        return all(self._failure_of(chunk) is None for chunk in self._chunks)

    def _report(self) -> None:
        """Callback thread: tell of the first failure at once, or of success at the end."""
        left = list(self._chunks)
        while left:
            ready, left = api.wait(left, num_returns=1)
            error = self._failure_of(ready[0])
            if error is not None:
                if self._error_callback is not None:
                    self._error_callback(error)
                if left:
                    api.wait(left, num_returns=len(left))
                return
        if self._callback is not None:
            results = [result for chunk in self._chunks for result in api.get(chunk)]
            self._callback(results[0] if self._single_result else results)

    @staticmethod
    def _failure_of(chunk: Chunk) -> BaseException | None:
        try:
            errors = (_error_of(result) for result in api.get(chunk))
            return next((error for error in errors if error is not None), None)
        except RayError as error:
            return error


class IMapIterator(ABC, Iterator[Any]):
    """Results of a lazy map: one chunk a process is under way, the next follows each that is read.

    As in Ray, a call that failed does not end the iteration: a PoolTaskError stands in its place,
    and the RayError in the place of a chunk that was lost with its process.
    """

    def __init__(
        self, pool: Pool, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None
    ) -> None:
        if chunksize is None:
            chunksize = pool.chunksize_for(len(iterable)) if isinstance(iterable, Sized) else 1
        if chunksize < 1:
            raise ValueError(f"chunksize must be 1 or more, not {chunksize}")
        self._pool = pool
        self._func = func
        self._chunksize = chunksize
        self._items = iter(iterable)
        #: Chunks under way -> (number, place in the pool).
        self._under_way: dict[Chunk, tuple[int, int]] = {}
        self._submitted_count = 0
        #: Chunks that came before their turn, by number; and whose turn it is.
        self._early: dict[int, list[Any]] = {}
        self._next_number = 0
        #: Results that next() gives out.
        self._results: deque[Any] = deque()
        for place in range(pool.process_count):
            self._submit(place)

    def _submit(self, place: int) -> None:
        batch: list[Call] = [((item,), {}) for item in islice(self._items, self._chunksize)]
        if batch:
            chunk = self._pool.run_batch(place, self._func, batch)
            self._under_way[chunk] = (self._submitted_count, place)
            self._submitted_count += 1

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next result. ``multiprocessing.TimeoutError`` if it is not there after ``timeout``
        seconds; it can be asked for again. StopIteration after the last."""
        give_up_at = None if timeout is None else time.monotonic() + timeout
        while not self._results:
            if not self._under_way:
                raise StopIteration
            rest_s = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            ready, _ = api.wait(list(self._under_way), num_returns=1, timeout=rest_s)
            if not ready:
                raise TimeoutError(f"the next result was not there after {timeout} s")
            number, place = self._under_way.pop(ready[0])
            self._submit(place)
            try:
                values = api.get(ready[0])
            except RayError as error:
                values = [error]
            self._arrived(number, values)
        return self._results.popleft()

    @abstractmethod
    def _arrived(self, number: int, values: list[Any]) -> None:
        """Take in the results of a chunk."""


class OrderedIMapIterator(IMapIterator):
    """Results in the order of their arguments."""

    def _arrived(self, number: int, values: list[Any]) -> None:
        self._early[number] = values
        while self._next_number in self._early:
            self._results += self._early.pop(self._next_number)
            self._next_number += 1


class UnorderedIMapIterator(IMapIterator):
    """Results as they come."""

    def _arrived(self, number: int, values: list[Any]) -> None:
        self._results += values
