"""Values that are lost while their references live: finding another copy, making them again.

The shell around ownership/lineage.py and rebuilding.py, at the owner. Owns what is
kept of a finished task, what becomes of a report that a value is missing, of a node's death and of
tasks that run again. Generators that run again are
replaying.py's; reading values is objects.py's, further copies are copies.py's.

A value that somebody could not read is not ready while its owner looks: the node is asked for it
once more, so whoever reports late, or twice, has nothing made again that is there. Then another
copy is used, or the task runs again, or the error takes the value's place.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mray.ids import TASK_BYTES
from mray.ownership import lineage
from mray.ownership.entry import Entry
from mray.ownership.rebuilding import Again, Hopeless, Rebuilding
from mray.rpc.pump import RequestFailed
from mray.runtime.borrowing import owner_died
from mray.runtime.copies import CopiesPart
from mray.runtime.replaying import Replays
from mray.runtime.unrecoverable import hopeless
from mray.serialization.failures import error_envelope
from mray.tasks.task import Task
from mray.units import format_bytes
from mray.wire.messages import (
    CopyMissing,
    Located,
    Message,
    NodeGone,
    ObjectReady,
    ObjectsPinned,
    PinObjects,
    PromoteCopies,
    PromotedCopies,
    Returned,
    Source,
    TaskReply,
    UnpinObjects,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

#: As the store's: a copy may have to come from a slow disk, or from another node.
_LOOK_TIMEOUT_S = 600.0
_PROMOTE_TIMEOUT_S = 60.0
#: What runs again is told no more often.
_SAY_EVERY_S = 5.0
#: What a task weighs in the lineage beside its arguments' bytes, and each argument: measured.
_TASK_BYTES = 500
_ARGUMENT_BYTES = 150


class RecoveringPart:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        self.references = runtime.references
        self.lineage = runtime.references.lineage
        tasks = runtime.config.tasks
        self.lineage.max_bytes = tasks.max_lineage_bytes
        self.copies = CopiesPart(runtime)
        self.locations = self.copies.locations
        self.replays = Replays(runtime)
        self.rebuilding = Rebuilding(runtime.references, tasks.max_parallel_rebuilds)
        #: Values that nodes were asked about, and which question is the last.
        self._asked: dict[bytes, int] = {}
        self._questions = itertools.count(1)
        #: Tasks run again so far, and objects that could not be made again.
        self.rebuilt = 0
        self.given_up = 0
        self.said_evicted = False
        self._say_at = 0.0
        runtime.pump.on(CopyMissing, self._copy_missing)
        runtime.on_node_gone.append(self._node_gone)

    # ------------------------------------------------------------------- the loop: what is kept

    def keep(self, task: Task) -> None:
        """A task has finished, and some of its returns are in a store: it may be needed again.
        Before its arguments are released."""
        returns = [
            entry
            for entry in [*task.returns, *self.replays.stored(task)]
            if entry.located is not None and not entry.freed
        ]
        if not returns:
            return
        kept = self.lineage
        if task.cancelled:
            loose = kept.forgo(task.task_id, lineage.CANCELLED, returns)
        elif task.retries_left == 0:
            disabled = task.template.max_retries == 0
            why = lineage.RETRIES_DISABLED if disabled else lineage.MAX_ATTEMPTS
            loose = kept.forgo(task.task_id, why, returns)
        else:
            evicted = kept.evicted
            loose = kept.keep(task.task_id, task, _weight(task), task.holds, returns)
            if kept.evicted > evicted and not self.said_evicted:
                self.said_evicted = True
                log.warning(
                    "descriptions of finished tasks took more than %s (max_lineage_bytes): the "
                    "older half is dropped, and lost results of those tasks cannot be made again",
                    format_bytes(kept.max_bytes),
                )
        self.references.settle_all(loose)

    # ------------------------------------------------------------------- the loop: what is lost

    def report(self, entry: Entry, reason: str) -> None:
        """A reader of this process did not find the value of an entry in the store. It is not
        ready until it is known what becomes of it."""
        if not entry.ready or entry.located is None:
            return
        if entry.owner is None:
            self._look(entry, reason)
            return
        entry.ready = False
        entry.watching = True
        missing = CopyMissing(entry.object_id, [self.rt.node.node_id], reason)
        owner = entry.owner
        if owner.process_id in self.rt.dead_processes or not self.rt.tell(owner, missing):
            dead = self.rt.dead_processes.get(owner.process_id)
            self.references.fill(entry, error_envelope(owner_died(entry.object_id, dead)), None)

    def _copy_missing(self, sender: bytes, message: CopyMissing) -> None:
        rt, entry = self.rt, self.references.entries.get(message.object_id)
        if entry is None or entry.owner is not None:
            rt.pump.send(sender, ObjectReady(message.object_id, 1))
            return
        if entry.ready and entry.located is not None:
            self._look(entry, message.reason)
        if self.references.watch(entry, sender):
            rt.pump.send(sender, rt.objects.readiness(entry))

    def _look(self, entry: Entry, reason: str) -> None:
        """Whether a value that was not found is there after all: the node knows best."""
        located = entry.located
        assert located is not None
        entry.ready = False
        rt, own = self.rt, self.rt.node.node_id
        nodes = [located.node_id, *self.locations.copies.get(entry.object_id, ())]
        sources = []
        if nodes != [own]:
            sources = [Source(rt.address, located.size_bytes, nodes)]
        question = self._ask([entry])

        def answered(reply: Message) -> None:
            if self._asked.get(entry.object_id) != question:
                return
            if isinstance(reply, ObjectsPinned) and reply.places[0][0] >= 0:
                rt.tell(rt.node.address, UnpinObjects([(entry.object_id, 1)]))
                self.fill(entry, None, entry.located)
                return
            why = reply.reasons[0] if isinstance(reply, ObjectsPinned) and reply.reasons else ""
            self.lost([entry], why or reason)

        rt.pump.request(
            own, lambda rid: PinObjects(rid, [entry.object_id], sources), answered, _LOOK_TIMEOUT_S
        )

    def lost(self, entries: Iterable[Entry], loss: str) -> None:
        """The primary copies of these are gone."""
        promoted: dict[bytes, list[Entry]] = {}
        lost = []
        for entry in entries:
            self._asked.pop(entry.object_id, None)
            if entry.located is None:
                continue
            node_id = self.locations.promote(entry)
            if node_id is not None:
                promoted.setdefault(node_id, []).append(entry)
            else:
                lost.append(entry)
            # Jobs begin when all that is lost is known to be.
            entry.ready = False
        for node_id, theirs in promoted.items():
            self._promote(node_id, theirs, loss)
        if lost:
            self.rebuilding.lost(lost, loss, self.rt.tasks.pending)
        self._perform()

    def found(self, entry: Entry) -> None:
        """A further copy of a value that is not ready was under way when the last one was lost."""
        if self.rebuilding.found(entry):
            self.lost([entry], "its copy was to be had for a moment only")

    def doubt(self, node_id: bytes, entries: list[Entry], loss: str) -> None:
        """A node said that it has these no more. They may have been made there again since, or it
        drains and still has them: it is asked."""
        for entry in entries:
            entry.ready = False
        self._promote(node_id, entries, loss)

    def _promote(self, node_id: bytes, entries: list[Entry], loss: str) -> None:
        """Have a node keep its copies; they are the values from now on if it has them."""
        ids = [entry.object_id for entry in entries]
        question = self._ask(entries)

        def answered(reply: Message) -> None:
            missing = set(reply.missing) if isinstance(reply, PromotedCopies) else set(ids)
            left = [e for e in entries if self._asked.get(e.object_id) == question]
            for entry in left:
                if entry.object_id not in missing:
                    self.fill(entry, None, entry.located)
            self.lost([entry for entry in left if entry.object_id in missing], loss)

        def told(reached: bool) -> None:
            if not reached:
                answered(RequestFailed("RpcError", "it cannot be reached"))
                return
            self.rt.pump.request(
                node_id, lambda rid: PromoteCopies(rid, ids), answered, _PROMOTE_TIMEOUT_S
            )

        self.rt.nodes.reach(node_id, told)

    def _ask(self, entries: list[Entry]) -> int:
        """The number of a question about these: only the answer to the last one counts."""
        question = next(self._questions)
        for entry in entries:
            self._asked[entry.object_id] = question
        return question

    def _perform(self) -> None:
        rt = self.rt
        before = self.rebuilt
        while self.rebuilding.effects:
            for effect in self.rebuilding.take():
                match effect:
                    case Again(task, wanted, loss):
                        if self.rebuilt == before:
                            self._say(task, loss)
                        self._run_again(task, wanted)
                    case Hopeless(entry, why, loss):
                        self.given_up += 1
                        self.fill(entry, error_envelope(hopeless(entry, why, loss)), None)
        rt.mailbox.wake()

    def _say(self, task: Task, loss: str) -> None:
        now = self.rt.pump.clock()
        if now < self._say_at:
            return
        self._say_at = now + _SAY_EVERY_S
        left = f"{task.retries_left} more times" if task.retries_left >= 0 else "without limit"
        log.info(
            "results of tasks are lost, and are made again (%d tasks so far). Task %s runs again, "
            "and may %s: %s. max_retries=0 turns this off",
            self.rebuilt + 1, task.template.name, left, loss or "another task needs its result",
        )  # fmt: skip

    def _run_again(self, task: Task, wanted: list[Entry]) -> None:
        self.rebuilt += 1
        task.unresolved = 0
        task.seq = -1
        task.ready_at = task.sent_at = 0.0
        if task.template.num_returns < 0:
            self.replays.begin(task, wanted)
        if task.actor_id:
            self.rt.actors.submit(task)
        else:
            self.rt.tasks.submit(task)

    # ----------------------------------------------------------- the loop: tasks that ran again

    def finished(self, task: Task, reply: TaskReply) -> bool:
        """The reply of a task that ran again. False if it runs for the first time."""
        if task.task_id not in self.rebuilding.jobs:
            return False
        self.rt.tasks.pending.pop(task.task_id, None)
        for entry, returned in zip(task.returns, reply.returns, strict=False):
            self.refill(entry, returned)
        self.replays.end(task, None)
        self._over(task)
        return True

    def failed(self, task: Task, error: bytes) -> bool:
        """A task that ran again has failed. False if it runs for the first time."""
        job = self.rebuilding.jobs.get(task.task_id)
        if job is None:
            return False
        self.rt.tasks.pending.pop(task.task_id, None)
        for entry in task.returns:
            # Not those that may still turn up somewhere.
            if not entry.ready and entry.object_id in job.wanted:
                self.fill(entry, error, None)
        self.replays.end(task, error)
        self._over(task)
        return True

    def generator_failed(self, task: Task) -> None:
        """A generator has ended with an error: the items that it made stay, and may be lost."""
        self.keep(task)
        if task.task_id in self.rebuilding.unfinished:
            self.ended(task.task_id)

    def _over(self, task: Task) -> None:
        self.keep(task)
        for entry in task.holds:
            self.references.release(entry)
        self.ended(task.task_id)

    def ended(self, task_id: bytes) -> None:
        """A task with lost returns is over."""
        self.rebuilding.ended(task_id, self.rt.tasks.pending)
        self._perform()

    def refill(self, entry: Entry, returned: Returned) -> None:
        """A value was made once more: use it if it is lost, else throw it away."""
        if entry.ready or entry.freed:
            self.rt.borrowing.decline([returned])
            if returned.located is not None:
                self.copies.discard(entry.object_id, returned.located)
            return
        # What is left of the former value elsewhere must not be taken for this one.
        stale = {*self.locations.forget(entry.object_id)}
        if entry.located is not None:
            stale.add(entry.located.node_id)
        if returned.located is not None:
            stale.discard(returned.located.node_id)
        for node_id in stale:
            self.copies.free_at(node_id, [entry.object_id])
        former, entry.nested = entry.nested, None
        if returned.refs:
            self.rt.borrowing.receive_refs(entry, returned.refs)
        if former is not None and self.replays.collects(entry.object_id):
            # It contains the items of its task, which are the same ones.
            entry.nested, former = former, None
        self.fill(entry, returned.data, returned.located)
        for inner in former or ():
            inner.inside -= 1
            self.references.settle(inner)

    def fill(self, entry: Entry, data: bytes | None, located: Located | None) -> None:
        """Whoever waits for a value that was lost has it, or the error in its place."""
        references = self.references
        self._asked.pop(entry.object_id, None)
        if located is None:
            for node_id in self.locations.forget(entry.object_id):
                self.copies.free_at(node_id, [entry.object_id])
        references.fill(entry, data, located)
        if located is None:
            references.settle_all(self.lineage.close(entry))
        references.settle(entry)

    def reason(self, entry: Entry) -> str:
        """Why a value that was there is not ready; "" of one that is made for the first time."""
        if entry.object_id in self._asked:
            return "it was not found, and its node looks for it"
        job = self.rebuilding.jobs.get(entry.object_id[:TASK_BYTES])
        if job is None:
            return ""
        state = "its task waits for its turn to run again"
        if job.waits:
            state = f"its task runs again once {len(job.waits)} others have made its arguments"
        elif job.running:
            state = "its task runs again"
        return f"lost ({job.loss or 'it was let go'}), and {state}"

    def lose_all(self, error: bytes) -> None:
        """Nothing can be made again any more."""
        for entry in list(self.references.entries.values()):
            if entry.owner is None and not entry.ready and entry.located is not None:
                self.fill(entry, error, None)

    # --------------------------------------------------------------------- the loop: places

    def _node_gone(self, message: NodeGone) -> None:
        entries = list(self.references.entries.values())
        lost = self.locations.node_gone(message.node_id, entries)
        if lost:
            node = message.node_id.hex()[:8]
            self.lost(lost, f"it was on node {node}, which is gone: {message.cause.text}")


def _weight(task: Task) -> int:
    """About how many bytes of memory keeping a task takes."""
    weight = _TASK_BYTES + len(task.args)
    for entry in task.holds:
        weight += _ARGUMENT_BYTES + (len(entry.data) if entry.data is not None else 0)
    return weight
