"""Random lives of an actor and its caller: order is kept, and every call ends exactly once."""

from __future__ import annotations

import itertools

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.tasks.actor_calls import ActorCalls
from mray.tasks.task import Task, Template
from mray.wire.messages import ActorState, Address, TaskReply, TaskTemplate

TEMPLATE = Template(TaskTemplate(1, b"", "A.m", 1, b"job1", {}), -1, 0)
UNORDERED = Template(TaskTemplate(2, b"", "A.n", 1, b"job1", {}), -1, 0)
UNORDERED.unordered = True


class ActorLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.calls = ActorCalls(b"a", "A")
        self.ids = itertools.count(1)
        self.tasks: list[Task] = []
        self.limit: dict[bytes, int] = {}
        self.ended: dict[bytes, str] = {}
        self.runs: dict[bytes, int] = {}
        #: The actor: what the present incarnation has been sent, in order, and where it is.
        self.incarnation = 0
        self.state = "PENDING"
        self.sent: list[Task] = []
        self.begun = 0
        self.said: list[TaskReply] = []
        #: Calls that the actor was told not to begin, and that it has not.
        self.unwanted: set[bytes] = set()
        self.told_dead = False
        #: Words of the head on their way, in order.
        self.words: list[ActorState] = []

    def end(self, task: Task, how: str) -> None:
        assert task.task_id not in self.ended, "a call ends twice"
        self.ended[task.task_id] = how

    def turn(self) -> None:
        self.calls.check()
        for effect in self.calls.take():
            self.end(effect.task, effect.kind)
        if not self.calls.advance():
            return
        self.calls.check()
        out, self.calls.out = self.calls.out, []
        assert self.calls.worker is not None
        for task in out:
            assert not task.unresolved
        if self.calls.incarnation == self.incarnation and self.state == "ALIVE":
            assert self.calls.worker.process_id == b"w%d" % self.incarnation
            self.sent += out
            numbers = [task.seq for task in self.sent]
            assert numbers == list(range(len(numbers)))

    def say(self, state: str) -> None:
        self.state = state
        worker = Address(b"w%d" % self.incarnation, b"n") if state == "ALIVE" else None
        self.words.append(ActorState(b"a", state, self.incarnation, worker))

    @rule(retries=st.sampled_from([0, 1, 2, -1]), waits=st.booleans(), ordered=st.booleans())
    def submit(self, retries: int, waits: bool, ordered: bool) -> None:
        template = TEMPLATE if ordered else UNORDERED
        task = Task(next(self.ids).to_bytes(24, "big"), template, b"", [], [], [])
        task.retries_left, task.unresolved = retries, int(waits)
        self.tasks.append(task)
        self.limit[task.task_id] = 10_000 if retries < 0 else 1 + retries
        self.calls.submit(task)
        self.turn()

    @precondition(lambda self: any(task.unresolved for task in self.tasks))
    @rule(data=st.data())
    def argument_arrives(self, data: st.DataObject) -> None:
        self.resolve(data.draw(st.sampled_from([t for t in self.tasks if t.unresolved])))
        self.turn()

    def resolve(self, task: Task) -> None:
        task.unresolved = 0
        self.calls.resolved(task)

    @precondition(lambda self: len(self.ended) < len(self.tasks))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from([t for t in self.tasks if t.task_id not in self.ended]))
        if self.calls.cancel(task):
            self.end(task, "cancelled")
        elif (
            self.calls.worker is not None
            and self.calls.incarnation == self.incarnation
            and task in self.sent[self.begun :]
        ):
            self.unwanted.add(task.task_id)
        self.turn()

    # -- the actor

    @precondition(lambda self: self.state in ("PENDING", "RESTARTING"))
    @rule()
    def starts(self) -> None:
        self.sent, self.begun, self.said, self.told_dead = [], 0, [], False
        self.unwanted = set()
        self.say("ALIVE")

    @precondition(lambda self: self.state == "ALIVE" and self.begun < len(self.sent))
    @rule()
    def runs_a_call(self) -> None:
        task = self.sent[self.begun]
        self.begun += 1
        if task.task_id in self.unwanted:
            for gone in self.calls.forgotten([task.task_id]):
                self.end(gone, "cancelled")
            return
        if task.cancelled:
            assert not self.runs.get(task.task_id), "a cancelled call runs again"
        self.runs[task.task_id] = self.runs.get(task.task_id, 0) + 1
        assert self.runs[task.task_id] <= self.limit[task.task_id], "a call runs too often"
        assert task.task_id not in self.ended, "a call runs that is over"
        self.said.append(TaskReply(task.task_id, 0, []))

    @precondition(lambda self: self.state == "ALIVE" and self.words)
    @rule()
    def hears_runs_and_dies(self) -> None:
        """A call has run and nobody hears of it."""
        while self.words:
            self.calls.changed(self.words.pop(0))
            self.turn()
        while self.begun < len(self.sent):
            self.runs_a_call()
        self.dies(False)

    @precondition(lambda self: self.said and self.calls.incarnation == self.incarnation)
    @rule(data=st.data())
    def replies_arrive(self, data: st.DataObject) -> None:
        count = data.draw(st.integers(1, len(self.said)))
        batch, self.said = self.said[:count], self.said[count:]
        if self.calls.worker is not None:
            for task, _ in self.calls.replied(batch):
                self.end(task, "done")
        self.turn()

    @precondition(lambda self: self.state == "ALIVE")
    @rule(final=st.sampled_from([False, False, False, True]))
    def dies(self, final: bool) -> None:
        if not final:
            self.incarnation += 1
        self.said = []
        self.say("DEAD" if final else "RESTARTING")

    @precondition(lambda self: self.state != "ALIVE" and not self.told_dead)
    @rule()
    def the_node_tells_of_the_death(self) -> None:
        """Before or after the head's word, or never."""
        self.told_dead = True
        worker = self.calls.worker
        if worker is not None and self.state == "RESTARTING":
            if worker.process_id == b"w%d" % (self.incarnation - 1):
                self.calls.disconnected()
        elif worker is not None and self.state == "DEAD":
            self.calls.disconnected()
        self.turn()

    @precondition(lambda self: self.words)
    @rule(again=st.booleans())
    def the_head_is_heard(self, again: bool) -> None:
        word = self.words.pop(0)
        self.calls.changed(word)
        self.turn()
        if again:
            self.calls.changed(word)
            self.turn()

    # -- what holds

    @invariant()
    def no_call_is_lost(self) -> None:
        self.calls.check()
        calls = self.calls
        known = {task.task_id for task in calls.queue} | set(calls.inflight) | set(calls.aside)
        assert known == {task.task_id for task in self.tasks} - set(self.ended)

    @invariant()
    def order_is_kept(self) -> None:
        line = [*self.calls.inflight.values(), *self.calls.queue]
        ids = [task.task_id for task in line if task.template is TEMPLATE]
        assert ids == sorted(ids)

    @invariant()
    def nothing_waits_behind_a_call_that_needs_no_order(self) -> None:
        assert not any(t.unresolved for t in self.calls.queue if t.template is UNORDERED)

    def teardown(self) -> None:
        """When the actor lives and all arguments are there, all calls end."""
        for task in self.tasks:
            self.resolve(task)
        if self.state in ("PENDING", "RESTARTING"):
            self.starts()
        while self.words:
            self.calls.changed(self.words.pop(0))
            self.turn()
        self.turn()
        if self.state == "ALIVE":
            while self.begun < len(self.sent):
                self.runs_a_call()
            for task, _ in self.calls.replied(self.said):
                self.end(task, "done")
        assert len(self.ended) == len(self.tasks), "calls never end"
        assert not self.calls.inflight
        assert not self.calls.waiting()


ActorLife.TestCase.settings = settings(
    max_examples=100,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    database=None,
)
TestActorLife = ActorLife.TestCase
