"""Handles of actors with max_pending_calls: a call too many raises at once.

Owns these handles and the count of calls that this process has under way on each such actor, over
all its handles. Other actors' calls are not counted and pay nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from mray import current
from mray.actor import ActorHandle, ActorMethod
from mray.exceptions import PendingCallsLimitExceeded
from mray.object_ref import ObjectRef
from mray.object_ref_generator import ObjectRefGenerator
from mray.tasks.task import Task


class LimitedHandle(ActorHandle):
    """A handle whose calls are refused while ``limit`` of this process are under way."""

    __slots__ = ("_limit",)

    def __init__(self, limit: int, *rest: Any) -> None:
        super().__init__(*rest)
        self._limit = limit

    def __getattr__(self, name: str) -> ActorMethod:
        method = super().__getattr__(name)
        return LimitedMethod(self, name, method._options)

    def __reduce__(self) -> Any:
        return LimitedHandle, (self._limit, *super().__reduce__()[1])


class LimitedMethod(ActorMethod):
    """A method of such an actor."""

    __slots__ = ()

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """As ActorMethod.remote; PendingCallsLimitExceeded while too many calls are under way."""
        handle = self._handle
        assert isinstance(handle, LimitedHandle)
        runtime = current.get()
        limits: dict[bytes, PendingCalls] = runtime.actors.limits
        pending = limits.setdefault(handle._actor_id, PendingCalls(runtime, handle._actor_id))
        with pending.lock:
            count = pending.count(handle._limit)
            if count >= handle._limit:
                raise PendingCallsLimitExceeded(
                    f"{handle._class_name}.{self._name} was not called: {count} calls of this "
                    f"process wait for {handle!r} or run in it, and its max_pending_calls is "
                    f"{handle._limit}"
                )
            result = super().remote(*args, **kwargs)
            pending.add(result)
        return result


class PendingCalls:
    """The calls of this process that one actor has not answered."""

    def __init__(self, runtime: Any, actor_id: bytes) -> None:
        self._entries = runtime.references.entries
        self._calls = runtime.actors.calls
        self._posts = runtime.mailbox.posts
        self._actor_id = actor_id
        #: Makes counting and calling one step. The same thread may call while it packs arguments.
        self.lock = threading.RLock()
        #: A return of each call that has any; by id, so that values are not kept.
        self._returns: deque[bytes] = deque()

    def add(self, result: Any) -> None:
        """A call was made, with this result of ``.remote()``."""
        ref = result[0] if isinstance(result, list) else result
        if isinstance(ref, ObjectRefGenerator):
            ref = ref._generator_ref
        if isinstance(ref, ObjectRef):
            self._returns.append(ref.binary())

    def count(self, limit: int) -> int:
        """How many are under way; may be too high where that is below ``limit``."""
        returns = self._returns
        while returns and not self._is_under_way(returns[0]):
            returns.popleft()
        if len(returns) >= limit:
            left = [object_id for object_id in returns if self._is_under_way(object_id)]
            returns.clear()
            returns.extend(left)
        # Calls without results are known here only, and in the notes that the loop has not read.
        calls = self._calls.get(self._actor_id)
        known = 0 if calls is None else calls.waiting() + len(calls.inflight)
        notes = [note for note in self._posts.copy() if type(note) is Task]
        unread = sum(note.actor_id == self._actor_id for note in notes)
        return max(len(returns), known + unread)

    def _is_under_way(self, object_id: bytes) -> bool:
        entry = self._entries.get(object_id)
        return entry is not None and not entry.ready
