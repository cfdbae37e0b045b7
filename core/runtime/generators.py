"""Generators that run in this process: their items, from the thread that runs them to the owner.

Owns the order and batching of items on their way out, the pauses of generators whose items nobody
takes (backpressure), and generators whose caller is gone. Packing an item is results.py's; the
owner's side is streams.py.

An item with references leaves when their owners know the receiver (ownership/handover.py). Those
behind it wait for it, and so does the reply: at the owner, a reply means that all items are there.

The thread that runs a generator leaves its items in a queue and one note for the loop, which sends
what it finds there in one message. Where that thread may turn the loop itself, it does so once a
millisecond: an item is not kept waiting by the work on the next. Generators of async actors are
driven by async_serving.py, with the same parts.
"""

from __future__ import annotations

import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Any

from mray.ids import TaskId, object_id
from mray.object_ref import maker_of
from mray.object_ref_generator import DynamicObjectRefGenerator
from mray.ownership.handover import Parcel
from mray.runtime.batches import cut_items, cut_parts
from mray.runtime.calls import Done, Work
from mray.serialization.envelope import NONE
from mray.serialization.pickler import Serialized, pack
from mray.tasks.streams import DYNAMIC, Pace
from mray.wire.messages import (
    Address,
    ItemsConsumed,
    ItemsYielded,
    Located,
    ProcessDied,
    Returned,
    StreamPart,
    TaskTemplate,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mray.runtime.results import Results
    from mray.runtime.runtime import Runtime

#: An item waits no longer than that for others to leave with it, where its thread can send.
_SEND_EVERY_S = 0.001


class Slot:
    """One thing on its way out: an item, the error after the last, or the reply."""

    __slots__ = ("data", "done", "flow", "is_error", "located", "ready", "refs")

    def __init__(
        self, flow: Flow, data: bytes | None, located: Located | None, refs: list[Any]
    ) -> None:
        self.flow = flow
        self.data = data
        self.located = located
        #: The references inside; then the groups that say so on the wire.
        self.refs = refs
        self.is_error = False
        #: Set on the reply alone.
        self.done: Done | None = None
        self.ready = not refs


class Flow:
    """One running generator."""

    __slots__ = (
        "announced", "collects", "done", "error", "first", "fresh", "orphaned", "out", "pace",
        "sent_at", "skip", "slots", "waiting",
    )  # fmt: skip

    def __init__(self, done: Done, template: TaskTemplate) -> None:
        self.done = done
        #: The reply is a list of all items.
        self.collects = template.num_returns == DYNAMIC
        #: So many items are with the owner from a former run.
        self.skip = done.spec.skip
        self.pace = Pace(template.backpressure, self.skip)
        #: The executing thread appends, the loop takes. ``announced``: a note is under way.
        self.fresh: deque[Slot] = deque()
        self.announced = False
        self.sent_at = 0.0
        #: In the order they have to leave; the first is not ready.
        self.slots: deque[Slot] = deque()
        #: What leaves with the next message: items, numbered from ``first``, and the error.
        self.out: list[Returned] = []
        self.first = self.skip + 1
        self.error: Returned | None = None
        #: Released when the generator may go on.
        self.waiting: Any = None
        #: The caller is dead.
        self.orphaned = False


class GeneratorsPart:
    """See the module. ``reply(done)`` takes a reply on, in the loop."""

    def __init__(self, runtime: Runtime, results: Results, reply: Callable[[Done], None]) -> None:
        self.rt = runtime
        self.results = results
        self._reply = reply
        #: Running generators by task id.
        self.flows: dict[bytes, Flow] = {}
        #: Those with something in ``out``, in the order they got it.
        self._dirty: dict[bytes, Flow] = {}
        #: Of an actor: so many untaken items may all its running generators have together; 0: any.
        self.items_max = 0
        runtime.pump.on(ItemsConsumed, self._consumed)
        runtime.on_death.append(self._died)

    # ------------------------------------------------------------------ the executing thread

    def run(self, done: Done, work: Work, value: Any) -> None:
        """Run a generator to its end. Raises what it raises, or what packing an item raises;
        TypeError if ``value`` is no generator."""
        flow = self.open(done, work, value, "__next__")
        pace, skip = flow.pace, flow.skip
        pack_item = self.results.item
        template = work.template
        for item in value:
            pace.made += 1
            if pace.unwanted:
                if flow.orphaned:
                    if hasattr(value, "close"):
                        value.close()
                    break
                continue
            if pace.made <= skip:
                continue
            self.emit(flow, Slot(flow, *pack_item(done, template, pace.made + 1, item)))
            del item  # It may be big, or hold references that somebody watches.
            if pace.full() or (self.items_max and self.full(flow)):
                self._pause(flow)
        self.conclude(flow, False)

    def fail(self, done: Done, work: Work, error: BaseException) -> None:
        """A generator raised: tell so after the items it yielded."""
        flow = done.flow
        data, refs = self.results.packed_error(done, work.template, error)
        slot = Slot(flow, data, None, refs)
        slot.is_error = True
        self.emit(flow, slot)
        self.conclude(flow, True)

    def finished(self, done: Done) -> None:
        """The reply follows the items."""
        slot = Slot(done.flow, None, None, [])
        slot.done = done
        self.emit(done.flow, slot, send=False)

    def open(self, done: Done, work: Work, value: Any, *needs: str) -> Flow:
        """Begin to send what a generator yields. TypeError if ``value`` has none of ``needs``."""
        if not any(hasattr(value, name) for name in needs):
            raise TypeError(
                f"{work.template.name} was to return a generator, it returned one of type "
                f"{type(value).__name__}"
            )
        flow = done.flow = Flow(done, work.template)
        self.flows[work.spec.task_id] = flow
        return flow

    def conclude(self, flow: Flow, failed: bool) -> None:
        """All items are out (``failed``: and an error). Make the return of the task itself: None,
        or the references of all items."""
        done = flow.done
        data: bytes | Serialized = NONE
        if flow.collects:
            data = pack(_Collected(done.owner, done.spec.task_id, flow.pace.made + failed))
        done.returns = [(data if isinstance(data, bytes) else data.to_bytes(), None)]
        done.nested = [[]]

    def emit(self, flow: Flow, slot: Slot, send: bool = True) -> None:
        """Leave something for the loop to send; ``send``: soon."""
        flow.fresh.append(slot)
        if not flow.announced:
            flow.announced = True
            mailbox = self.rt.mailbox
            mailbox.posts.append(lambda: self._take(flow))
            if mailbox.asleep:
                mailbox.wake()
        if send:
            now = perf_counter()
            if now - flow.sent_at > _SEND_EVERY_S:
                flow.sent_at = now
                self._send_now()

    def _send_now(self) -> None:
        """Have what was left sent before the generator goes on to something long. Where the
        stand-in turns the loop, it gets the interpreter for that, and the loop comes back here."""
        turn, posts = self.rt.turn, self.rt.mailbox.posts
        if turn is not None and turn.here():
            turn.lead(lambda: not posts)

    def full(self, flow: Flow) -> bool:
        """Whether a generator has to pause. From any thread."""
        pace = flow.pace
        if pace.full():
            return True
        if not self.items_max or pace.unwanted:
            return False
        paces = [other.pace for other in list(self.flows.values())]
        return sum(max(0, one.made - one.consumed) for one in paces) >= self.items_max

    def _pause(self, flow: Flow) -> None:
        """Wait for room. Whoever waits needs no CPU, and those who take items may."""
        objects = self.rt.objects
        before, after = objects.before_wait, objects.after_wait
        if before is not None:
            before()
        try:
            while self.full(flow):
                lock = threading.Lock()
                lock.acquire()
                flow.waiting = lock
                # Room that was made before the loop could know of this wait.
                if not self.full(flow):
                    break
                self.rt.block_on(lock, None)
        finally:
            flow.waiting = None
            if after is not None:
                after()

    # ------------------------------------------------------------------------------- the loop

    def _take(self, flow: Flow) -> None:
        """Take over what a generator has left."""
        flow.announced = False
        fresh, slots = flow.fresh, flow.slots
        while fresh:
            slot = fresh.popleft()
            slots.append(slot)
            if slot.refs:
                refs, slot.refs = slot.refs, []
                values = [[ref._entry for ref in refs]]
                self.rt.ledger.handover.pack(slot, flow.done.owner, [], values)
        self._advance(flow)

    def delivered(self, parcel: Parcel) -> None:
        """The owners of the references in an item know the receiver."""
        slot = parcel.cargo
        slot.refs = parcel.groups[0]
        slot.ready = True
        self._advance(slot.flow)

    def _advance(self, flow: Flow) -> None:
        slots, task_id = flow.slots, flow.done.spec.task_id
        while slots and slots[0].ready:
            slot = slots.popleft()
            if slot.done is not None:
                self.flows.pop(task_id, None)
                self._reply(slot.done)
                if self.items_max:
                    self._resume_all()
                return
            self._dirty[task_id] = flow
            returned = Returned(slot.data, slot.located, slot.refs)
            if slot.is_error:
                flow.error = returned
            else:
                flow.out.append(returned)

    def flush(self) -> None:
        """Send what is due. Once a round, before the replies."""
        if not self._dirty:
            return
        dirty, self._dirty = self._dirty, {}
        by_owner: dict[bytes, tuple[Address, list[StreamPart]]] = {}
        for task_id, flow in dirty.items():
            done = flow.done
            owner, attempt = done.owner, done.spec.attempt
            parts = by_owner.setdefault(owner.process_id, (owner, []))[1]
            *most, last = cut_items(flow.out)
            for items in most:
                parts.append(StreamPart(task_id, attempt, flow.first, items, None))
                flow.first += len(items)
            parts.append(StreamPart(task_id, attempt, flow.first, last, flow.error))
            flow.first += len(last)
            flow.out, flow.error = [], None
        for owner, parts in by_owner.values():
            for together in cut_parts(parts):
                self.rt.tell(owner, ItemsYielded(together))

    def _consumed(self, sender: bytes, message: ItemsConsumed) -> None:
        flow = self.flows.get(message.task_id)
        if flow is None or flow.done.owner.process_id != sender:
            return  # Over, or on its way to being over.
        flow.pace.heard(message.count)
        if self.items_max:
            self._resume_all()
        else:
            self._resume(flow)

    def _resume_all(self) -> None:
        """There is room for items of any of the actor's generators."""
        for flow in list(self.flows.values()):
            self._resume(flow)

    def _resume(self, flow: Flow) -> None:
        if flow.waiting is not None and not self.full(flow):
            waiting, flow.waiting = flow.waiting, None
            waiting.release()

    def _died(self, message: ProcessDied) -> None:
        for flow in list(self.flows.values()):
            if flow.done.owner.process_id == message.process_id:
                flow.orphaned = flow.pace.unwanted = True
                self._resume(flow)


class _Collected:
    """Stands, in a pickle, for the references of all items, which belong to the caller: nobody
    here holds them."""

    __slots__ = ("count", "owner", "task_id")

    def __init__(self, owner: Address, task_id: bytes, count: int) -> None:
        self.owner = owner
        self.task_id = task_id
        self.count = count

    def __reduce__(self) -> Any:
        refs = [
            _ItemRef(self.owner, object_id(TaskId(self.task_id), number + 1))
            for number in range(1, self.count + 1)
        ]
        return DynamicObjectRefGenerator, (refs,)


class _ItemRef:
    """Stands for the reference of one item."""

    __slots__ = ("object_id", "owner")

    def __init__(self, owner: Address, made: bytes) -> None:
        self.owner = owner
        self.object_id = made

    def __reduce__(self) -> Any:
        return maker_of(self.owner), (self.object_id,)
