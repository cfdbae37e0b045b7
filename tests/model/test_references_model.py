"""Random lives of references in three processes: nothing is freed too early, nothing is kept.

Each process has its References and a shell in the simplest form that keeps the protocol: who lends
a reference keeps it until the owner knows the borrower. Requests to an owner arrive in any order,
adding perhaps twice; a death loses what the dead had not sent.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.ownership.references import Entry, Free, Ready, References, Unborrow
from mray.wire.messages import Address, Located, RefGroup

PLACE = Located(b"node", 1_000_000)


class Home:
    posts: Any = deque()

    def wake(self) -> None:
        return None


HOME = Home()


def nothing() -> None:
    return None


class Process:
    """One process: ``reach`` holds what user code there has, as entries with repetition."""

    def __init__(self, number: int) -> None:
        self.address = Address(b"p%d" % number, b"node")
        self.refs = References(number << 32)
        self.reach: list[Entry] = []
        #: Holds of tasks in flight.
        self.held: list[Entry] = []

    def entry_for(self, object_id: bytes, owner: Process) -> Entry:
        entry = self.refs.entries.get(object_id)
        if entry is None:
            assert owner is not self, "an owner meets an object of its own that it has freed"
            entry = Entry(object_id, owner.address, HOME, 0)
            self.refs.entries[object_id] = entry
        return entry


class Mail:
    """A message to an owner."""

    def __init__(self, sender: Process, to: Process, read: Callable[[], None]) -> None:
        self.sender = sender
        self.to = to
        self.read = read
        #: Runs in the sender when it has arrived (or never can).
        self.then: Callable[[], None] = nothing
        #: Runs when the sender dies before that.
        self.given_up: Callable[[], None] = nothing
        #: What a message that adds is about, and who keeps it alive meanwhile.
        self.adds = b""
        self.lender: Process | None = None
        self.for_another = False
        self.count = 0


class ReferencesLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.numbers = itertools.count(1)
        self.ids = itertools.count(1)
        self.living = [Process(next(self.numbers)) for _ in range(3)]
        self.mail: list[Mail] = []
        self.owner: dict[bytes, Process] = {}
        #: What each stored value contains.
        self.inside: dict[bytes, list[bytes]] = {}
        self.freed: set[bytes] = set()
        #: Lent by a process that died before the owner knew the borrower: may be lost.
        self.excused: set[bytes] = set()

    # -- the world obeys

    def perform(self, process: Process) -> None:
        process.refs.check()
        for effect in process.refs.take():
            match effect:
                case Free(entry):
                    assert entry.object_id not in self.freed, "freed twice"
                    self.freed.add(entry.object_id)
                case Unborrow(address, object_id, tokens):
                    owner = self.owner[object_id]
                    assert owner.address == address
                    if owner in self.living:
                        self.send(process, owner, self.dropping(owner, object_id, process, tokens))
                case Ready():
                    raise AssertionError("nobody watches here")

    def send(self, sender: Process, to: Process, read: Callable[[], None]) -> Mail:
        mail = Mail(sender, to, read)
        self.mail.append(mail)
        return mail

    def adding(
        self, owner: Process, object_id: bytes, borrower: Process, token: int
    ) -> Callable[[], None]:
        def read() -> None:
            entry = owner.refs.entries.get(object_id)
            if entry is not None:
                owner.refs.add_borrower(entry, borrower.address.process_id, token)

        return read

    def dropping(
        self, owner: Process, object_id: bytes, borrower: Process, tokens: list[int]
    ) -> Callable[[], None]:
        def read() -> None:
            entry = owner.refs.entries.get(object_id)
            if entry is not None:
                owner.refs.drop_borrower(entry, borrower.address.process_id, tokens)

        return read

    def deliver(self, mail: Mail) -> None:
        mail.read()
        mail.count += 1
        if mail.count == 1 and mail.sender in self.living:
            mail.then()
            self.perform(mail.sender)
        if not mail.adds or mail.count == 2:
            self.mail.remove(mail)
        self.perform(mail.to)

    # -- user code

    @rule(data=st.data())
    def make(self, data: st.DataObject) -> None:
        """A value, perhaps with references inside."""
        process = data.draw(st.sampled_from(self.living))
        object_id = b"o%d" % next(self.ids)
        entry = Entry(object_id, None, HOME, 1)
        process.refs.entries[object_id] = entry
        process.refs.fill(entry, None, PLACE)
        self.owner[object_id] = process
        inner: list[Entry] = []
        if process.reach:
            inner = data.draw(st.lists(st.sampled_from(process.reach), max_size=2))
        self.inside[object_id] = [e.object_id for e in inner]
        process.refs.nest(entry, RefGroup(process.address, []), inner)
        process.reach.append(entry)
        self.perform(process)

    def with_reach(self) -> list[Process]:
        return [process for process in self.living if process.reach]

    @precondition(lambda self: self.with_reach())
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.with_reach()))
        entry = process.reach.pop(data.draw(st.integers(0, len(process.reach) - 1)))
        process.refs.drop_local(entry)
        self.perform(process)

    @precondition(lambda self: self.with_reach())
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        process = data.draw(st.sampled_from(self.with_reach()))
        entry = data.draw(st.sampled_from(process.reach))
        process.refs.add_local(entry)
        process.reach.append(entry)

    @precondition(lambda self: len(self.living) > 1 and self.with_reach())
    @rule(data=st.data())
    def run_task(self, data: st.DataObject) -> None:
        """A reference travels as an argument; the task keeps it beyond its end, or does not."""
        caller = data.draw(st.sampled_from(self.with_reach()))
        worker = data.draw(st.sampled_from([p for p in self.living if p is not caller]))
        lent = data.draw(st.sampled_from(caller.reach))
        owner = self.owner[lent.object_id]
        if owner is worker and lent.object_id in self.freed:
            return  # excused before
        caller.refs.hold(lent)
        caller.held.append(lent)
        entry = worker.entry_for(lent.object_id, owner)
        worker.refs.add_local(entry)

        def over() -> None:
            if caller in self.living:
                caller.held.remove(lent)
                caller.refs.release(lent)
                self.perform(caller)

        if data.draw(st.booleans()):
            worker.reach.append(entry)
            self.register(worker, entry, caller, over)
            if data.draw(st.booleans()):
                # Its giving up may reach the owner before its registration.
                worker.reach.remove(entry)
                worker.refs.drop_local(entry)
                self.perform(worker)
        else:
            worker.refs.drop_local(entry)
            self.perform(worker)
            over()

    def register(
        self, process: Process, entry: Entry, lender: Process, then: Callable[[], None]
    ) -> None:
        owner = self.owner[entry.object_id]
        if owner in self.living and process.refs.unregistered(entry):
            token = process.refs.token()
            entry.tokens = [token]
            mail = self.send(process, owner, self.adding(owner, entry.object_id, process, token))
            mail.then = mail.given_up = then
            mail.adds, mail.lender = entry.object_id, lender
        else:
            then()
        self.perform(process)

    @precondition(lambda self: self.with_reach())
    @rule(data=st.data())
    def read_value(self, data: st.DataObject) -> None:
        """A process reads a value and keeps the references inside."""
        reader = data.draw(st.sampled_from(self.with_reach()))
        outer = data.draw(st.sampled_from(reader.reach))
        maker = self.owner[outer.object_id]
        if maker not in self.living or outer.object_id in self.freed | self.excused:
            return
        for object_id in self.inside[outer.object_id]:
            owner = self.owner[object_id]
            if owner not in self.living or object_id in self.freed:
                continue
            entry = reader.entry_for(object_id, owner)
            reader.refs.add_local(entry)
            reader.reach.append(entry)
            reader.refs.hold(outer)
            reader.held.append(outer)

            def known() -> None:
                if reader in self.living:
                    reader.held.remove(outer)
                    reader.refs.release(outer)
                    self.perform(reader)

            self.register(reader, entry, maker, known)

    @precondition(lambda self: len(self.living) > 1 and self.with_reach())
    @rule(data=st.data())
    def run_task_that_returns(self, data: st.DataObject) -> None:
        """A worker's value, owned by the caller, with a reference inside."""
        worker = data.draw(st.sampled_from(self.with_reach()))
        caller = data.draw(st.sampled_from([p for p in self.living if p is not worker]))
        inner = data.draw(st.sampled_from(worker.reach))
        owner = self.owner[inner.object_id]
        if inner.object_id in self.freed | self.excused:
            return
        result = Entry(b"r%d" % next(self.ids), None, HOME, 1)
        caller.refs.entries[result.object_id] = result
        caller.reach.append(result)
        self.owner[result.object_id] = caller
        self.inside[result.object_id] = []
        # What is inside a return lives in the worker until its reply leaves.
        worker.refs.hold(inner)
        worker.held.append(inner)
        token = 0 if owner is caller else worker.refs.token()

        def end(data: bytes | None) -> None:
            if caller in self.living:
                caller.refs.fill(result, data, None if data else PLACE)
                if not result.local:
                    caller.refs.settle(result)
                self.perform(caller)

        def reply() -> None:
            if caller in self.living and inner.object_id not in self.freed:
                entry = caller.entry_for(inner.object_id, owner)
                caller.refs.nest(result, RefGroup(owner.address, [], token), [entry])
                self.inside[result.object_id] = [inner.object_id]
            end(None)
            worker.held.remove(inner)
            worker.refs.release(inner)
            self.perform(worker)

        if owner is worker:
            worker.refs.add_borrower(inner, caller.address.process_id, token)
        if owner in (worker, caller) or owner not in self.living:
            reply()
        else:
            mail = self.send(worker, owner, self.adding(owner, inner.object_id, caller, token))
            mail.then, mail.given_up = reply, lambda: end(b"error")
            mail.adds, mail.lender, mail.for_another = inner.object_id, worker, True

    # -- the network, and death

    @precondition(lambda self: self.mail)
    @rule(data=st.data())
    def message_arrives(self, data: st.DataObject) -> None:
        self.deliver(data.draw(st.sampled_from(self.mail)))

    @precondition(lambda self: len(self.living) > 1)
    @rule(data=st.data(), sent=st.booleans())
    def die(self, data: st.DataObject, sent: bool) -> None:
        dead = data.draw(st.sampled_from(self.living))
        self.kill(dead, sent)
        self.living.append(Process(next(self.numbers)))

    def kill(self, dead: Process, sent: bool) -> None:
        self.living.remove(dead)
        new = [mail for mail in self.mail if not mail.count]
        # Who lent it cannot keep it any more, and the owner may hear of that first.
        self.excused |= {mail.adds for mail in new if mail.lender is dead and mail.adds}
        # What the dead had sent arrives or is lost. What it registered for another is taken as
        # lost: see the head of references.py.
        self.mail = [
            mail
            for mail in self.mail
            if mail.to is not dead
            and (mail.sender is not dead or (sent and not (mail.for_another and not mail.count)))
        ]
        for process in self.living:
            process.refs.process_died(dead.address.process_id, lambda object_id: b"lost")
            self.perform(process)
        for mail in new:
            if mail.sender is dead:
                mail.given_up()
            elif mail.to is dead and mail.sender in self.living:
                mail.then()
                self.perform(mail.sender)

    # -- what holds

    @invariant()
    def consistent(self) -> None:
        for process in self.living:
            process.refs.check()

    @invariant()
    def nothing_is_freed_that_somebody_can_reach(self) -> None:
        reach = [e.object_id for p in self.living for e in [*p.reach, *p.held]]
        seen: set[bytes] = set()
        while reach:
            object_id = reach.pop()
            if object_id in seen or object_id in self.excused:
                continue
            seen.add(object_id)
            if self.owner[object_id] in self.living:
                assert object_id not in self.freed, f"{object_id!r} is freed and wanted"
                assert object_id in self.owner[object_id].refs.entries
                reach += self.inside[object_id]

    def teardown(self) -> None:
        """All is forgotten, all messages arrive: nothing is left."""
        for process in self.living:
            for entry in process.reach:
                process.refs.drop_local(entry)
            process.reach.clear()
            self.perform(process)
        while self.mail:
            self.deliver(self.mail[0])
        for process in self.living:
            process.refs.check()
            kept = {
                object_id: (entry.local, entry.held, entry.inside, entry.borrowers)
                for object_id, entry in process.refs.entries.items()
            }
            assert not kept, f"{process.address.process_id!r} keeps {kept}"
            assert not process.refs._borrowed_by
            assert not process.refs._followers


ReferencesLife.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    database=None,
)
TestReferencesLife = ReferencesLife.TestCase
