"""Concurrency groups of an actor: a queue for each, and which of them a call goes to.

Owns that choice. The threads (executor.py) or event loops (async_serving.py) that serve a queue are
the group's own, so a busy group holds up nobody else and thread-local state stays within one. Calls
that name no group are the default group's, which ``max_concurrency`` bounds. Actors without groups
have one queue and never come here.
"""

from __future__ import annotations

from collections.abc import Mapping
from queue import SimpleQueue
from typing import Any

from mray.runtime.calls import Work
from mray.tasks.writable import TemplateOptions

#: What a queue holds: calls, other work for its thread, None for the end.
Queue = SimpleQueue[Any]


class Lane:
    """A group and its queue. ``limit``: how many of its calls may run at a time."""

    __slots__ = ("limit", "name", "queue")

    def __init__(self, name: str, limit: int, queue: Queue) -> None:
        self.name = name
        self.limit = limit
        self.queue = queue


class Lanes:
    """The groups of one actor. ``default``: the queue of calls that name none."""

    def __init__(self, default: Queue, groups: Mapping[str, int]) -> None:
        self._default = default
        self.named = {name: Lane(name, limit, SimpleQueue()) for name, limit in groups.items()}
        #: By the options of templates, which are few.
        self._chosen: dict[bytes, Queue] = {b"": default}

    def put(self, work: Work) -> None:
        """Leave a call in its group's queue. A group that is not there counts as the default: no
        handle of the actor makes such a call."""
        options = work.template.options
        queue = self._chosen.get(options)
        if queue is None:
            lane = self.named.get(TemplateOptions.decode(options).concurrency_group)
            queue = self._chosen[options] = lane.queue if lane is not None else self._default
        queue.put(work)
