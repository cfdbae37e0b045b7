"""What comes to this node from others: which pulls run, which node is asked for which chunks.

Owns pulls, one an object however many want it, and the bytes that are under way. Decides only: the
store makes places, the bulk connection moves bytes, readers are the store's.

Order: what a get waits for before what a wait() waits for, before arguments of tasks to come; first
come first served within. The quota bounds what pulls that run take of the store's memory; what a
less urgent one takes does not count against a more urgent one, and one may always run, whatever its
size. So no pull waits for another that waits for it: what runs needs bytes and nothing else, and
its place comes from the store, which has an end of its own for each wait.

Chunks are asked for by number, as many bytes at a time from each node as its window has room for.
So a node sends nothing that was not asked for, chunks may come in any order and twice, several
nodes give one object together, and after the death of one only what it did not send is asked of
another. A node that is silent is asked again, while the owner is asked for others, and after the
last strike never again for this pull.
One that is busy with the object names others that have or are getting it. When nobody is left, the
owner is asked; when that knows of no other either, the pull fails, with what each node said.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mray.machine import InvariantError
from mray.node.objects.effects import Full, OutOfDisk, OwnerGone
from mray.node.transfer.effects import (
    AskOwner,
    Drop,
    End,
    Fail,
    Place,
    PullEffect,
    Seal,
    Verify,
)
from mray.node.transfer.pull import (
    ASIDE,
    FAILED,
    LOCATING,
    PLACING,
    QUEUED,
    RUNNING,
    USABLE,
    VERIFYING,
    Pull,
    PullSource,
)
from mray.node.transfer.windows import Windows
from mray.units import KIB, MIB
from mray.wire.messages import Address, Source

#: Priorities, most urgent first.
GET, WAIT, ARGUMENTS = 0, 1, 2
_PRIORITIES = (GET, WAIT, ARGUMENTS)
#: A busy node may name others so often before it counts as one that fails.
_ASIDE_MAX = 8


class PullRules(msgspec.Struct, frozen=True, kw_only=True):
    """How objects are pulled. Sizes in bytes."""

    #: What pulls that run may take of the store together.
    quota_bytes: int
    #: The same at all nodes of a cluster: chunks go by number.
    chunk_bytes: int = 512 * KIB
    #: What one node may owe us. More only fills its memory: 4 MiB are 10 ms of a fast line here.
    window_bytes: int = 4 * MIB
    #: A node that owes chunks and sends none for so long is asked again, so often.
    stall_s: float = 3.0
    strikes_max: int = 3
    #: Nodes that one object is pulled from at a time.
    sources_max: int = 3
    #: How long an owner may take to answer, and how often it is asked without any chunk between.
    locate_s: float = 10.0
    locate_max: int = 3


class Pulls:
    """The machine, of the node ``node_id``."""

    def __init__(self, node_id: bytes, rules: PullRules) -> None:
        self._node_id = node_id
        self.rules = rules
        #: All pulls, by object and by number.
        self._pulls: dict[bytes, Pull] = {}
        self._by_number: dict[int, Pull] = {}
        #: Those that wait for the quota, by priority.
        self._queues: tuple[dict[bytes, Pull], ...] = ({}, {}, {})
        #: What the others take, by priority.
        self._active_bytes = [0, 0, 0]
        self._windows = Windows(rules.window_bytes)
        self._count = 0
        #: When to look at what has become of questions; None while nothing runs.
        self._look_at: float | None = None

    def __len__(self) -> int:
        return len(self._pulls)

    def __contains__(self, object_id: bytes) -> bool:
        return object_id in self._pulls

    def find(self, object_id: bytes) -> Pull | None:
        """The pull of an object, for looking."""
        return self._pulls.get(object_id)

    def numbered(self, number: int) -> Pull | None:
        """The pull of a number, for looking."""
        return self._by_number.get(number)

    def wanted(self, priority: int) -> list[bytes]:
        """What is wanted for this reason."""
        return [object_id for object_id, pull in self._pulls.items() if priority in pull.wants]

    # --------------------------------------------------------------------------------- wanting

    def want(
        self, object_id: bytes, source: Source, priority: int, now: float
    ) -> list[PullEffect]:
        """An object is wanted that is not here. Raises ValueError for a size or priority that
        there is not."""
        if source.size_bytes < 0 or priority not in _PRIORITIES:
            raise ValueError(
                f"object {object_id.hex()} of {source.size_bytes} bytes cannot be pulled with "
                f"priority {priority}"
            )
        pull = self._pulls.get(object_id)
        if pull is None:
            pull = self._enter(object_id, source.size_bytes, source.owner, {priority})
        elif priority not in pull.wants:
            self._rewant(pull, pull.wants | {priority})
        if self._add_sources(pull, source.node_ids) and pull.state == LOCATING:
            pull.state = RUNNING
            self._windows.line(pull)
        return self._go_on(now)

    def unwant(self, object_id: bytes, priority: int, now: float) -> list[PullEffect]:
        """Nobody wants it any more for this reason; without any, the pull ends."""
        pull = self._pulls.get(object_id)
        if pull is None or priority not in pull.wants:
            return []
        if pull.wants != {priority}:
            self._rewant(pull, pull.wants - {priority})
            return self._go_on(now)
        return [*self._fail(pull, "nobody wants it any more"), *self._go_on(now)]

    def give_up(self, object_id: bytes, reason: str, now: float) -> list[PullEffect]:
        """An object is freed, or its place is lost."""
        pull = self._pulls.get(object_id)
        if pull is None:
            return []
        return [*self._fail(pull, reason), *self._go_on(now)]

    def owner_gone(self, owner_id: bytes, now: float) -> list[PullEffect]:
        """A process has died: what it owned is not pulled."""
        effects: list[PullEffect] = []
        for pull in [one for one in self._pulls.values() if one.owner.process_id == owner_id]:
            effects += self._fail(pull, "its owner has died")
        return effects + self._go_on(now)

    # ---------------------------------------------------------------------------------- places

    def placed(self, object_id: bytes, now: float) -> list[PullEffect]:
        """The store has made a place for it."""
        pull = self._pulls.get(object_id)
        if pull is None or pull.state != PLACING:
            return []
        pull.state = RUNNING
        effects = self._resource(pull, now)
        return effects + self._go_on(now)

    def no_place(
        self, object_id: bytes, why: Full | OutOfDisk | OwnerGone, now: float
    ) -> list[PullEffect]:
        """The store has no place for it."""
        pull = self._pulls.get(object_id)
        if pull is None or pull.state != PLACING:
            return []
        return [*self._fail(pull, "this node has no room for it", why), *self._go_on(now)]

    # ---------------------------------------------------------------------------------- chunks

    def arrived(
        self, number: int, node_id: bytes, chunk: int, crc: int, now: float
    ) -> list[PullEffect]:
        """A chunk is in its place. ``crc``: the checksum of the whole object, -1 if not known."""
        pull = self._by_number.get(number)
        source = pull.sources.get(node_id) if pull is not None else None
        if pull is None or source is None or not 0 <= chunk < pull.fresh:
            return []
        if crc >= 0:
            pull.crc = crc
        source.asked_at = now
        source.strikes = 0
        if not pull.have[chunk]:
            source.received += 1
            pull.have[chunk] = 1
            pull.left -= 1
            pull.located_count = 0
            self._windows.landed(pull, chunk)
        effects: list[PullEffect] = []
        if not pull.left and pull.state in (RUNNING, LOCATING):
            effects = self._complete(pull)
        return effects + self._go_on(now)

    def verified(self, number: int, right: bool, now: float) -> list[PullEffect]:
        """The checksum of a copy was compared."""
        pull = self._by_number.get(number)
        if pull is None or pull.state != VERIFYING:
            return []
        if right:
            return [*self._done(pull), *self._go_on(now)]
        # Begun anew under another number, so that what is still under way cannot get into it.
        effects = [*self._remove(pull), Drop(pull.object_id, pull.number)]
        fresh = self._enter(pull.object_id, pull.size, pull.owner, pull.wants)
        fresh.reasons = pull.reasons
        for node, one in pull.sources.items():
            copy = fresh.sources[node] = PullSource(node)
            if one.received or one.state == FAILED:
                copy.state = FAILED
                fresh.reasons.setdefault(node, "its bytes there are damaged (wrong checksum)")
        return effects + self._go_on(now)

    def refused(
        self, number: int, node_id: bytes, node_ids: Iterable[bytes], text: str, now: float
    ) -> list[PullEffect]:
        """A node does not give it: others do (``node_ids``), or it cannot (``text``)."""
        pull = self._by_number.get(number)
        source = pull.sources.get(node_id) if pull is not None else None
        if pull is None or source is None or source.state != USABLE:
            return []
        others = [] if text else [one for one in node_ids if one != self._node_id]
        if others and source.times_aside < _ASIDE_MAX:
            self._windows.take_back(pull, source)
            source.state = ASIDE
            source.times_aside += 1
            self._add_sources(pull, others)
        else:
            self._fail_source(pull, source, text or "it is busy with others")
        return [*self._resource(pull, now), *self._go_on(now)]

    def source_failed(
        self, number: int, node_id: bytes, text: str, now: float
    ) -> list[PullEffect]:
        """A node cannot be asked, or what it sends is no good."""
        return self.refused(number, node_id, (), text or "it cannot be reached", now)

    def node_gone(self, node_id: bytes, now: float) -> list[PullEffect]:
        """A node has died."""
        effects: list[PullEffect] = []
        for pull in list(self._pulls.values()):
            source = pull.sources.get(node_id)
            if source is not None and source.state != FAILED:
                self._fail_source(pull, source, "it has died")
                effects += self._resource(pull, now)
        self._windows.forget(node_id)
        return effects + self._go_on(now)

    def located(
        self, object_id: bytes, node_ids: Iterable[bytes], text: str, now: float
    ) -> list[PullEffect]:
        """An owner says which nodes have an object. ``text``: why it says nothing of use."""
        pull = self._pulls.get(object_id)
        if pull is None or pull.state not in (LOCATING, RUNNING):
            return []
        found = self._add_sources(pull, node_ids)
        if pull.state == RUNNING:
            # It was asked because one is silent, which others make up for.
            self._pass_over(pull)
            return self._go_on(now)
        if not found:
            known = text or "its owner knows of no node that has it"
            return [*self._fail(pull, pull.why(known)), *self._go_on(now)]
        pull.state = RUNNING
        return [*self._resource(pull, now), *self._go_on(now)]

    # ------------------------------------------------------------------------------------ time

    def tick(self, now: float) -> list[PullEffect]:
        """``deadline`` has come: who has been silent for too long?"""
        if self._look_at is None or self._look_at > now:
            return []
        self._look_at = None
        effects: list[PullEffect] = []
        for pull in list(self._pulls.values()):
            if pull.state == LOCATING and pull.until <= now:
                pull.state = RUNNING
                effects += self._resource(pull, now)
                continue
            struck = False
            for source in pull.sources.values():
                if source.in_flight and source.asked_at + self.rules.stall_s <= now:
                    struck = True
                    source.strikes += 1
                    if source.strikes < self.rules.strikes_max:
                        self._windows.take_back(pull, source)
                        self._windows.line(pull)
                    else:
                        silent_s = self.rules.stall_s * source.strikes
                        text = f"it sent nothing for {silent_s:.0f} s"
                        self._fail_source(pull, source, text)
            if not struck:
                continue
            effects += self._resource(pull, now)
            alone = pull.state == RUNNING and not self._pass_over(pull)
            if alone and pull.located_count < self.rules.locate_max:
                pull.located_count += 1
                effects.append(AskOwner(pull.object_id, pull.owner))
        return effects + self._go_on(now)

    def deadline(self) -> float | None:
        """When to call ``tick``."""
        return self._look_at

    def check(self) -> None:
        """Raise InvariantError if the state contradicts itself."""
        active = [0, 0, 0]
        for object_id, pull in self._pulls.items():
            pull.check()
            if self._by_number.get(pull.number) is not pull or pull.object_id != object_id:
                raise InvariantError(f"{object_id.hex()} is listed under another number")
            if (pull.state == QUEUED) != (object_id in self._queues[pull.priority]):
                raise InvariantError(f"{object_id.hex()} is {pull.state} and queued wrong")
            if pull.state != QUEUED:
                active[pull.priority] += pull.size
            usable = [one for one in pull.sources.values() if one.state == USABLE]
            if pull.state == RUNNING and not usable:
                raise InvariantError(f"{object_id.hex()} runs without a source")
        if active != self._active_bytes or len(self._by_number) != len(self._pulls):
            raise InvariantError(f"pulls take {active}, noted {self._active_bytes}")
        self._windows.check(self._pulls.values())
        queued = [one for queue in self._queues for one in queue.values()]
        if any(one.state != QUEUED for one in queued):
            raise InvariantError("a pull that runs is queued")
        if self._active_bytes == [0, 0, 0] and any(one.size for one in queued):
            raise InvariantError("pulls wait and none runs")

    # --------------------------------------------------------------------------------- private

    def _enter(self, object_id: bytes, size: int, owner: Address, wants: set[int]) -> Pull:
        self._count += 1
        pull = Pull(self._count, object_id, size, owner, self.rules.chunk_bytes)
        pull.wants = wants
        self._pulls[object_id] = self._by_number[pull.number] = pull
        self._queues[pull.priority][object_id] = pull
        return pull

    def _go_on(self, now: float) -> list[PullEffect]:
        """Begin what the quota has room for, ask for what windows have room for."""
        effects = self._begin()
        effects += self._windows.ask(now)
        if self._look_at is None and self._pulls:
            self._look_at = now + self.rules.stall_s / 4
        return effects

    def _begin(self) -> list[PullEffect]:
        effects: list[PullEffect] = []
        for priority in _PRIORITIES:
            queue = self._queues[priority]
            while queue:
                object_id, pull = next(iter(queue.items()))
                taken = sum(self._active_bytes[: priority + 1])
                if taken and taken + pull.size > self.rules.quota_bytes:
                    return effects
                del queue[object_id]
                pull.state = PLACING
                self._active_bytes[priority] += pull.size
                effects.append(Place(object_id, pull.number, pull.size, pull.owner))
        return effects

    def _rewant(self, pull: Pull, wants: set[int]) -> None:
        before = pull.priority
        self._windows.unline(pull)
        pull.wants = wants
        if pull.priority != before:
            if pull.state == QUEUED:
                del self._queues[before][pull.object_id]
                self._queues[pull.priority][pull.object_id] = pull
            else:
                self._active_bytes[before] -= pull.size
                self._active_bytes[pull.priority] += pull.size
        self._windows.line(pull)

    def _add_sources(self, pull: Pull, node_ids: Iterable[bytes]) -> bool:
        """Note nodes that have it; False if none of them is new."""
        new = [
            node for node in dict.fromkeys(node_ids)
            if node != self._node_id and node not in pull.sources
        ]  # fmt: skip
        # Not everybody begins with the first that the owner names.
        turn = (pull.number + self._node_id[-1]) % len(new) if new else 0
        for node in [*new[turn:], *new[:turn]]:
            source = pull.sources[node] = PullSource(node)
            usable = sum(one.state == USABLE for one in pull.sources.values())
            if usable > self.rules.sources_max:
                source.state = ASIDE
        self._windows.line(pull)
        return bool(new)

    def _resource(self, pull: Pull, now: float) -> list[PullEffect]:
        """See to it that a running pull has a node to ask."""
        if pull.state != RUNNING:
            return []
        if not any(one.state == USABLE for one in pull.sources.values()):
            for one in pull.sources.values():
                if one.state == ASIDE:
                    one.state = USABLE
                    break
            else:
                self._windows.unline(pull)
                if pull.located_count >= self.rules.locate_max:
                    return self._fail(pull, pull.why("nobody has it"))
                pull.located_count += 1
                pull.state = LOCATING
                pull.until = now + self.rules.locate_s
                return [AskOwner(pull.object_id, pull.owner)]
        self._windows.line(pull)
        return []

    def _pass_over(self, pull: Pull) -> bool:
        """Leave silent nodes alone; False where there are no others."""
        usable = [one for one in pull.sources.values() if one.state == USABLE]
        silent = [one for one in usable if one.strikes]
        if len(silent) == len(usable):
            return False
        for source in silent:
            self._windows.take_back(pull, source)
            source.state = ASIDE
        self._windows.line(pull)
        return True

    def _fail_source(self, pull: Pull, source: PullSource, text: str) -> None:
        self._windows.unline(pull)
        self._windows.take_back(pull, source)
        source.state = FAILED
        pull.reasons[source.node_id] = text
        self._windows.line(pull)

    def _complete(self, pull: Pull) -> list[PullEffect]:
        self._windows.unline(pull)
        if pull.crc < 0:
            return self._done(pull)
        pull.state = VERIFYING
        return [Verify(pull.object_id, pull.number, pull.crc)]

    def _done(self, pull: Pull) -> list[PullEffect]:
        return [*self._remove(pull), Seal(pull.object_id, pull.number, pull.owner)]

    def _fail(
        self, pull: Pull, reason: str, why: Full | OutOfDisk | OwnerGone | None = None
    ) -> list[PullEffect]:
        return [*self._remove(pull), Fail(pull.object_id, pull.number, reason, why)]

    def _remove(self, pull: Pull) -> list[PullEffect]:
        self._windows.unline(pull)
        ends: list[PullEffect] = []
        for source in pull.sources.values():
            if source.asked_at >= 0:
                ends.append(End(source.node_id, pull.number))
            self._windows.take_back(pull, source)
        del self._pulls[pull.object_id], self._by_number[pull.number]
        if self._queues[pull.priority].pop(pull.object_id, None) is None:
            self._active_bytes[pull.priority] -= pull.size
        return ends
