"""ObjectRefGenerator: what a call of a generator function returns, and its older form.

Owns iteration, as users see it. What comes and when the end is there, is tasks/streams.py's. As
with references, the finalizer leaves a note and returns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mray.object_ref import ObjectRef

if TYPE_CHECKING:
    from mray.runtime.streams import StreamsPart
    from mray.tasks.streams import Stream


class ObjectRefGenerator:
    """The references of what a generator task yields, each as soon as it is there.

    Iterate with ``for`` or ``async for``. An exception that the generator raises comes out of
    get() on the last reference; StopIteration follows. When this object goes, the items that were
    not taken are freed; the task runs on to its end, as in Ray, and what it yields is thrown away.
    """

    __slots__ = ("__weakref__", "_generator_ref", "_stream", "_streams")

    def __init__(self, streams: StreamsPart, stream: Stream, ref: ObjectRef[Any]) -> None:
        self._streams = streams
        self._stream = stream
        #: Ready when the task is over.
        self._generator_ref = ref

    def __del__(self) -> None:
        self._streams.gone(self._stream)

    @property
    def _entry(self) -> Stream:
        """What wait() waits on."""
        return self._stream

    def __iter__(self) -> ObjectRefGenerator:
        return self

    def __next__(self) -> ObjectRef[Any]:
        stream, streams = self._stream, self._streams
        while True:
            # In this order: the last item is there before the end is told.
            ended = stream.ended
            ref = streams.take(stream)
            if ref is not None:
                return ref
            if ended:
                raise StopIteration
            streams.wait(self, None)

    def _next_sync(self, timeout_s: float | None = None) -> ObjectRef[Any]:
        """As next(), but the nil reference when there is none within ``timeout_s`` seconds; None
        or -1 waits for ever."""
        if timeout_s is not None and timeout_s != -1 and not self._stream.ready:
            streams = self._streams
            streams.wait(self, timeout_s)
            if not self._stream.ready:
                return streams.nil()
        return next(self)

    def __aiter__(self) -> ObjectRefGenerator:
        return self

    async def __anext__(self) -> ObjectRef[Any]:
        return await self._next_async()

    async def _next_async(self, timeout_s: float | None = None) -> ObjectRef[Any]:
        """As _next_sync(), in a coroutine; StopAsyncIteration at the end."""
        import asyncio

        stream, streams = self._stream, self._streams
        while True:
            ended = stream.ended
            ref = streams.take(stream)
            if ref is not None:
                return ref
            if ended:
                raise StopAsyncIteration
            arrival = asyncio.wrap_future(streams.arrival(stream))
            if timeout_s is None or timeout_s == -1:
                await arrival
            else:
                try:
                    await asyncio.wait_for(arrival, timeout_s)
                except TimeoutError:
                    return streams.nil()

    def completed(self) -> ObjectRef[Any]:
        """A reference that is ready when the task is over. get() raises on it if the task could
        not run to its end (its worker died, it was cancelled), not what the generator raised."""
        return self._generator_ref

    def next_ready(self) -> bool:
        """Whether the next reference is there. False at the end."""
        return bool(self._stream.items)

    def is_finished(self) -> bool:
        """Whether the task is over and all its references are taken."""
        return self._stream.ended and not self._stream.items

    def send(self, value: Any) -> Any:
        """Refused, as in Ray: the generator runs elsewhere."""
        raise _refused("send")

    def throw(self, *error: Any) -> Any:
        """Refused, as in Ray."""
        raise _refused("throw")

    def close(self) -> None:
        """Refused, as in Ray: drop the object to stop taking items, or cancel() the task."""
        raise _refused("close")

    async def asend(self, value: Any) -> Any:
        """Refused, as in Ray."""
        raise _refused("asend")

    async def athrow(self, *error: Any) -> Any:
        """Refused, as in Ray."""
        raise _refused("athrow")

    async def aclose(self) -> None:
        """Refused, as in Ray."""
        raise _refused("aclose")

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._stream.task_id.hex()})"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"{self!r} cannot be pickled: the stream belongs to the process that called the "
            "generator. Pass on the references that it yields instead"
        )


class DynamicObjectRefGenerator:
    """The value of a task with ``num_returns="dynamic"``: the references of all that its generator
    yielded. Iterating takes them out, as in Ray."""

    __slots__ = ("_refs",)

    def __init__(self, refs: Iterable[ObjectRef[Any]]) -> None:
        self._refs = deque(refs)

    def __iter__(self) -> Iterator[ObjectRef[Any]]:
        while self._refs:
            yield self._refs.popleft()

    def __len__(self) -> int:
        return len(self._refs)

    def __reduce__(self) -> Any:
        return DynamicObjectRefGenerator, (list(self._refs),)


def _refused(what: str) -> NotImplementedError:
    return NotImplementedError(
        f"an ObjectRefGenerator has no {what}(): its generator runs elsewhere"
    )
