"""``mray.util.queue.Queue``: one first-in first-out queue for many processes.

The queue lives in an actor of its own; a Queue object is a handle of it and may be pickled into
tasks and actors. The actor answers whether there was an item or room, and the handle raises Empty
or Full: an ordinary outcome costs no traceback on the way.
"""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterable
from typing import Any

from mray import api
from mray.actor import ActorHandle
from mray.decorator import remote

__all__ = ["Empty", "Full", "Queue"]

#: See call_sites.py.
CALLS_FOR_USERS = True


class Empty(queue.Empty):
    """The queue had no item, or not enough of them, in time."""


class Full(queue.Full):
    """The queue had no room in time."""


class Queue:
    """A queue that tasks, actors and drivers share.

    ``maxsize``: as many items at most, 0 without limit. ``actor_options``: options of the actor
    that holds the items, as ``.options()`` takes them.

    An item that is an ObjectRef is put as its value. Methods wait for the actor's answer; they
    raise ActorDiedError when the actor has ended, RuntimeError after shutdown() of this handle.
    """

    def __init__(self, maxsize: int = 0, actor_options: dict[str, Any] | None = None) -> None:
        self.maxsize = maxsize
        self.actor: ActorHandle | None = _Holder.options(**(actor_options or {})).remote(maxsize)

    def __len__(self) -> int:
        return self.size()

    def size(self) -> int:
        """How many items are in the queue."""
        return int(api.get(self._holder().size.remote()))

    def qsize(self) -> int:
        """How many items are in the queue."""
        return self.size()

    def empty(self) -> bool:
        """Whether the queue has no item."""
        return self.size() == 0

    def full(self) -> bool:
        """Whether the queue has no room."""
        return 0 < self.maxsize <= self.size()

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Add an item; ``block``: wait for room, for ``timeout`` seconds (None: for ever).

        Raises Full, or ValueError for a negative timeout.
        """
        if not api.get(self._put(item, block, timeout)):
            raise self._full(block, timeout)

    async def put_async(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """put() for code that runs in an event loop."""
        if not await self._put(item, block, timeout):
            raise self._full(block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the oldest item; ``block``: wait for one, for ``timeout`` seconds (None: for ever).

        Raises Empty, or ValueError for a negative timeout.
        """
        return _item(api.get(self._get(block, timeout)), block, timeout)

    async def get_async(self, block: bool = True, timeout: float | None = None) -> Any:
        """get() for code that runs in an event loop."""
        return _item(await self._get(block, timeout), block, timeout)

    def put_nowait(self, item: Any) -> None:
        """Add an item if there is room. Raises Full."""
        self.put(item, block=False)

    def get_nowait(self) -> Any:
        """Take the oldest item if there is one. Raises Empty."""
        return self.get(block=False)

    def put_nowait_batch(self, items: Iterable[Any]) -> None:
        """Add items in order, all of them or none. Raises Full when they do not fit."""
        if not isinstance(items, Iterable):
            raise TypeError(f"items must be an iterable, not {type(items).__name__}")
        batch = list(items)
        size = api.get(self._holder().put_batch.remote(batch))
        if size is not None:
            raise Full(
                f"{len(batch)} items do not fit: the queue has {size} of {self.maxsize} at most"
            )

    def get_nowait_batch(self, num_items: int) -> list[Any]:
        """Take the ``num_items`` oldest items. Raises Empty, taking none, when there are fewer."""
        if not isinstance(num_items, int):
            raise TypeError(f"num_items must be an int, not {type(num_items).__name__}")
        if num_items < 0:
            raise ValueError(f"num_items must be 0 or more, not {num_items}")
        there, answer = api.get(self._holder().get_batch.remote(num_items))
        if not there:
            raise Empty(f"{num_items} items were asked for: the queue has {answer}")
        batch: list[Any] = answer
        return batch

    def shutdown(self, force: bool = False, grace_period_s: float = 5) -> None:
        """End the actor and with it the queue, for all its handles.

        ``force``: at once. Else calls that were made before are answered first, for
        ``grace_period_s`` seconds at most. Does nothing the second time.
        """
        actor, self.actor = self.actor, None
        if actor is None:
            return
        if not force:
            ended, _ = api.wait([actor.__ray_terminate__.remote()], timeout=grace_period_s)
            if ended:
                return
        api.kill(actor)

    # -- calls of the actor

    def _holder(self) -> ActorHandle:
        if self.actor is None:
            raise RuntimeError("this queue was shut down by shutdown() of this handle")
        return self.actor

    def _put(self, item: Any, block: bool, timeout: float | None) -> Any:
        if not block:
            return self._holder().put_now.remote(item)
        return self._holder().put.remote(item, _checked(timeout))

    def _get(self, block: bool, timeout: float | None) -> Any:
        if not block:
            return self._holder().get_now.remote()
        return self._holder().get.remote(_checked(timeout))

    def _full(self, block: bool, timeout: float | None) -> Full:
        waited = f" after {timeout} s" if block else ""
        return Full(f"the queue had no room{waited}: {self.maxsize} items at most")


def _checked(timeout: float | None) -> float | None:
    if timeout is not None and timeout < 0:
        raise ValueError(f"the timeout must be 0 or more, not {timeout}")
    return timeout


def _item(answer: tuple[bool, Any], block: bool, timeout: float | None) -> Any:
    there, item = answer
    if not there:
        raise Empty(f"the queue had no item{f' after {timeout} s' if block else ''}")
    return item


class _QueueActor:
    """What the actor runs: all on one event loop, so nothing needs a lock."""

    def __init__(self, maxsize: int) -> None:
        self._items: asyncio.Queue[Any] = asyncio.Queue(maxsize)

    async def size(self) -> int:
        return self._items.qsize()

    async def put_now(self, item: Any) -> bool:
        try:
            self._items.put_nowait(item)
        except asyncio.QueueFull:
            return False
        return True

    async def put(self, item: Any, timeout: float | None) -> bool:
        # First without waiting: who gives no time still has his item in when there is room.
        if await self.put_now(item):
            return True
        if timeout == 0:
            return False
        try:
            await asyncio.wait_for(self._items.put(item), timeout)
        except TimeoutError:
            return False
        return True

    async def get_now(self) -> tuple[bool, Any]:
        try:
            return True, self._items.get_nowait()
        except asyncio.QueueEmpty:
            return False, None

    async def get(self, timeout: float | None) -> tuple[bool, Any]:
        answer = await self.get_now()
        if answer[0] or timeout == 0:
            return answer
        try:
            return True, await asyncio.wait_for(self._items.get(), timeout)
        except TimeoutError:
            return False, None

    async def put_batch(self, items: list[Any]) -> int | None:
        """None when all are in, else how many items are in the way."""
        size = self._items.qsize()
        if 0 < self._items.maxsize < size + len(items):
            return size
        for item in items:
            self._items.put_nowait(item)
        return None

    async def get_batch(self, count: int) -> tuple[bool, Any]:
        """The items, or how many there are."""
        size = self._items.qsize()
        if count > size:
            return False, size
        return True, [self._items.get_nowait() for _ in range(count)]


_Holder = remote(_QueueActor)
