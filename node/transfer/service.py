"""Transfers of a node: messages and chunks in, machines, effects out.

Owns the two machines (what is pulled, what is served), the bulk connection, and what each has of
the store's ranges. Does not own the store: it asks it for places as any writer does, under the id
of the node itself, and pins what it sends as any reader does.

Events wait in a row and each one's effects are carried out before the next: a store that answers at
once does not change a machine in the middle of what it decided before.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from mray.ids import is_on
from mray.node.objects.effects import Created
from mray.node.objects.effects import Refuse as RefuseStore
from mray.node.transfer.bulk import Bulk, ChunkCame, ChunkUnfit, News, Span, Told, Verified
from mray.node.transfer.chunks import Head
from mray.node.transfer.effects import (
    Ask,
    AskOwner,
    Drop,
    End,
    Fail,
    Place,
    PullEffect,
    PushEffect,
    Refuse,
    Release,
    Seal,
    SendChunk,
    Verify,
)
from mray.node.transfer.pull import Pull
from mray.node.transfer.pulls import ARGUMENTS, GET, WAIT, PullRules, Pulls
from mray.node.transfer.serving import Serving
from mray.rpc.pump import Pump
from mray.wire.messages import (
    Address,
    AskChunks,
    ChunksRefused,
    CopyGone,
    CopyMade,
    EndPull,
    FetchObjects,
    LocateObjects,
    Message,
    NodeInfo,
    ObjectsFetched,
    ObjectsLocated,
    PinObjects,
    PromoteCopies,
    PromotedCopies,
    Source,
)

if TYPE_CHECKING:
    from mray.node.objects.server import StoreServer

log = logging.getLogger(__name__)

Effects = list[PullEffect] | list[PushEffect]


class Transfer:
    """See the module. ``info_of`` gives what is known of a living node. ``bulk`` is None where the
    node listens on no tcp port: then it is the only one, and nothing is ever pulled."""

    def __init__(
        self,
        pump: Pump,
        store: StoreServer,
        node_id: bytes,
        bulk: Bulk | None,
        info_of: Callable[[bytes], NodeInfo | None],
        rules: PullRules,
    ) -> None:
        self._pump = pump
        self._server = store
        self._store = store.store
        self._node_id = node_id
        self._bulk = bulk
        self._info_of = info_of
        self.pulls = Pulls(node_id, rules)
        self.serving = Serving(self, store, node_id, rules.chunk_bytes)
        self.pushes = self.serving.pushes
        if bulk is not None:
            bulk.listener = self
            bulk.start()
        store.transfer = self
        store.own_id = node_id
        #: What is still to be told to the machines.
        self._events: deque[Callable[[], Effects]] = deque()
        self._turning = False
        #: Ranges that pulls fill, by number.
        self._filling: dict[int, Span] = {}
        #: Processes that wait() for objects.
        self._fetchers: dict[bytes, dict[bytes, None]] = {}
        #: Called with each object that came and was waited for, or cannot be had, and why.
        self.on_fetched: list[Callable[[bytes, str], None]] = []
        #: Whether another node keeps an object instead of this one, which drains.
        self.is_moved: Callable[[bytes], bool] = lambda object_id: False
        #: Copies made, to be told to their owners.
        self._made: dict[Address, list[bytes]] = {}
        self.pulled_bytes_total = 0
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {
            FetchObjects: self.fetch_objects,
            PromoteCopies: self.promote_copies,
        }

    # ---------------------------------------------------------------------------- who wants what

    def expect(self, message: PinObjects) -> list[tuple[bytes, Source]]:
        """Which of the objects to be pinned have to come from other nodes. The store lets their
        readers wait; ``want`` them next."""
        absent = []
        for object_id, source in zip(message.object_ids, message.sources, strict=False):
            if self.comes(object_id, source):
                self._store.expect(object_id)
                absent.append((object_id, source))
        return absent

    def want(self, absent: Iterable[tuple[bytes, Source]], priority: int) -> None:
        """Pull objects that are not here."""
        for object_id, source in absent:
            self.event(
                lambda o=object_id, s=source: self.pulls.want(o, s, priority, self._now())  # type: ignore[misc]
            )
        self.turn()

    def fetch_objects(self, sender: bytes, message: FetchObjects) -> None:
        """Handler. Raises ValueError for a priority that there is not."""
        if message.priority not in (1, 2):
            raise ValueError(f"objects are not fetched with priority {message.priority}")
        here, absent = [], []
        for object_id, source in zip(message.object_ids, message.sources, strict=True):
            if self.comes(object_id, source):
                absent.append((object_id, source))
                if message.priority == WAIT:
                    self._fetchers.setdefault(object_id, {})[sender] = None
            else:
                here.append(object_id)
        if here and message.priority == WAIT:
            self._pump.send(sender, ObjectsFetched(here, [""] * len(here)))
        self.want(absent, message.priority)

    def comes(self, object_id: bytes, source: Source) -> bool:
        """Whether an object is not here and may come from another node."""
        if self._bulk is None or source.size_bytes < 0:
            return False
        if self._store.has(object_id):
            return object_id in self.pulls
        return any(node_id != self._node_id for node_id in source.node_ids)

    def readers_left(self, object_ids: Iterable[bytes] | None = None) -> None:
        """Some who waited to read these (None: anything) wait no more."""
        if not len(self.pulls):
            return
        for object_id in self.pulls.wanted(GET) if object_ids is None else object_ids:
            if object_id in self.pulls and not self._store.is_awaited(object_id):
                self.event(lambda o=object_id: self.pulls.unwant(o, GET, self._now()))  # type: ignore[misc]
        self.turn()

    def client_died(self, process_id: bytes) -> None:
        """A process of this node is gone."""
        for object_id, fetchers in list(self._fetchers.items()):
            if process_id in fetchers:
                del fetchers[process_id]
                if not fetchers:
                    del self._fetchers[object_id]
                    self.event(lambda o=object_id: self.pulls.unwant(o, WAIT, self._now()))  # type: ignore[misc]
        self.readers_left()

    def owner_died(self, owner_id: bytes) -> None:
        """A process anywhere is gone."""
        if len(self.pulls):
            self.event(lambda: self.pulls.owner_gone(owner_id, self._now()))
            self.turn()

    def freed(self, object_ids: Sequence[bytes]) -> None:
        """Owners need these no more."""
        if not len(self.pulls):
            return
        for object_id in object_ids:
            if object_id in self.pulls:
                text = "its owner has freed it"
                self.event(lambda o=object_id, t=text: self.pulls.give_up(o, t, self._now()))  # type: ignore[misc]
        self.turn()

    # ------------------------------------------------------------------------------ other nodes

    def node_gone(self, node_id: bytes) -> None:
        """A node has died: its processes' objects go, and it neither gives nor gets."""
        for owner_id in self._store.owners():
            if is_on(owner_id, node_id):
                self._server.owner_died(owner_id)
        for owner_id in [one for one in self._server.owners if is_on(one, node_id)]:
            del self._server.owners[owner_id]
        self.event(lambda: self.pulls.node_gone(node_id, self._now()))
        self.event(lambda: self.pushes.node_gone(node_id))
        if self._bulk is not None:
            self._bulk.hang_up(node_id)
        self.turn()

    def promote_copies(self, sender: bytes, message: PromoteCopies) -> None:
        """Handler, answered by PromotedCopies."""
        missing = [object_id for object_id in message.object_ids if self.is_moved(object_id)]
        here = [object_id for object_id in message.object_ids if not self.is_moved(object_id)]
        missing += self._server.promote(here)
        self._pump.send(sender, PromotedCopies(message.rid, missing))

    def evicted(self, owner: Address, object_ids: Sequence[bytes]) -> None:
        """Further copies have made room."""
        text = "it made room for others"
        self.tell_owner(owner, CopyGone(list(object_ids), self._node_id, text))

    # -------------------------------------------------------------------------------- the store

    def created(self, created: Created) -> None:
        """The store has made a place for a pull."""
        pull = self.pulls.numbered(created.rid)
        if pull is None:
            return  # Given up since, and with it the place.
        span = Span(created.offset, pull.size)
        self._filling[pull.number] = span
        if self._bulk is not None:
            self._bulk.expect(pull.number, span)
        object_id = pull.object_id
        self.event(lambda: self.pulls.placed(object_id, self._now()))
        self.turn()

    def refused(self, refuse: RefuseStore) -> None:
        """The store has no place for a pull."""
        pull = self.pulls.numbered(refuse.rid)
        if pull is not None:
            object_id, why = pull.object_id, refuse.why
            self.event(lambda: self.pulls.no_place(object_id, why, self._now()))
            self.turn()

    # ------------------------------------------------------------------------- bulk connections

    def bulk_news(self, news: list[News]) -> None:
        """What came by the bulk connection."""
        for one in news:
            match one:
                case ChunkCame(node_id, head):
                    self._chunk_came(node_id, head)
                case ChunkUnfit(node_id, number, text, ours):
                    self._chunk_unfit(node_id, number, text, ours)
                case Verified(number, right):
                    self.event(lambda n=number, r=right: self.pulls.verified(n, r, self._now()))  # type: ignore[misc]
                case Told(node_id, message):
                    self._told(node_id, message)
                case _:
                    assert_never(one)
        self.turn()

    def _chunk_came(self, node_id: bytes, head: Head) -> None:
        pull = self.pulls.numbered(head.pull)
        if pull is None:
            return
        number, chunk, crc, object_id = head.pull, head.chunk, head.crc, pull.object_id
        self.event(lambda: self.pulls.arrived(number, node_id, chunk, crc, self._now()))
        if self.pushes.serves(object_id):
            self.event(lambda: self.pushes.arrived(object_id, chunk))

    def _chunk_unfit(self, node_id: bytes, number: int, text: str, ours: bool) -> None:
        pull = self.pulls.numbered(number)
        if pull is None:
            return
        if ours:
            object_id = pull.object_id
            self.event(lambda: self.pulls.give_up(object_id, text, self._now()))
        else:
            self.event(lambda: self.pulls.source_failed(number, node_id, text, self._now()))

    def _told(self, node_id: bytes, message: Message) -> None:
        match message:
            case AskChunks(pull, object_id, chunks, owed, tried):
                self.event(
                    lambda: self.pushes.asked(
                        node_id, pull, object_id, chunks, owed, tried,
                        self.serving.present(object_id), self._now(),
                    )
                )  # fmt: skip
            case ChunksRefused(pull, node_ids, text):
                self.event(
                    lambda: self.pulls.refused(pull, node_id, node_ids, text, self._now())
                )
            case EndPull(pull):
                self.event(lambda: self.pushes.end(node_id, pull, self._now()))
            case _:
                name = type(message).__name__
                log.warning("node %s sent %s by the bulk connection", node_id.hex()[:8], name)

    # ------------------------------------------------------------------------------------- time

    def tick(self, now: float) -> None:
        """``deadline`` has come."""
        self.event(lambda: self.pulls.tick(now))
        self.event(lambda: self.pushes.tick(now))
        self.turn()

    def deadline(self) -> float | None:
        """When to call ``tick``."""
        pulls, pushes = self.pulls.deadline(), self.pushes.deadline()
        if pulls is None or pushes is None:
            return pulls if pushes is None else pushes
        return min(pulls, pushes)

    def close(self) -> None:
        """Nothing comes or goes any more."""
        if self._bulk is not None:
            self._bulk.close()

    # ---------------------------------------------------------------------------------- effects

    def filling(self, object_id: bytes) -> tuple[Pull, Span] | None:
        """An object that is on its way here, and where it goes."""
        pull = self.pulls.find(object_id)
        span = self._filling.get(pull.number) if pull is not None else None
        return None if pull is None or span is None else (pull, span)

    def _now(self) -> float:
        return self._pump.clock()

    def event(self, event: Callable[[], Effects]) -> None:
        """Tell a machine something, in its turn."""
        self._events.append(event)

    def turn(self) -> None:
        """Carry out what has come up, in order, unless that is being done."""
        if self._turning:
            return
        self._turning = True
        try:
            while self._events:
                try:
                    effects = self._events.popleft()()
                except ValueError as error:
                    log.warning("a transfer was asked for what there is not: %s", error)
                    continue
                for effect in effects:
                    self._perform(effect)
        finally:
            self._turning = False
        if self._made:
            made, self._made = self._made, {}
            for owner, object_ids in made.items():
                self.tell_owner(owner, CopyMade(object_ids, self._node_id))

    def _perform(self, effect: PullEffect | PushEffect) -> None:
        bulk = self._bulk
        assert bulk is not None, "a node without a bulk connection pulls and serves nothing"
        match effect:
            case Ask(node_id, pull, object_id, chunks, owed, tried):
                info = self._info_of(node_id)
                if info is None or not info.bulk:
                    text = "it is not there" if info is None else "it listens on no tcp port"
                    self.event(
                        lambda: self.pulls.source_failed(pull, node_id, text, self._now())
                    )
                    return
                bulk.dial(node_id, info.bulk)
                ask = AskChunks(pull, object_id, list(chunks), owed, list(tried))
                bulk.send(node_id, ask)
            case End(node_id, pull):
                bulk.send(node_id, EndPull(pull))
            case Place(object_id, pull, size, owner):
                self._place(object_id, pull, size, owner)
            case Seal(object_id, pull, owner):
                self._seal(object_id, pull, owner)
            case Drop(object_id, pull):
                self._drop(object_id, pull, "its bytes were damaged")
            case Fail(object_id, pull, reason, why):
                self._drop(object_id, pull, reason)
                self._server.not_coming(object_id, reason, why)
                self._fetched(object_id, reason or "it cannot be had")
            case Verify(_, pull, crc):
                bulk.verify(pull, self._filling[pull], crc)
            case AskOwner(object_id, owner):
                self._ask_owner(object_id, owner)
            case SendChunk() | Refuse() | Release():
                self.serving.perform(bulk, effect)
            case _:
                assert_never(effect)

    def _place(self, object_id: bytes, pull: int, size: int, owner: Address) -> None:
        if self._store.has(object_id):
            # A process here has begun to make it, or a copy came by another way.
            text = "it is being made here"
            self.event(lambda: self.pulls.give_up(object_id, text, self._now()))
            return
        wanted = self.pulls.numbered(pull)
        ahead = wanted is not None and wanted.priority == ARGUMENTS
        if ahead and not self._store.has_room(size):
            # Nobody waits yet, and others would wait behind it for room.
            text = "there is no room to fetch it ahead of need"
            self.event(lambda: self.pulls.give_up(object_id, text, self._now()))
            return
        self._server.create_further(pull, object_id, size, owner.process_id)

    def _seal(self, object_id: bytes, pull: int, owner: Address) -> None:
        span = self._filling.pop(pull)
        assert self._bulk is not None
        self._bulk.forget(pull)
        if not self._server.seal_further(object_id, owner):
            self._bulk.take_back(span)
            self.serving.lost(object_id, "it was freed")
            self._fetched(object_id, "it was freed")
            return
        self.pulled_bytes_total += span.size
        self._server.owners[owner.process_id] = owner
        self._made.setdefault(owner, []).append(object_id)
        self.serving.keep(object_id, span)
        self._fetched(object_id, "")

    def _drop(self, object_id: bytes, pull: int, reason: str) -> None:
        span = self._filling.pop(pull, None)
        if span is not None and self._bulk is not None:
            self._bulk.forget(pull)
            self._bulk.take_back(span)
        self.serving.lost(object_id, reason)
        self._server.abort_further(object_id)

    def _fetched(self, object_id: bytes, reason: str) -> None:
        for process_id in self._fetchers.pop(object_id, ()):
            self._pump.send(process_id, ObjectsFetched([object_id], [reason]))
        for call in self.on_fetched:
            call(object_id, reason)

    def _ask_owner(self, object_id: bytes, owner: Address) -> None:
        def answered(reply: Message) -> None:
            nodes: list[bytes] = []
            text = "its owner does not answer"
            if isinstance(reply, ObjectsLocated) and len(reply.nodes) == 1:
                nodes, text = reply.nodes[0], ""
            self.event(lambda: self.pulls.located(object_id, nodes, text, self._now()))
            self.turn()

        self._reach(owner)
        self._pump.request(
            owner.process_id, lambda rid: LocateObjects(rid, [object_id]), answered,
            self.pulls.rules.locate_s,
        )  # fmt: skip

    def tell_owner(self, owner: Address, message: Message) -> None:
        """Send to an owner, wherever it is."""
        self._reach(owner)
        # An owner that is gone is told by its end.
        self._pump.send(owner.process_id, message)

    def _reach(self, owner: Address) -> None:
        """Connect to an owner where that can be; else it is gone, or was never known."""
        here = owner.ipc and os.path.exists(owner.ipc)
        if (owner.tcp or here) and not self._pump.door.knows(owner.process_id):
            self._pump.door.dial(owner, self._node_id)
