"""``mray.util.ActorPool``: hands values to whichever of some actors is free.

Owns who is free, what waits for one, and the order of results. Makes no actors and ends none, and
starts no thread: a value that found no free actor is handed out when a result is fetched.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from mray import api
from mray.actor import ActorHandle
from mray.exceptions import ActorDiedError

__all__ = ["ActorPool"]

V = TypeVar("V")
Call = Callable[[Any, V], Any]


class ActorPool:
    """A pool over actors that exist already: each works on one value at a time.

    ``fn`` is everywhere called as ``fn(actor, value)`` and returns the reference (or the list of
    references) of the call it made.
    """

    def __init__(self, actors: Iterable[ActorHandle]) -> None:
        self._idle_actors: list[ActorHandle] = list(actors)
        #: Calls whose result was not fetched, by number, oldest first.
        self._calls: dict[int, tuple[Any, ActorHandle]] = {}
        #: Values for which no actor was free.
        self._pending_submits: deque[tuple[Call[Any], Any]] = deque()
        self._next_task_index = 0
        #: The call whose result get_next() returns.
        self._next_return_index = 0

    def map(self, fn: Call[V], values: Iterable[V]) -> Iterator[Any]:
        """Call ``fn`` for all values; an iterator over the results, in order.

        Results of earlier calls that nobody fetched are dropped, finished or not.
        """
        while self.has_next():
            try:
                self.get_next(timeout=0, ignore_if_timedout=True)
            except TimeoutError:
                pass  # Dropped, which is all that is wanted of it.
        for value in values:
            self.submit(fn, value)
        return iter(self._ordered())

    def _ordered(self) -> Iterator[Any]:
        while self.has_next():
            yield self.get_next()

    def map_unordered(self, fn: Call[V], values: Iterable[V]) -> Iterator[Any]:
        """Call ``fn`` for all values; an iterator over the results, whichever is there first.

        Waits for earlier calls whose results nobody fetched, and drops them.
        """
        while self.has_next():
            self.get_next_unordered()
        for value in values:
            self.submit(fn, value)
        return iter(self._unordered())

    def _unordered(self) -> Iterator[Any]:
        while self.has_next():
            yield self.get_next_unordered()

    def submit(self, fn: Call[V], value: V) -> None:
        """Call ``fn`` with a free actor now, or once there is one and a result is fetched."""
        if not self._idle_actors:
            self._pending_submits.append((fn, value))
            return
        actor = self._idle_actors.pop()
        try:
            made = fn(actor, value)
        except BaseException:
            self._idle_actors.append(actor)
            raise
        self._calls[self._next_task_index] = (made, actor)
        self._next_task_index += 1

    def has_next(self) -> bool:
        """Whether there are results to fetch, finished or not."""
        return bool(self._calls)

    def get_next(self, timeout: float | None = None, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission.

        ``timeout``: seconds to wait, None for ever. ``ignore_if_timedout``: give up the call that
        is late, so that the next get_next() returns what comes after it.

        Raises TimeoutError, what the call raised, StopIteration when there is nothing to fetch,
        ValueError when get_next_unordered() has gone past what is left.
        """
        if not self._calls:
            raise StopIteration("the pool has no results: all that was submitted was fetched")
        index = self._next_return_index
        if index not in self._calls:
            raise ValueError(
                "get_next() cannot tell what comes next after get_next_unordered(): fetch the "
                f"other {len(self._calls)} results with get_next_unordered() too"
            )
        late = timeout is not None and not _is_done(self._calls[index][0], timeout)
        if late and not ignore_if_timedout:
            raise TimeoutError(f"the result of call {index} was not there after {timeout} s")
        self._next_return_index += 1
        return self._finish(index, late, timeout)

    def get_next_unordered(
        self, timeout: float | None = None, ignore_if_timedout: bool = False
    ) -> Any:
        """The result of any call that is done.

        ``timeout``: seconds to wait, None for ever. ``ignore_if_timedout``: give up the oldest call
        when none is done.

        Raises TimeoutError, what the call raised, StopIteration when there is nothing to fetch.
        """
        if not self._calls:
            raise StopIteration("the pool has no results: all that was submitted was fetched")
        index = self._any_done(timeout)
        late = index is None
        if index is None:
            if not ignore_if_timedout:
                raise TimeoutError(
                    f"none of {len(self._calls)} results was there after {timeout} s"
                )
            index = next(iter(self._calls))
        self._next_return_index = max(self._next_return_index, index + 1)
        return self._finish(index, late, timeout)

    def _any_done(self, timeout: float | None) -> int | None:
        """The number of a call that is done, None after ``timeout`` seconds without one."""
        last_ref = {_refs_of(made)[-1]: index for index, (made, _) in self._calls.items()}
        ready, _ = api.wait(list(last_ref), num_returns=1, timeout=timeout)
        return last_ref[ready[0]] if ready else None

    def _finish(self, index: int, late: bool, timeout: float | None) -> Any:
        """The result of a call, whose actor is free again (unless it is dead)."""
        made, actor = self._calls.pop(index)
        if late:
            self._free(actor)
            raise TimeoutError(
                f"the result of call {index} was not there after {timeout} s and is given up"
            )
        try:
            result = api.get(made)
        except ActorDiedError:
            raise
        except BaseException:
            self._free(actor)
            raise
        self._free(actor)
        return result

    def _free(self, actor: ActorHandle) -> None:
        self._idle_actors.append(actor)
        if self._pending_submits:
            self.submit(*self._pending_submits.popleft())

    def has_free(self) -> bool:
        """Whether an actor is free and nothing waits for one."""
        return bool(self._idle_actors) and not self._pending_submits

    def pop_idle(self) -> ActorHandle | None:
        """Take a free actor out of the pool; None where none is free."""
        return self._idle_actors.pop() if self.has_free() else None

    def push(self, actor: ActorHandle) -> None:
        """Add an actor to the pool. ValueError if it is in it already."""
        if actor in self._idle_actors or any(busy == actor for _, busy in self._calls.values()):
            raise ValueError(f"{actor!r} is in the pool already")
        self._free(actor)


def _refs_of(made: Any) -> list[Any]:
    return made if isinstance(made, list) else [made]


def _is_done(made: Any, timeout: float) -> bool:
    refs = _refs_of(made)
    return len(api.wait(refs, num_returns=len(refs), timeout=timeout)[0]) == len(refs)
