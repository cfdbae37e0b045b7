"""Virtual time and a bad network between real doors' stand-ins.

Owns the clock, the queue of what will happen, the ways between processes (delay, partitions, cut
connections) and whether a process can be reached, stands still or is dead. Knows of mray only the
face of ``mray.rpc.door.Door``: pumps and all above them are the real ones.

Within a node messages arrive in order and are never lost, as over a unix socket. Between nodes they
arrive in order per pair; a partition holds them up, as tcp does, and a cut connection loses what is
under way, in silence.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import greenlet

from mray import current
from mray.ids import is_on
from mray.rpc.pump import Pump
from mray.wire.messages import Address

#: Rounds of one process at one moment, before it is taken to spin for ever.
_ROUNDS_MAX = 2_000


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
        self.trace: deque[str] = deque(maxlen=400)
        self.steps = 0
        self.digest = 0

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call later."""
        heapq.heappush(self.events, (self.now + delay_s, next(self._numbers), call))

    def step(self) -> bool:
        """The next event; False when there is none."""
        if not self.events:
            return False
        at, _, call = heapq.heappop(self.events)
        self.now = max(self.now, at)
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
        for door in self.doors.values():
            for lane in door.lanes.values():
                if lane.is_remote and {lane.source[-8:], lane.target[-8:]} == {a[-8:], b[-8:]}:
                    lane.lose_all()


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
        at = max(self._last_at, world.now + delay_s)
        self._last_at = at
        life = self._life
        world.after(at - world.now, lambda: self._arrive(life))

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


class SimDoor:
    """Stands in for mray.rpc.door.Door. The process's loop is a coroutine: where it would sleep, in
    poll(), the world goes on, and switches back when something has come or a timer is due."""

    world: Clockwork  # set by the patch that puts this class in place

    def __init__(self, process_id: bytes, keys: Any = None, same_machine_ipc: bool = True) -> None:
        self.process_id = process_id
        self.is_dead = False
        #: Standing still (SIGSTOP) until then.
        self.stopped_until = 0.0
        self.pump: Pump | None = None
        self.lanes: dict[bytes, Lane] = {}
        self._inbox: deque[tuple[bytes, bytes]] = deque()
        self._dialled: set[bytes] = set()
        self._callers: set[bytes] = set()
        self._gone: set[bytes] = set()
        self._wake_at = float("inf")
        self._due = False
        self._turning = False
        #: The process's loop: waits in poll() whenever the world goes on.
        self._loop: Any = None
        self._awake = False
        self._rounds = 0
        self.on_tcp: Callable[[bytes], object] = lambda process_id: None
        #: Of a driver or worker: what the API means in it.
        self.runtime: Any = None
        #: Its user code.
        self.strands: dict[Any, None] = {}
        self.world.doors[process_id] = self

    # -- the face of Door

    def listen_ipc(self, path: str) -> None:
        """Always succeeds."""

    def dial(self, address: Address, own_node_id: bytes) -> None:
        """See Door."""
        process_id = address.process_id
        if process_id not in self._gone and not self.knows(process_id):
            self._dialled.add(process_id)
            if process_id[-8:] != self.process_id[-8:]:
                self.on_tcp(process_id)

    def dialled_by_tcp(self) -> list[bytes]:
        """See Door."""
        return sorted(p for p in self._dialled if p[-8:] != self.process_id[-8:])

    def dial_endpoint(self, process_id: bytes, endpoint: str) -> None:
        """See Door."""
        raise AssertionError("the simulation knows addresses only")

    def somebody_listens(self, address: Address, own_node_id: bytes) -> bool | None:
        """See Door."""
        if not is_on(address.process_id, own_node_id):
            return None
        door = self.world.doors.get(address.process_id)
        return door is not None and not door.is_dead

    def hang_up(self, process_id: bytes) -> None:
        """See Door."""
        self._callers.discard(process_id)
        self._dialled.discard(process_id)
        self._gone.add(process_id)
        lane = self.lanes.pop(process_id, None)
        if lane is not None:
            lane.lose_all()

    def peers(self) -> list[bytes]:
        """See Door."""
        return sorted(self._dialled | self._callers)

    def knows(self, process_id: bytes) -> bool:
        """See Door."""
        return process_id in self._dialled or process_id in self._callers

    def is_remote(self, process_id: bytes) -> bool:
        """See Door."""
        return process_id[-8:] != self.process_id[-8:]

    def send(self, process_id: bytes, data: bytes) -> bool:
        """See Door."""
        if process_id not in self._dialled:
            target = self.world.doors.get(process_id)
            if process_id not in self._callers or target is None or target.is_dead:
                self._callers.discard(process_id)
                return False
        lane = self.lanes.get(process_id)
        if lane is None:
            lane = self.lanes[process_id] = Lane(self.world, self.process_id, process_id)
        lane.send(data)
        return True

    def poll(
        self, timeout_s: float | None, run: Callable[[Callable[[], None]], None] | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """See Door. While nothing comes, the world goes on."""
        if timeout_s == 0.0 or self._inbox or self._awake:
            self._rounds += 1
            if self._rounds > _ROUNDS_MAX:
                raise Violation(f"process {self.process_id.hex()[:8]} turns for ever")
        else:
            self._rounds = 0
            self._arm()
            self.world.main.switch()
        self._awake = False
        return self._come()

    def _come(self) -> Iterator[tuple[bytes, bytes]]:
        inbox = self._inbox
        while inbox:
            sender, data = inbox.popleft()
            if sender not in self._dialled and sender not in self._gone:
                self._callers.add(sender)
            yield sender, data

    def wake(self) -> None:
        """See Door."""
        self._awake = True
        self.turn_soon()

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Nothing here has descriptors."""

    def unwatch(self, fd: int) -> None:
        """Nothing here has descriptors."""

    def close(self) -> None:
        """The process has left."""
        self.die()

    # -- for the world

    def take(self, sender: bytes, data: bytes) -> None:
        """A message has arrived."""
        self._inbox.append((sender, data))
        self.turn_soon()

    def resume(self) -> None:
        """A partition has healed."""
        for lane in self.lanes.values():
            if lane.is_remote:
                lane.resume()

    def die(self) -> None:
        """Nothing reaches this process and it does nothing; what it sent is under way."""
        self.is_dead = True
        self._inbox.clear()
        for strand in list(self.strands):
            self.world.after(0.0, strand.kill)

    def stop(self, duration_s: float) -> None:
        """Stand still."""
        self.stopped_until = max(self.stopped_until, self.world.now + duration_s)
        self.world.after(duration_s, self.turn_soon)

    def turn_soon(self) -> None:
        """Have the pump turned at this moment, once what happens now is over."""
        if not (self._due or self._turning or self.is_dead):
            self._due = True
            self.world.after(0.0, self._turn)

    def _turn(self) -> None:
        self._due = False
        pump, world = self.pump, self.world
        if self.is_dead or pump is None or world.now < self.stopped_until:
            return
        self._turning = True
        if self.runtime is not None:
            current.runtime = self.runtime
        if self._loop is None:
            self._loop = greenlet.greenlet(self._run, world.main)
        self._loop.switch()
        self._turning = False
        if not self.is_dead:
            for strand in list(self.strands):
                strand.released()

    def _run(self) -> None:
        """The loop of the process. Its pump may be replaced."""
        while not self.is_dead and self.pump is not None:
            self.pump.run_once(None)

    def _arm(self) -> None:
        """Have it woken when the next timer is due."""
        pump, world = self.pump, self.world
        assert pump is not None
        due = pump._next_expiry
        if pump._timers:
            due = min(due, pump._timers[0][0])
        if due < self._wake_at or self._wake_at <= world.now:
            self._wake_at = due
            if due != float("inf"):
                world.after(max(0.0, due - world.now), lambda: self._wake(due))

    def end(self) -> None:
        """The life is over: so is the loop, wherever it waits."""
        if self._loop:
            self._loop.throw()

    def _wake(self, due: float) -> None:
        """A timer is due, unless an earlier one has come since."""
        if due == self._wake_at:
            self.turn_soon()


class SimBulkDoor(SimDoor):
    """Stands in for mray.rpc.bulk_door.BulkDoor; ``bulk`` is turned in its thread's place."""

    bulk: Any = None

    def poll(
        self, timeout_s: float | None, run: Callable[[Callable[[], None]], None] | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """What has come. Never waits."""
        return self._come()

    def send_frame(self, process_id: bytes, frame: Any) -> bool:
        """See BulkDoor."""
        return self.send(process_id, bytes(frame))

    def _turn(self) -> None:
        self._due = False
        world = self.world
        if self.is_dead:
            return
        if world.now < self.stopped_until:
            world.after(self.stopped_until - world.now, self.turn_soon)
            return
        self.bulk._turn()
        if self.bulk._jobs or self._inbox:
            self.turn_soon()


class SimPump(Pump):
    """A pump on virtual time."""

    def __init__(self, door: Any, node_id: bytes = b"", **kwargs: Any) -> None:
        world = door.world
        super().__init__(door, node_id, lambda: world.now, **kwargs)
        door.pump = self
