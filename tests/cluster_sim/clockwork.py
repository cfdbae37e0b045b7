"""Virtual time and a bad network between real doors' stand-ins.

Owns the clock, the queue of what will happen, and the ways between processes: delays, partitions.
Knows nothing of mray.

Within a node messages arrive in order and are never lost, as over a unix socket. Between nodes they
arrive in order per pair; a partition holds them up, as tcp does, and a cut connection loses what is
under way, in silence. What its two ends do then is doors.py's.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

import greenlet

if TYPE_CHECKING:
    from .doors import SimDoor


class Violation(AssertionError):
    """Something is not as it must be."""


class Clockwork:
    """What happens when. Everything follows from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = Random(seed)
        self.now = 1_000.0
        #: Strands come back to here.
        self.main: Any = greenlet.getcurrent()
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        #: Living and dead, by process id.
        self.doors: dict[bytes, SimDoor] = {}
        #: Pairs of nodes (from, to) between which nothing passes; by the tail of their ids.
        self.cut: set[tuple[bytes, bytes]] = set()
        self.same_node_s = 0.0001
        self.between_s = self.rng.choice([0.0005, 0.01, 0.2])
        self._ports: dict[bytes, int] = {}
        self.trace: deque[str] = deque(maxlen=400)
        self.steps = 0
        self.digest = 0

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call later."""
        self.at(self.now + delay_s, call)

    def at(self, when: float, call: Callable[[], None]) -> None:
        """Call then, or at this moment if that is over."""
        heapq.heappush(self.events, (when, next(self._numbers), call))

    def step(self) -> bool:
        """The next event; False when there is none."""
        if not self.events:
            return False
        at, _, call = heapq.heappop(self.events)
        if at > self.now:
            self.now = at
        self.steps += 1
        call()
        return True

    def run(self, until: Callable[[], bool], limit_s: float, what: str | Callable[[], str]) -> None:
        """Let time pass until something is so. Violation if it is not within the limit."""
        give_up_at = self.now + limit_s
        while not until():
            if not self.events or self.events[0][0] > give_up_at:
                text = what if isinstance(what, str) else what()
                raise Violation(f"not within {limit_s:g} s: {text}")
            self.step()

    def pass_time(self, duration_s: float) -> None:
        """Let time pass."""
        end = self.now + duration_s
        while self.events and self.events[0][0] <= end:
            self.step()
        self.now = end

    def say(self, text: str) -> None:
        """A line of the story, for failures."""
        self.trace.append(f"{self.now - 1000:9.4f} {text}")
        self.digest = hash((self.digest, round(self.now, 6), len(text)))

    def story(self) -> str:
        """The last lines."""
        return "\n".join(self.trace)

    # -- ways

    def way_is_open(self, source: bytes, target: bytes) -> bool:
        """Whether anything passes from one process to another."""
        return (source[-8:], target[-8:]) not in self.cut

    def partition(self, a: bytes, b: bytes, one_way: bool) -> None:
        """Hold up what nodes say to each other; ``one_way``: only what a says to b."""
        self.cut.add((a[-8:], b[-8:]))
        if not one_way:
            self.cut.add((b[-8:], a[-8:]))

    def heal(self) -> None:
        """Let what was held up pass."""
        self.cut.clear()
        for door in self.doors.values():
            door.resume()

    def reset(self, a: bytes, b: bytes) -> None:
        """Cut all tcp connections between two nodes: what is under way is lost."""
        ends = {a[-8:], b[-8:]}
        for door in list(self.doors.values()):
            for line in list(door.lines):
                if line.is_tcp and {door.process_id[-8:], line.process_id[-8:]} == ends:
                    door.line_ends(line.process_id)

    def endpoint(self, process_id: bytes) -> str:
        """Where a process listens on tcp: always at the same place."""
        port = self._ports.setdefault(process_id, len(self._ports) + 1)
        return f"tcp://10.0.0.1:{port}"


class Lane:
    """What one process has said to another and has not arrived, in order."""

    def __init__(self, world: Clockwork, source: bytes, target: bytes) -> None:
        self.world = world
        self.source, self.target = source, target
        self.is_remote = source[-8:] != target[-8:]
        self.waiting: deque[bytes] = deque()
        self._last_at = 0.0
        self._life = 0

    def send(self, data: bytes) -> None:
        """Put on the way."""
        self.waiting.append(data)
        self._schedule()

    def _schedule(self) -> None:
        world = self.world
        delay_s = world.same_node_s
        if self.is_remote:
            delay_s += world.rng.expovariate(1 / world.between_s)
        at = self._last_at = max(self._last_at, world.now + delay_s)
        world.at(at, partial(self._arrive, self._life))

    def _arrive(self, life: int) -> None:
        if life != self._life or not self.waiting:
            return
        world = self.world
        if self.is_remote and not world.way_is_open(self.source, self.target):
            return  # heal() goes on.
        target = world.doors.get(self.target)
        data = self.waiting.popleft()
        if target is None or target.is_dead:
            return
        target.take(self.source, data)

    def resume(self) -> None:
        """The way is open again."""
        self._life += 1
        for _ in self.waiting:
            self._schedule()

    def lose_all(self) -> None:
        """The connection breaks."""
        self._life += 1
        self.waiting.clear()
