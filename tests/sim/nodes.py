"""A world of nodes that hold copies of one owner's objects, and lose them.

Owns the nodes' stores, tasks that run on them, readers in other processes, delays of messages,
deaths of nodes and damage on disks, and what must be true. Everything follows from one seed.

What must be true:
  - a value that somebody can reach is in the store that its owner names, while that node lives and
    nothing was damaged there
  - a task runs again only when a result of it has no copy that the owner knows of
  - a task begins no more often than 1 + max_retries, and no more than so many run again at a time
  - nobody waits for ever: at rest every reference in hand has its value or an error
  - an error says what is so: a task that may run again is not given up
  - when all references are gone, no store, table or lineage keeps anything
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from mray.ownership import lineage
from mray.ownership.entry import Entry
from mray.runtime.recovering import RecoveringPart
from mray.serialization.pickler import is_error
from mray.tasks.task import Task
from mray.wire.messages import (
    CopyGone,
    CopyMade,
    CopyMissing,
    DeathCause,
    FreeObjects,
    Located,
    NodeGone,
    ObjectReady,
    ObjectsPinned,
    PinObjects,
    PromoteCopies,
    PromotedCopies,
    Returned,
    TaskReply,
    UnpinObjects,
)

from .owner import INLINE, OWN, Owner
from .world import Violation

NODES_MAX = 8


class Run:
    """A task at a node: it reads its arguments one after the other, then makes its results."""

    def __init__(self, task: Task, node_id: bytes) -> None:
        self.task = task
        self.attempt = task.attempt
        self.node_id = node_id
        #: Arguments not read yet: object, where it is said to be.
        self.unread = [(e.object_id, e.located, e.data) for e in task.deps]
        self.waiting = False
        self.over = False


class Nodes:
    """See the module."""

    def __init__(
        self,
        seed: int,
        recovering_type: type[RecoveringPart] = RecoveringPart,
        change: Callable[[Owner], None] | None = None,
    ) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.now = 0.0
        self.delay_s = rng.choice([0.01, 1.0])
        self.death_rate = rng.choice([0.02, 0.05, 0.1])
        self.small_rate = rng.choice([0.0, 0.3])
        self.recovering_type = recovering_type
        self.parallel_max = rng.choice([1, 2, 5])
        self.evicts = rng.random() < 0.2
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        #: FreeObjects on their way, by node.
        self._frees: dict[bytes, list[list[bytes]]] = {}
        #: When the last message between two processes arrives.
        self._arrivals: dict[tuple[bytes, bytes], float] = {}
        self.stores: dict[bytes, set[bytes]] = {OWN: set()}
        self.dead: set[bytes] = set()
        #: Copies that a disk lost: (node, object).
        self.damaged: set[tuple[bytes, bytes]] = set()
        #: Copies that a node may not drop by itself: made there, or promoted.
        self.kept: set[tuple[bytes, bytes]] = set()
        self._found_damaged: set[tuple[bytes, bytes]] = set()
        #: What waits at readers for the owner's word, by reader's id.
        self._readers: dict[bytes, Callable[[ObjectReady], None]] = {}
        self.runs: list[Run] = []
        self.begun: dict[bytes, int] = {}
        self.reach: list[Entry] = []
        self.tasks: dict[bytes, Task] = {}
        self.rebuilds = 0
        self.story: list[str] = []
        self.owner = Owner(self, self.parallel_max, 4000 if self.evicts else 1 << 30)
        if change is not None:
            change(self.owner)
        self._watch_effects()
        for _ in range(2):
            self.join()

    # -- time

    def after(self, call: Callable[[], None]) -> None:
        """Call after a delay."""
        at = self.now + self.rng.expovariate(1 / self.delay_s)
        heapq.heappush(self._events, (at, next(self._numbers), call))

    def carry(self, sender: bytes, to: bytes, call: Callable[[], None]) -> None:
        """Deliver a message: those between two processes keep their order."""
        at = self.now + self.rng.expovariate(1 / self.delay_s)
        at = self._arrivals[sender, to] = max(at, self._arrivals.get((sender, to), 0.0))
        heapq.heappush(self._events, (at, next(self._numbers), call))

    def step(self) -> bool:
        """The next event; False when there is none."""
        if not self._events:
            return False
        self.now, _, call = heapq.heappop(self._events)
        call()
        self.owner.settle()
        return True

    def say(self, *words: Any) -> None:
        """A line of the story."""
        self.story.append(f"{self.now:9.3f} " + " ".join(str(word) for word in words))

    # -- what the owner sends

    def sent(self, to: bytes, message: Any) -> bool:
        """A message of the owner to a node or reader."""
        if isinstance(message, ObjectReady):
            reader = self._readers.pop(to, None)
            if reader is not None:
                self.carry(b"owner", to, lambda: reader(message))
        elif isinstance(message, FreeObjects):
            self._frees.setdefault(to, []).append(message.object_ids)
            self.carry(b"owner", to, lambda: self._hear_frees(to))
        else:
            assert isinstance(message, UnpinObjects), message
        return to not in self.dead

    def asked(self, to: bytes, make: Any, on_reply: Any, timeout_s: float) -> None:
        """A request of the owner to a node."""
        message = make(1)
        if isinstance(message, PinObjects):
            self.carry(b"owner", to, lambda: self._answer_pin(message, on_reply))
        else:
            assert isinstance(message, PromoteCopies)
            self.carry(b"owner", to, lambda: self._answer_promote(to, message, on_reply))

    def _answer_pin(self, message: PinObjects, on_reply: Any) -> None:
        (wanted,) = message.object_ids
        nodes = [OWN, *(node for source in message.sources for node in source.node_ids)]
        if any(self.find(node_id, wanted) for node_id in nodes):
            self.copy_to(OWN, wanted)
            reply = ObjectsPinned(1, [(0, 1)])
        else:
            reply = ObjectsPinned(1, [(-1, 0)], ["no node has it"])
        self.carry(OWN, b"owner", lambda: on_reply(reply))

    def _answer_promote(self, node_id: bytes, message: PromoteCopies, on_reply: Any) -> None:
        missing = [oid for oid in message.object_ids if not self.find(node_id, oid)]
        self.kept |= {(node_id, oid) for oid in message.object_ids if oid not in missing}
        reply = PromotedCopies(1, missing)
        self.carry(node_id, b"owner", lambda: on_reply(reply))

    # -- nodes

    def has(self, node_id: bytes, made: bytes) -> bool:
        """Whether a node can give an object."""
        return (
            node_id not in self.dead
            and made in self.stores[node_id]
            and (node_id, made) not in self.damaged
        )

    def find(self, node_id: bytes, made: bytes) -> bool:
        """``has``, by looking: a node that finds a value damaged drops it, and tells."""
        if (node_id, made) in self.damaged and node_id not in self.dead:
            self.damaged.discard((node_id, made))
            self.stores[node_id].discard(made)
            self._found_damaged.add((node_id, made))
            gone = CopyGone([made], node_id, "damaged")
            self.carry(node_id, b"owner", lambda: self._tell_owner(node_id, gone))
        return self.has(node_id, made)

    def copy_to(self, node_id: bytes, made: bytes) -> None:
        """A node has pulled an object, and tells."""
        if node_id in self.dead or made in self.stores[node_id]:
            return
        self.say("copy", _short(made), "to", node_id)
        self.stores[node_id].add(made)
        copied = CopyMade([made], node_id)
        self.carry(node_id, b"owner", lambda: self._tell_owner(node_id, copied))

    def _tell_owner(self, node_id: bytes, message: Any) -> None:
        if node_id not in self.dead:
            self.say(node_id, type(message).__name__, *map(_short, message.object_ids))
            self.owner.handlers[type(message)](node_id, message)

    def _hear_frees(self, node_id: bytes) -> None:
        for object_ids in self._frees.pop(node_id, ()):
            self.free(node_id, object_ids)

    def free(self, node_id: bytes, object_ids: list[bytes]) -> None:
        """A node drops what its owner frees."""
        for made in object_ids:
            self.say("free", _short(made), "at", node_id)
            self.stores[node_id].discard(made)
            self.kept.discard((node_id, made))
            self.damaged.discard((node_id, made))
        self._values_are_there()

    def evict(self) -> None:
        """Some node drops a further copy, and tells."""
        copies = [
            (node_id, made)
            for node_id, store in self.stores.items()
            for made in sorted(store)
            if (node_id, made) not in self.kept and node_id not in self.dead
        ]
        if copies:
            node_id, made = self.rng.choice(copies)
            self.stores[node_id].discard(made)
            gone = CopyGone([made], node_id, "evicted")
            self.carry(node_id, b"owner", lambda: self._tell_owner(node_id, gone))

    def damage(self) -> None:
        """A disk loses a value; nobody notices until it is read."""
        stored = [(n, made) for n, s in self.stores.items() if n not in self.dead for made in s]
        if stored:
            node_id, made = self.rng.choice(sorted(stored))
            self.say("damage", _short(made), "at", node_id)
            self.damaged.add((node_id, made))

    def join(self) -> bytes:
        """A new node."""
        node_id = b"node-%d" % next(self._numbers)
        self.stores[node_id] = set()
        return node_id

    def die(self, node_id: bytes) -> None:
        """A node and its workers are gone; the owner hears of it later."""
        self.say("die", node_id)
        self.dead.add(node_id)
        self.stores[node_id] = set()
        for run in [run for run in self.runs if run.node_id == node_id]:
            self.runs.remove(run)
            run.over = True
            self.after(lambda run=run: self.owner.crash(run.task, True))  # type: ignore[misc]
        gone = NodeGone(node_id, DeathCause("node_died", "it died"))

        def heard() -> None:
            self.say("hear of", node_id)
            self.owner.dead_nodes[node_id] = gone
            for call in self.owner.on_node_gone:
                call(gone)

        self.after(heard)
        if len(self.stores) < NODES_MAX:
            self.join()

    def living(self) -> list[bytes]:
        """Nodes that are not dead; the owner's never is."""
        return [node_id for node_id in self.stores if node_id not in self.dead]

    # -- tasks

    def ready(self, task: Task) -> None:
        """A task has its arguments: a worker begins it."""
        if task.attempt == 0:
            self.tasks[task.task_id] = task
        self.after(lambda: self._begin(task))

    def _begin(self, task: Task) -> None:
        run = Run(task, self.rng.choice(self.living()))
        begun = self.begun[task.task_id] = self.begun.get(task.task_id, 0) + 1
        self.say("begin", _short(task.task_id), "at", run.node_id, "attempt", task.attempt)
        if task.template.max_retries >= 0 and begun > 1 + task.template.max_retries:
            raise Violation(f"task {_short(task.task_id)} begins {begun} times")
        self.runs.append(run)
        self._go_on(run)

    def _go_on(self, run: Run) -> None:
        """Read the next argument, or end."""
        if run.over:
            return
        while run.unread:
            made, located, data = run.unread[0]
            if located is not None and data is None and not self._pull(run.node_id, made, located):
                return self._ask_again(run, made)
            run.unread.pop(0)
        return self.after(lambda: self._end(run))

    def _pull(self, node_id: bytes, made: bytes, located: Located) -> bool:
        if self.find(node_id, made):
            return True
        entry = self.owner.references.entries.get(made)
        known = self.owner.recovering.locations.places(entry) if entry is not None else []
        for source in (located.node_id, *known):
            if self.find(source, made):
                self.copy_to(node_id, made)
                return True
        return False

    def _ask_again(self, run: Run, made: bytes) -> None:
        reader = b"reader-%d" % next(self._numbers)

        def answered(message: ObjectReady) -> None:
            if message.status:
                raise Violation(f"the owner does not know {_short(made)}, an argument")
            run.unread[0] = made, message.located, message.data
            self._go_on(run)

        self._readers[reader] = answered
        missing = CopyMissing(made, [run.node_id], "not here")
        self.after(lambda: self.owner.handlers[CopyMissing](reader, missing))

    def _end(self, run: Run) -> None:
        if run.over:
            return
        run.over = True
        self.runs.remove(run)
        # What the owner sent the node before it sent the task to a worker there, has arrived.
        self._hear_frees(run.node_id)
        task = run.task
        if self.rng.random() < 0.05:
            self.owner.crash(task, True)
            return
        returns = []
        for entry in task.returns:
            if self.rng.random() < self.small_rate:
                returns.append(Returned(INLINE))
            else:
                self.stores[run.node_id].add(entry.object_id)
                self.kept.add((run.node_id, entry.object_id))
                self.damaged.discard((run.node_id, entry.object_id))
                self._found_damaged.discard((run.node_id, entry.object_id))
                returns.append(Returned(None, Located(run.node_id, 1000)))
        reply = TaskReply(task.task_id, 0, returns)
        node_id = run.node_id
        self.after(lambda: self._replied(task, reply, node_id))

    def _replied(self, task: Task, reply: TaskReply, node_id: bytes) -> None:
        if node_id in self.dead:
            # As from a worker whose death was heard of first.
            self.owner.crash(task, True)
        else:
            self.say("finish", _short(task.task_id), [r.located for r in reply.returns])
            self.owner.tasks.finish(task, reply)

    # -- readers of the owner's own process

    def read(self, entry: Entry) -> None:
        """get() of a reference in hand, as far as it goes without waiting."""
        if not entry.ready or entry.located is None:
            return
        nodes = self.owner.recovering.locations.places(entry)
        if any(self.find(node_id, entry.object_id) for node_id in nodes):
            self.copy_to(OWN, entry.object_id)
        else:
            self.owner.recovering.report(entry, "not found")

    # -- what must be true

    def _watch_effects(self) -> None:
        recovering = self.owner.recovering
        run_again = recovering._run_again

        def again(task: Task, wanted: list[Entry]) -> None:
            self.rebuilds += 1
            self.say("again", *(_short(entry.object_id) for entry in wanted))
            if not any(self._is_lost(entry) for entry in wanted):
                raise Violation(f"task {_short(task.task_id)} runs again, and nothing is lost")
            jobs = recovering.rebuilding.jobs.values()
            if sum(job.running and not job.waits for job in jobs) > self.parallel_max:
                raise Violation("too many tasks run again at a time")
            run_again(task, wanted)

        recovering._run_again = again  # type: ignore[method-assign]

    def _is_lost(self, entry: Entry) -> bool:
        """Whether the owner has no reason to think that a copy is left."""
        assert entry.located is not None
        if entry.object_id in self.owner.recovering.locations.copies:
            return False
        node_id = entry.located.node_id
        freed = any(entry.object_id in ids for ids in self._frees.get(node_id, ()))
        return freed or not self.has(node_id, entry.object_id)

    def _values_are_there(self) -> None:
        for entry in self.reach:
            if not entry.ready or entry.located is None:
                continue
            node_id, made = entry.located.node_id, entry.object_id
            if node_id in self.dead or made in self.stores[node_id]:
                continue
            if (node_id, made) in self._found_damaged:
                continue
            raise Violation(f"{_short(made)} is in reach, and {node_id!r} has it no more")

    def calm_down(self) -> None:
        """No more deaths. Everybody has a value or an error, then nobody has anything."""
        self.say("calm")
        self._drain()
        for _ in range(3):
            for entry in self.reach:
                self.read(entry)
            self.owner.settle()
            self._drain()
        for entry in self.reach:
            if not entry.ready:
                raise Violation(f"{_short(entry.object_id)} is awaited for ever")
            self._must_be_justified(entry)
        while self.reach:
            self.owner.drop(self.reach.pop())
            self.owner.settle()
        self._drain()
        self.owner.check()
        owner = self.owner
        for what, left in (
            ("entries", owner.references.entries),
            ("lineage", owner.references.lineage.records),
            ("lineage bytes", owner.references.lineage.total_bytes),
            ("jobs", owner.recovering.rebuilding.jobs),
            ("needs", owner.recovering.rebuilding._needing),
            ("tasks", owner.tasks.pending),
            ("copies", owner.recovering.locations.copies),
            ("stores", {n: s for n, s in self.stores.items() if s}),
        ):
            if left:
                raise Violation(f"at rest there are {what}: {left}")

    def _drain(self) -> None:
        limit = 100_000
        while self.step():
            limit -= 1
            if not limit:
                raise Violation("messages go round and round")

    def _must_be_justified(self, entry: Entry) -> None:
        """An error is there only where it has a reason."""
        if entry.data is None or not is_error(entry.data):
            return
        text = entry.data
        if b"REF_NOT_FOUND" in text:
            raise Violation(f"{_short(entry.object_id)} was forgotten")
        if lineage.EVICTED.encode() in text and not self.evicts:
            raise Violation("lineage was dropped without need")
        task = self.tasks.get(entry.object_id[:24])
        if task is not None and lineage.RETRIES_DISABLED.encode() in text:
            self._justify_retries(entry, text)

    def _justify_retries(self, entry: Entry, text: bytes) -> None:
        """Some task among those that lead to the entry may indeed not run again."""
        stack, seen = [self.tasks[entry.object_id[:24]]], set()
        while stack:
            task = stack.pop()
            if task.task_id in seen:
                continue
            seen.add(task.task_id)
            if task.template.max_retries == 0:
                return
            stack += [t for e in task.holds if (t := self.tasks.get(e.object_id[:24])) is not None]
        raise Violation(f"{_short(entry.object_id)} is given up: {text!r}")


def _short(made: bytes) -> str:
    """A task or object, for the story."""
    return made[:1].hex() + (f".{made[24]}" if len(made) > 24 else "")
