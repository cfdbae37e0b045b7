"""Doors and pumps of simulated processes: the face of ``mray.rpc.door.Door`` over clockwork.py.

Owns whether a process can be reached, stands still or is dead. Knows of mray only that face and the
one of pumps, which are the real ones.

Who dialled a connection that was cut dials it again, when the real rpc/dialled.py says so. What is
sent meanwhile waits there, and once the line stands again the pump is told (``on_again``). The
other side reaches nobody until then. The end of a process ends its connections too; a head that has
begun anew is found by those who dialled the former one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import greenlet

from mray import current
from mray.ids import is_on
from mray.rpc.dialled import Dialled, Line
from mray.rpc.pump import Pump
from mray.wire.messages import Address

from .clockwork import Clockwork, Lane, Violation

#: Rounds of one process at one moment, before it is taken to spin for ever.
_ROUNDS_MAX = 2_000
_NEVER = float("inf")


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
        self.lines = Dialled()
        #: The very process that each standing line leads to: not the next one of its id.
        self._leads_to: dict[bytes, SimDoor] = {}
        #: What goes on when a partition has healed.
        self._held: list[Callable[[], None]] = []
        #: Whose lines stand again, for the loop to hear.
        self._again: deque[bytes] = deque()
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
        self.on_again: Callable[[bytes], None] = lambda process_id: None
        #: Of a driver or worker: what the API means in it.
        self.runtime: Any = None
        #: Its user code.
        self.strands: dict[Any, None] = {}
        former = self.world.doors.get(process_id)
        self.world.doors[process_id] = self
        if former is not None:
            former.end()
            for door in self.world.doors.values():
                door.shake_hands(process_id)

    # -- the face of Door

    def listen_ipc(self, path: str) -> None:
        """Always succeeds."""

    def dial(self, address: Address, own_node_id: bytes) -> None:
        """See Door."""
        process_id = address.process_id
        if process_id in self._gone or self.knows(process_id):
            return
        if not self.is_remote(process_id):
            self.lines.add(process_id, f"ipc://{process_id.hex()}", self.process_id)
            return
        self.lines.add(process_id, self.world.endpoint(process_id), self.process_id)
        self.shake_hands(process_id)
        self.on_tcp(process_id)

    def dialled_by_tcp(self) -> list[bytes]:
        """See Door."""
        return sorted(line.process_id for line in self.lines if line.is_tcp)

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
        self.lines.remove(process_id)
        self._leads_to.pop(process_id, None)
        self._gone.add(process_id)
        lane = self.lanes.pop(process_id, None)
        if lane is not None:
            lane.lose_all()

    def peers(self) -> list[bytes]:
        """See Door."""
        return sorted({line.process_id for line in self.lines} | self._callers)

    def knows(self, process_id: bytes) -> bool:
        """See Door."""
        return process_id in self.lines or process_id in self._callers

    def is_remote(self, process_id: bytes) -> bool:
        """See Door."""
        return process_id[-8:] != self.process_id[-8:]

    def send(self, process_id: bytes, data: bytes) -> bool:
        """See Door."""
        line = self.lines.get(process_id)
        if line is None:
            target = self.world.doors.get(process_id)
            if (
                process_id not in self._callers
                or target is None
                or target.is_dead
                or not target.stands(self.process_id)
            ):
                self._callers.discard(process_id)
                return False
        elif line.waiting is not None:
            line.waiting.append((data, True))
            return True
        elif line.is_tcp and self.world.doors.get(process_id) is not self._leads_to[process_id]:
            return True  # It is dead, which is not known here yet.
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
        while self._again:
            again = partial(self.on_again, self._again.popleft())
            if run is not None:
                run(again)
        return self._come()

    def _come(self) -> Iterator[tuple[bytes, bytes]]:
        inbox = self._inbox
        while inbox:
            sender, data = inbox.popleft()
            if sender not in self.lines and sender not in self._gone:
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

    # -- lines to other nodes

    def stands(self, process_id: bytes) -> bool:
        """Whether a process is dialled and its line stands."""
        line = self.lines.get(process_id)
        return line is not None and line.waiting is None

    def shake_hands(self, process_id: bytes) -> None:
        """A line is dialled, or somebody listens at its other end again."""
        line = self.lines.get(process_id)
        if line is not None and line.is_tcp and line.name and line.waiting is not None:
            world, name = self.world, line.name
            took_s = 4 * (world.same_node_s + world.rng.expovariate(1 / world.between_s))
            world.after(took_s, lambda: self._shaken(process_id, name))

    def _shaken(self, process_id: bytes, name: bytes) -> None:
        line, world = self.lines.get(process_id), self.world
        target = world.doors.get(process_id)
        if self.is_dead or line is None or line.name != name or line.waiting is None:
            return
        if target is None or target.is_dead:
            return  # Who comes in its place says so.
        if not self._is_open(process_id):
            self._held.append(lambda: self._shaken(process_id, name))
            return
        self._leads_to[process_id] = target
        for stood, waiting, has_lost in self.lines.stands(line.endpoint):
            for data, _ in waiting:
                self.send(stood.process_id, bytes(data))
            if has_lost:
                self._again.append(stood.process_id)
                self.wake()

    def hears_of_end(self, line: Line) -> None:
        """The process at the other end has ended, and what is on the way to it is lost."""
        process_id, name = line.process_id, line.name
        lane = self.lanes.get(process_id)
        if lane is not None:
            lane.lose_all()

        def hear() -> None:
            if self.lines.get(process_id) is not line or line.name != name:
                return
            if self._is_open(process_id):
                self.line_ends(process_id)
            else:
                self._held.append(hear)

        if line.waiting is None:
            self.world.after(self.world.rng.expovariate(1 / self.world.between_s), hear)

    def line_ends(self, process_id: bytes) -> None:
        """A connection of ours breaks: what is under way is lost, both ways."""
        line, world = self.lines.get(process_id), self.world
        if self.is_dead or line is None or not line.name:
            return
        peer = world.doors.get(process_id)
        lanes = [self.lanes.get(process_id)]
        if peer is not None and self.process_id not in peer.lines:
            lanes.append(peer.lanes.get(self.process_id))
        for lane in lanes:
            if lane is not None:
                lane.lose_all()
        for ended in self.lines.ended(line.endpoint, world.now):
            self._leads_to.pop(ended.process_id, None)
            world.after(ended.due - world.now, self._dial_due)

    def _dial_due(self) -> None:
        for line in self.lines.due(self.world.now):
            self.shake_hands(line.process_id)

    def _is_open(self, process_id: bytes) -> bool:
        """Whether something passes, there and back."""
        world, own = self.world, self.process_id
        return world.way_is_open(own, process_id) and world.way_is_open(process_id, own)

    def resume(self) -> None:
        """A partition has healed."""
        for lane in self.lanes.values():
            if lane.is_remote:
                lane.resume()
        held, self._held = self._held, []
        for call in held:
            call()

    def die(self) -> None:
        """Nothing reaches this process and it does nothing; what it sent is under way."""
        self.is_dead = True
        self._inbox.clear()
        for door in self.world.doors.values():
            line = door.lines.get(self.process_id)
            if line is not None and line.is_tcp and line.name:
                door.hears_of_end(line)
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
        if pump._timers and pump._timers[0][0] < due:
            due = pump._timers[0][0]
        if due < self._wake_at or self._wake_at <= world.now:
            self._wake_at = due
            if due != _NEVER:
                world.at(due, partial(self._wake, due))

    def end(self) -> None:
        """The life is over: so is the loop, wherever it waits."""
        if self._loop:
            self._loop.throw()

    def _wake(self, due: float) -> None:
        """A timer is due, unless an earlier one has come since."""
        if due == self._wake_at and not self._due:
            self._turn()


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
