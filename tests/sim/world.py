"""A world of processes that lend each other references, on virtual time over a bad network.

Owns the network (delay, loss, copies, overtaking), deaths and who hears of them when, a task layer
as bare as can be (a task goes again until it is answered, a reply until it is confirmed), and what
must be true. The ledgers are the real ones. Everything follows from one seed.

What must be true:
  - an object that a living process can reach is not freed while its owner lives: a reference in
    reach, or inside a value in reach, however deep
  - nothing is freed twice
  - when all references are dropped and all messages are through, every ledger is empty
  - no machine contradicts itself

Excused is only what its lender could not keep until it was registered, because it died: a caller
its arguments, the owner of a value what somebody had just found inside.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import Any

from mray.ownership.entry import Entry
from mray.ownership.handover import Parcel
from mray.ownership.ledger import Ledger
from mray.ownership.references import Free
from mray.wire.messages import Borrows, RefGroup

from .process import HOME, PLACE, Process, Task

TASK_AGAIN_S = 3.0
#: So many processes are born in a life.
PROCESSES_MAX = 12


class Violation(AssertionError):
    """Something is not as it must be."""


class World:
    """See the module."""

    def __init__(
        self, seed: int, process_count: int = 4, ledger: Callable[..., Ledger] = Ledger
    ) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        self.now = 0.0
        self.loss = rng.choice([0.0, 0.0, 0.05, 0.3])
        self.copies = rng.choice([0.0, 0.0, 0.1, 0.3])
        self.delay_s = rng.choice([0.001, 0.1, 2.0])
        #: How long news of a death take.
        self.rumour_s = rng.choice([0.01, 1.0, 10.0])
        self.death_rate = rng.choice([0.01, 0.03, 0.08])
        self.trace: list[tuple[Any, ...]] = []
        self._ledger = ledger
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)
        self.all: dict[bytes, Process] = {}
        self.owner: dict[bytes, Process] = {}
        #: What each value contains.
        self.inside: dict[bytes, list[bytes]] = {}
        #: Results of tasks that are not answered.
        self.unmade: set[bytes] = set()
        self.freed: set[bytes] = set()
        self.excused: set[bytes] = set()
        #: Tasks that keep all their arguments, or return all that their worker keeps: no more.
        self.keep_all: set[int] = set()
        self.give_all: set[int] = set()
        self._steps = 0
        for _ in range(process_count):
            self.spawn()

    # -- time and network

    def spawn(self) -> Process:
        """A new process."""
        process = Process(next(self._numbers), self.now, self._ledger)
        self.all[process.id] = process
        return process

    def living(self) -> list[Process]:
        """Processes that are not dead, oldest first."""
        return [process for process in self.all.values() if process.died_at is None]

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call later."""
        heapq.heappush(self._events, (self.now + delay_s, next(self._numbers), call))

    def step(self) -> bool:
        """The next event; False when there is none."""
        if not self._events:
            return False
        self.now, _, call = heapq.heappop(self._events)
        call()
        return True

    def send(self, sender: Process, to: bytes, what: str, read: Callable[[Process], None]) -> None:
        """Send a message: it may be lost, come twice, or be overtaken."""
        rng, target = self.rng, self.all[to]
        self.trace.append((self.now, "send", sender.id, to, what))
        if target.died_at is not None and sender.born >= target.died_at:
            # Nobody will tell it of this death: it finds nobody listening.
            self.after(0.0, lambda: self.hear_of_death(sender, target))
            return

        def arrive() -> None:
            if target.died_at is None:
                self.trace.append((self.now, "read", to, sender.id, what))
                read(target)
                self.settle(target)

        if rng.random() >= self.loss:
            self.after(rng.expovariate(1 / self.delay_s), arrive)
        if rng.random() < self.copies:
            self.after(rng.expovariate(1 / (3 * self.delay_s)), arrive)

    def settle(self, process: Process) -> None:
        """The end of a round of a process, as in runtime/borrowing.py."""
        ledger = process.ledger
        strangers, ledger.strangers = ledger.strangers, []
        for stranger in strangers:
            target = self.all[stranger.process_id]
            if target.died_at is not None and process.born >= target.died_at:
                self.after(0.0, lambda dead=target: self.hear_of_death(process, dead))  # type: ignore[misc]
        while ledger.handover.ready or ledger.references.effects:
            ready, ledger.handover.ready = ledger.handover.ready, []
            for parcel in ready:
                self._reply(process, parcel)
                ledger.handover.left(parcel)
            for effect in ledger.take():
                assert isinstance(effect, Free)
                self._free(effect.entry)
        for out in ledger.flush(self.now):
            message, peer = out.message, out.peer
            if isinstance(message, Borrows):
                self._send_batch(process, peer, message)
            else:
                self._send_confirmation(process, peer, message)
        deadline = ledger.deadline()
        if deadline is not None and deadline < process.timer_at:
            process.timer_at = deadline
            self.after(max(0.0, deadline - self.now), lambda: self._tick(process))
        self._steps += 1
        if self._steps % 16 == 0:
            ledger.check()

    def _send_batch(self, process: Process, peer: Any, message: Borrows) -> None:
        def read(target: Process) -> None:
            target.ledger.hear(process.id, message)

        self.send(process, peer.process_id, f"batch {message.seq}", read)

    def _send_confirmation(self, process: Process, peer: Any, message: Any) -> None:
        def read(target: Process) -> None:
            target.ledger.confirmed(process.id, message)

        self.send(process, peer, f"heard {message.seq}", read)

    def _tick(self, process: Process) -> None:
        if process.died_at is None:
            process.timer_at = float("inf")
            self.settle(process)

    # -- user code

    def put(self, process: Process, inner: list[Entry]) -> Entry:
        """A value with these references inside; its reference is in reach."""
        entry = Entry(b"o%d" % next(self._numbers), None, HOME, 1)
        process.refs.entries[entry.object_id] = entry
        process.refs.fill(entry, None, PLACE)
        self.owner[entry.object_id] = process
        self.inside[entry.object_id] = [e.object_id for e in inner]
        self.trace.append((self.now, "put", process.id, entry.object_id, len(inner)))
        process.refs.nest(entry, RefGroup(process.address, []), inner)
        for e in inner:
            if process.refs.unregistered(e):
                process.ledger.borrowing.register(e)
        process.reach.append(entry)
        self.settle(process)
        return entry

    def copy(self, process: Process, entry: Entry) -> None:
        """One more reference."""
        process.refs.add_local(entry)
        process.reach.append(entry)

    def forget(self, process: Process, entry: Entry) -> None:
        """Drop a reference."""
        self.trace.append((self.now, "forget", process.id, entry.object_id))
        process.reach.remove(entry)
        process.refs.drop_local(entry)
        self.settle(process)

    def read(self, process: Process, outer: Entry) -> None:
        """Read a value; the references inside are in reach."""
        owner = self.owner[outer.object_id]
        if owner.died_at is not None or outer.object_id in self.freed:
            return
        self.trace.append((self.now, "get", process.id, outer.object_id))
        for object_id in self.inside[outer.object_id]:
            if object_id in self.freed and object_id in self.excused:
                continue
            self._adopt(process, object_id, outer)
        self.settle(process)

    def _adopt(self, process: Process, object_id: bytes, carrier: Entry) -> None:
        owner = self.owner[object_id]
        self._must_live(object_id, f"{process.id!r} reads it in {carrier.object_id!r}")
        entry = process.entry_for(object_id, owner.address)
        process.refs.add_local(entry)
        process.reach.append(entry)
        if process.refs.unregistered(entry):
            process.ledger.borrowing.register(entry, carrier)

    def submit(self, caller: Process, worker: Process, args: list[Entry], depth: int = 0) -> Task:
        """Call a task with references inside its arguments; the result's is in reach."""
        task = Task(next(self._numbers), caller, worker, args, depth)
        self.trace.append((self.now, "submit", caller.id, worker.id, task.number))
        entry = task.result
        entry.local = 1
        caller.refs.entries[entry.object_id] = entry
        self.owner[entry.object_id] = caller
        self.inside[entry.object_id] = []
        self.unmade.add(entry.object_id)
        caller.reach.append(entry)
        for arg in args:
            caller.refs.hold(arg)
        caller.pending[task.number] = task
        self._push(task)
        return task

    def _push(self, task: Task) -> None:
        caller = task.caller
        if caller.died_at is not None or task.number not in caller.pending:
            return
        if task.worker.died_at is not None and caller.born >= task.worker.died_at:
            self.hear_of_death(caller, task.worker)
            return
        ids = [entry.object_id for entry in task.args]
        self.send(caller, task.worker.id, f"task {task.number}", lambda _: self._got(task, ids))
        self.after(TASK_AGAIN_S, lambda: self._push(task))

    # -- a worker

    def _got(self, task: Task, ids: list[bytes]) -> None:
        worker = task.worker
        if task.number in worker.got:
            self._send_reply(task)
            return
        worker.got[task.number] = task
        borrowed = []
        for object_id in ids:
            if object_id in self.freed and object_id in self.excused:
                continue
            if task.caller.died_at is None:
                self._must_live(object_id, f"it is an argument of task {task.number}")
            entry = worker.entry_for(object_id, self.owner[object_id].address)
            worker.refs.add_local(entry)
            worker.reach.append(entry)
            borrowed.append(entry)
        run_s = self.rng.choice([0.0, 0.5, 5.0])
        self.after(run_s, lambda: self._run(task, borrowed))

    def _run(self, task: Task, borrowed: list[Entry]) -> None:
        """The task's body: read, keep, pass on, return."""
        worker, rng = task.worker, self.rng
        if worker.died_at is not None:
            return
        if task.number in self.keep_all | self.give_all:
            values: list[Entry] = []
            if task.number in self.give_all:
                values = [e for e in worker.reach if self._complete(e.object_id)]
            worker.ledger.handover.pack(task, task.caller.address, borrowed, [values])
            self.settle(worker)
            return
        mine = [entry for entry in borrowed if entry in worker.reach]
        for entry in mine:
            if rng.random() < 0.4:
                self.read(worker, entry)
        if task.depth:
            others = [process for process in self.living() if process is not worker]
            self.submit(worker, rng.choice(others), mine, task.depth - 1)
        nested: list[Entry] = []
        sources = [e for e in [*mine, *worker.reach] if self._complete(e.object_id)]
        for _ in range(rng.choice([0, 0, 1, 2])):
            if rng.random() < 0.3 or not sources:
                nested.append(self.put(worker, []))
            else:
                nested.append(rng.choice(sources))
        # The references in the result live beside those that user code keeps.
        for entry in nested:
            worker.refs.add_local(entry)
        for entry in mine:
            if rng.random() < 0.6 and entry in worker.reach:
                worker.reach.remove(entry)
                worker.refs.drop_local(entry)
        worker.ledger.handover.pack(task, task.caller.address, borrowed, [nested])
        for entry in nested:
            worker.refs.drop_local(entry)
        self.settle(worker)

    def _complete(self, wanted: bytes) -> bool:
        """Whether no result that is still being made is in the value, however deep: it could come
        to contain itself, and counting never ends a cycle."""
        stack, seen = [wanted], set()
        while stack:
            object_id = stack.pop()
            if object_id not in seen:
                seen.add(object_id)
                if object_id in self.unmade:
                    return False
                stack += self.inside[object_id]
        return True

    def _reply(self, worker: Process, parcel: Parcel) -> None:
        task = parcel.cargo
        task.groups = parcel.groups[0]
        self._send_reply(task)
        if task.groups and self.rng.random() < 2 * self.death_rate:
            # The worst moment: the reply is under way.
            self.after(self.rng.expovariate(10 / self.delay_s), lambda: self.end(worker))

    def _send_reply(self, task: Task) -> None:
        worker, caller, groups = task.worker, task.caller, task.groups
        if groups is None or worker.died_at is not None:
            return
        self.send(worker, caller.id, f"reply {task.number}", lambda _: self._replied(task, groups))

    def _replied(self, task: Task, groups: list[RefGroup]) -> None:
        caller = task.caller
        if groups and caller.ledger.refuses(task.worker.id):
            return
        if caller.pending.pop(task.number, None) is None:
            caller.ledger.decline(groups)
            return
        if self.rng.random() < 0.05:
            # A retry, or a result that nobody wants any more.
            caller.ledger.decline(groups)
            groups = []
        for group in groups:
            for object_id in group.object_ids:
                self._must_live(object_id, f"it is in the reply of task {task.number}")
            entries = [caller.entry_for(oid, group.owner) for oid in group.object_ids]
            caller.ledger.receive(task.result, group, entries)
            self.inside[task.result.object_id] += group.object_ids
        self._end(task)

    def _end(self, task: Task) -> None:
        refs = task.caller.refs
        self.unmade.discard(task.result.object_id)
        refs.fill(task.result, None, PLACE)
        refs.settle(task.result)
        for entry in task.args:
            refs.release(entry)

    # -- death

    def end(self, process: Process) -> None:
        """A process dies if enough have not yet, and another is born."""
        if process.died_at is None and len(self.all) < PROCESSES_MAX:
            self.die(process)
            self.spawn()

    def die(self, dead: Process) -> None:
        """A process ends; the others hear of it one by one."""
        self.trace.append((self.now, "die", dead.id))
        dead.died_at = self.now
        for task in dead.pending.values():
            self._excuse([entry.object_id for entry in task.args])
        for process in self.living():
            self._excuse_found_in_values_of(dead, process)
            delay_s = self.rng.expovariate(1 / self.rumour_s)
            self.after(delay_s, lambda process=process: self.hear_of_death(process, dead))  # type: ignore[misc]

    def _excuse_found_in_values_of(self, dead: Process, process: Process) -> None:
        for line in process.ledger.dialogues._lines.values():
            halves = [(line.adds, line.follow)]
            if line.batch is not None:
                halves.append((line.batch.adds, line.followed))
            for adds, follow in halves:
                carriers = [what for what in follow if type(what) is Entry]
                if any(self.owner[carrier.object_id] is dead for carrier in carriers):
                    self._excuse([object_id for _, ids in adds for object_id in ids])

    def _excuse(self, object_ids: list[bytes]) -> None:
        stack = object_ids
        while stack:
            object_id = stack.pop()
            if object_id not in self.excused:
                self.excused.add(object_id)
                stack += self.inside[object_id]

    def hear_of_death(self, process: Process, dead: Process) -> None:
        """A process learns that another is dead."""
        if process.died_at is not None:
            return
        self.trace.append((self.now, "hears", process.id, dead.id))
        process.ledger.died(dead.id, lambda object_id: b"lost")
        for task in [task for task in process.pending.values() if task.worker is dead]:
            del process.pending[task.number]
            self._end(task)
        self.settle(process)

    # -- what must be true

    def _must_live(self, object_id: bytes, why: str) -> None:
        missed = object_id in self.freed and object_id not in self.excused
        if missed and self.owner[object_id].died_at is None:
            raise Violation(f"{object_id!r} was freed, and {why}")

    def _free(self, entry: Entry) -> None:
        object_id = entry.object_id
        self.trace.append((self.now, "free", object_id))
        if object_id in self.freed:
            raise Violation(f"{object_id!r} is freed twice")
        self.freed.add(object_id)
        if object_id not in self.excused:
            self._nobody_reaches(object_id)

    def _nobody_reaches(self, wanted: bytes) -> None:
        for process in self.living():
            stack = [entry.object_id for entry in process.reach]
            seen = set()
            while stack:
                object_id = stack.pop()
                if object_id in seen or object_id in self.excused:
                    continue
                seen.add(object_id)
                if object_id == wanted:
                    raise Violation(f"{wanted!r} is freed, and {process.id!r} can reach it")
                if self.owner[object_id].died_at is None:
                    stack += self.inside[object_id]

    def calm_down(self) -> None:
        """All references are dropped and all messages come through: nothing may be left."""
        self.trace.append((self.now, "calm"))
        quiet = 0
        while quiet < 2:
            quiet += 1
            for process in self.living():
                while process.reach:
                    quiet = 0
                    self.forget(process, process.reach[-1])
            limit = 100_000
            while self.step():
                limit -= 1
                if not limit:
                    raise Violation("messages go round and round")
        for process in self.living():
            self._must_be_empty(process)

    def _must_be_empty(self, process: Process) -> None:
        ledger = process.ledger
        ledger.check()
        left = {
            object_id: (e.local, e.held, e.inside, e.borrowers, e.tokens)
            for object_id, e in ledger.references.entries.items()
        }
        if left:
            raise Violation(f"{process.id!r} keeps {left}")
        for name, table in (
            ("followers", ledger.references._followers),
            ("borrowers", ledger.borrowers._borrowed_by),
            ("offers", ledger.borrowers._offers),
            ("unconfirmed tokens", ledger.borrowing._unknown),
            ("batches", ledger.dialogues._under_way),
            ("words", ledger.dialogues.talkative),
        ):
            if table:
                raise Violation(f"{process.id!r} keeps {name}: {table}")

    def trace_hash(self) -> str:
        """The same for the same seed."""
        return hashlib.blake2b(repr(self.trace).encode(), digest_size=8).hexdigest()

    def story(self, length: int = 200) -> str:
        """The last events, for the text of a failure."""
        return "\n".join(
            f"{line[0]:10.4f} " + " ".join(str(word) for word in line[1:])
            for line in self.trace[-length:]
        )
