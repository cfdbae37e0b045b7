"""Nodes that pull objects from each other, on virtual time over a bad network.

Owns the network (delay, loss, copies, overtaking; a line out of each node that carries one chunk at
a time), deaths and who hears of them when, owners that know copies late, readers that ask again.
The machines are the real ones. Everything follows from one seed.

What must be true:
  - a chunk is sent only by who has it, and a sealed copy has all its chunks
  - what pulls that run take together has a bound
  - everybody is answered; whoever asks again gets the object, if a node that keeps it lives
  - when all is quiet, no machine remembers anything
  - no machine contradicts itself
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from random import Random

from mray.node.objects.effects import OwnerGone
from mray.node.transfer.effects import (
    Ask,
    AskOwner,
    Drop,
    End,
    Fail,
    Place,
    Refuse,
    Release,
    Seal,
    SendChunk,
    Verify,
)
from mray.node.transfer.pulls import PullRules, Pulls
from mray.node.transfer.pushes import Present, Pushes, PushRules
from mray.wire.messages import Address, Source

OWNER = Address(b"owner", b"n0")
CHUNK = 10
RULES = PullRules(quota_bytes=600, chunk_bytes=CHUNK, window_bytes=80, stall_s=2.0)
_CHUNK_S = 0.001
_READS_MAX = 20


class Faults:
    """How bad it is. Shares of messages; ``damage``: of objects that are bad on one node."""

    def __init__(self, loss: float = 0.0, copies: float = 0.0, damage: float = 0.0) -> None:
        self.loss = loss
        self.copies = copies
        self.damage = damage


class SimNode:
    """A node: the two machines, and a store of names."""

    def __init__(self, world: World, node_id: bytes) -> None:
        self.world = world
        self.node_id = node_id
        self.pulls = Pulls(node_id, RULES)
        self.pushes = Pushes(node_id, PushRules(chunk_bytes=CHUNK, in_flight_max=16))
        self.full: set[bytes] = set()
        self.damaged: set[bytes] = set()
        self.alive = True
        #: When the line out of it is free.
        self.free_at = 0.0
        self.sent = 0
        #: Slower lines send a chunk in so many times the usual time.
        self.slowness = 1.0
        #: Objects that a reader waits for, and how often it asked.
        self.reading: dict[bytes, int] = {}
        self._events: deque[Callable[[], list]] = deque()
        self._turning = False

    def event(self, event: Callable[[], list]) -> None:
        """Tell a machine something, in its turn."""
        self._events.append(event)
        if self._turning or not self.alive:
            return
        self._turning = True
        while self._events:
            for effect in self._events.popleft()():
                self.perform(effect)
        if next(self.world.events) % 7 == 0:
            self.pulls.check()
            self.pushes.check()
            self.check_bound()
        self._turning = False

    def is_busy(self) -> bool:
        """Whether its machines want to be told of the time."""
        return self.alive and (len(self.pulls) > 0 or len(self.pushes) > 0)

    def check_bound(self) -> None:
        # Each priority has the quota to itself at most, and one object may always come.
        active = [pull.size for pull in self.pulls._pulls.values() if pull.state != "queued"]
        assert sum(active) <= 3 * max(RULES.quota_bytes, *active, 0)

    def read(self, object_id: bytes, priority: int = 0) -> None:
        """A reader wants an object."""
        if object_id in self.full:
            self.reading.pop(object_id, None)
            return
        self.reading[object_id] = self.reading.get(object_id, 0) + 1
        size = self.world.sizes[object_id]
        source = Source(OWNER, size, self.world.told(object_id)[:1])
        self.event(lambda: self.pulls.want(object_id, source, priority, self.world.now))

    def perform(self, effect: object) -> None:
        world, now = self.world, self.world
        match effect:
            case Ask(node, pull, object_id, chunks, owed, tried):
                world.send(self, node, lambda to: to.asked(
                    self.node_id, pull, object_id, chunks, owed, tried))  # fmt: skip
            case End(node, pull):
                world.send(self, node, lambda to: to.event(
                    lambda: to.pushes.end(self.node_id, pull, now.now)))  # fmt: skip
            case Place(object_id):
                world.after(world.random.random() * 0.01, lambda: self.placed(object_id))
            case Seal(object_id):
                self.full.add(object_id)
                self.reading.pop(object_id, None)
                world.served_at = world.now
                world.after(0.01, lambda: world.made(object_id, self))
            case Drop(object_id):
                self.gone(object_id)
            case Fail(object_id, _, reason):
                self.gone(object_id)
                world.failures.append(reason)
                asked = self.reading.get(object_id, 0)
                if asked:
                    assert asked < _READS_MAX or not world.kept(object_id), world.failures[-5:]
                    if asked < _READS_MAX:
                        world.after(0.5, lambda: self.read(object_id))
                    else:
                        del self.reading[object_id]
            case Verify(object_id, pull, crc):
                world.after(0.01, lambda: self.event(
                    lambda: self.pulls.verified(pull, crc == 1, now.now)))  # fmt: skip
            case AskOwner(object_id):
                world.after(0.01, lambda: self.event(lambda: self.pulls.located(
                    object_id, world.told(object_id), "", now.now)))  # fmt: skip
            case SendChunk(node, pull, object_id, chunk):
                self.send_chunk(node, pull, object_id, chunk)
            case Refuse(node, pull, nodes, text):
                world.send(self, node, lambda to: to.event(lambda: to.pulls.refused(
                    pull, self.node_id, nodes, text, now.now)))  # fmt: skip
            case Release(object_id):
                pass
            case other:
                raise AssertionError(other)

    def placed(self, object_id: bytes) -> None:
        if self.world.random.random() < self.world.no_place:
            why = OwnerGone(object_id, b"owner")
            self.event(lambda: self.pulls.no_place(object_id, why, self.world.now))
        else:
            self.event(lambda: self.pulls.placed(object_id, self.world.now))

    def gone(self, object_id: bytes) -> None:
        if object_id not in self.full:
            self.event(lambda: self.pushes.gone(object_id, "its pull failed"))

    def asked(self, puller, pull, object_id, chunks, owed, tried) -> None:
        def ask() -> list:
            present = None
            if object_id in self.full:
                present = Present(self.world.sizes[object_id])
            elif (mine := self.pulls.find(object_id)) is not None:
                present = Present(mine.size, bytes(mine.have))
            return self.pushes.asked(
                puller, pull, object_id, chunks, owed, tried, present, self.world.now
            )

        self.event(ask)

    def send_chunk(self, node: bytes, pull: int, object_id: bytes, chunk: int) -> None:
        mine = self.pulls.find(object_id)
        if object_id not in self.full:
            if mine is None:
                self.event(lambda: self.pushes.failed(node, pull, "it is gone"))
                return
            assert mine.have[chunk], "a chunk is sent that is not here"
        self.sent += 1
        begin = max(self.free_at, self.world.now)
        self.free_at = begin + _CHUNK_S * self.slowness
        crc = -1 if not self.world.spilled else 1
        if object_id in self.damaged:
            crc = 0
        wait = self.free_at - self.world.now
        self.world.send(self, node, lambda to: to.chunk(pull, self.node_id, chunk, crc), wait)

    def chunk(self, number: int, sender: bytes, chunk: int, crc: int) -> None:
        pull = self.pulls.numbered(number)
        self.event(lambda: self.pulls.arrived(number, sender, chunk, crc, self.world.now))
        if pull is not None:
            object_id = pull.object_id
            self.event(lambda: self.pushes.arrived(object_id, chunk))


class World:
    """All nodes, the network, the owner of all objects."""

    def __init__(self, seed: int, nodes: int, faults: Faults) -> None:
        self.random = Random(seed)
        self.faults = faults
        self.now = 0.0
        self._tick_at = 0.1
        #: When the last reader was served.
        self.served_at = 0.0
        self.no_place = 0.0
        #: Sources say checksums, as of what is on disk.
        self.spilled = False
        self.failures: list[str] = []
        self.sizes: dict[bytes, int] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        #: Checking takes longer than what is checked: it is done now and then.
        self.events = itertools.count()
        self.nodes = {b"n%d" % i: SimNode(self, b"n%d" % i) for i in range(nodes)}
        #: What the owner knows: nodes with a copy, the one to keep it first.
        self._copies: dict[bytes, list[bytes]] = {}

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay_s, next(self._count), call))

    def send(
        self, sender: SimNode, node: bytes, deliver: Callable[[SimNode], None], wait: float = 0.0
    ) -> None:
        """Maybe, maybe twice, some time later, if both live then."""
        to = self.nodes[node]
        for _ in range(1 + (self.random.random() < self.faults.copies)):
            if self.random.random() >= self.faults.loss:
                delay = wait + 0.0005 + self.random.random() * 0.002
                self.after(delay, lambda: deliver(to) if to.alive else None)

    def put(self, object_id: bytes, size: int, *nodes: bytes) -> None:
        """An object is on these nodes, and the first one keeps it."""
        self.sizes[object_id] = size
        self._copies[object_id] = list(nodes)
        for node in nodes:
            self.nodes[node].full.add(object_id)

    def made(self, object_id: bytes, node: SimNode) -> None:
        if node.alive and node.node_id not in self._copies[object_id]:
            self._copies[object_id].append(node.node_id)

    def told(self, object_id: bytes) -> list[bytes]:
        """What the owner says of an object."""
        return list(self._copies[object_id])

    def kept(self, object_id: bytes) -> bool:
        """Whether a node with an undamaged copy lives that the owner knows of."""
        nodes = [self.nodes[node] for node in self._copies[object_id]]
        return any(node.alive and object_id not in node.damaged for node in nodes)

    def kill(self, node_id: bytes) -> None:
        """A node dies, and the others hear of it later."""
        node = self.nodes[node_id]
        node.alive = False
        node.reading.clear()

        def heard() -> None:
            for copies in self._copies.values():
                if node_id in copies:
                    copies.remove(node_id)
            for other in self.nodes.values():
                other.event(lambda o=other: o.pulls.node_gone(node_id, self.now))
                other.event(lambda o=other: o.pushes.node_gone(node_id))

        self.after(self.random.choice((0.01, 1.0, 20.0)), heard)

    def run(self, until_s: float = 1000.0) -> float:
        """Until nothing is left to be done; when the last reader was served."""
        while self.now < until_s and (self._heap or any(map(SimNode.is_busy, self.nodes.values()))):
            next_at = self._heap[0][0] if self._heap else float("inf")
            if next_at > self._tick_at:
                # Coarser than the machines ask for: whoever is late is silent a little longer.
                self.now = self._tick_at
                self._tick_at += 0.1
                for node in self.nodes.values():
                    node.event(lambda n=node: n.pulls.tick(self.now))
                    node.event(lambda n=node: n.pushes.tick(self.now))
            else:
                self.now, _, call = heapq.heappop(self._heap)
                call()
        for node in self.nodes.values():
            if node.alive:
                assert not node.reading, (node.node_id, node.reading, self.failures[-5:])
                assert not len(node.pulls), "pulls are left"
                assert not len(node.pushes), "streams are left"
        return self.served_at
