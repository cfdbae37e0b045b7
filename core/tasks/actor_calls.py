"""Calls of one actor, from one caller, in order.

Machine. Owns the calls not yet sent, those in flight, and what the caller knows of the actor:

    PENDING -> ALIVE -> RESTARTING -> ALIVE ...     any -> DEAD (final)

Calls leave in the order they were made: one that waits for an argument holds back those behind it.
Calls that need no order (Template.unordered) wait for their arguments aside, and are queued then.
A call in flight when its incarnation ends is sent again if retries are left, else it fails with the
head's verdict; until the verdict (the death notice of the worker comes first) it waits. Calls not
sent yet are kept over a restart free of charge.

Incarnations are numbered from 0 and each is first PENDING or RESTARTING, then ALIVE: what is older
than what we know is ignored, and so is ALIVE of one whose worker we know to be dead.
"""

from __future__ import annotations

from collections import deque

import msgspec

from mray.machine import InvariantError
from mray.tasks.task import Task
from mray.wire.messages import ActorState, Address, TaskReply


class FailCall(msgspec.Struct, frozen=True):
    """The call is over. ``kind``: died, unavailable or cancelled; ``state`` is the evidence."""

    task: Task
    kind: str
    state: ActorState


class ActorCalls:
    """See the module."""

    __slots__ = (
        "actor_id",
        "aside",
        "class_name",
        "effects",
        "incarnation",
        "inflight",
        "known",
        "lost_incarnation",
        "out",
        "queue",
        "seq",
        "state",
        "verdict",
        "worker",
    )

    def __init__(self, actor_id: bytes, class_name: str) -> None:
        self.actor_id = actor_id
        self.class_name = class_name
        self.state = "PENDING"
        self.incarnation = -1
        #: The last one whose worker died before the head said so.
        self.lost_incarnation = -1
        self.worker: Address | None = None
        #: Not sent yet, in call order.
        self.queue: deque[Task] = deque()
        #: Not queued yet: they wait for arguments and may be overtaken. By task id.
        self.aside: dict[bytes, Task] = {}
        #: Sent and not answered, in call order.
        self.inflight: dict[bytes, Task] = {}
        #: To be sent now; each is in inflight already.
        self.out: list[Task] = []
        #: Templates the present worker has been told.
        self.known: set[int] = set()
        self.seq = 0
        #: The last word of the head.
        self.verdict: ActorState | None = None
        self.effects: list[FailCall] = []

    def take(self) -> list[FailCall]:
        """The effects since the last call."""
        effects, self.effects = self.effects, []
        return effects

    def submit(self, task: Task) -> None:
        """A call; its arguments may still be unresolved."""
        if self.state == "DEAD":
            assert self.verdict is not None
            self.effects.append(FailCall(task, "died", self.verdict))
        elif self.state == "RESTARTING" and task.retries_left == 0:
            assert self.verdict is not None
            self.effects.append(FailCall(task, "unavailable", self.verdict))
        elif task.unresolved and task.template.unordered:
            self.aside[task.task_id] = task
        else:
            self.queue.append(task)

    def resolved(self, task: Task) -> None:
        """The arguments of a call that waited for them are there."""
        if self.aside.pop(task.task_id, None) is not None:
            self.queue.append(task)

    def waiting(self) -> int:
        """How many calls were not sent."""
        return len(self.queue) + len(self.aside)

    def advance(self) -> bool:
        """Move what may be sent to ``out``; whether there is anything."""
        if self.state == "ALIVE":
            queue, out, inflight = self.queue, self.out, self.inflight
            seq = self.seq
            while queue and not queue[0].unresolved:
                task = queue.popleft()
                task.seq = seq
                seq += 1
                inflight[task.task_id] = task
                out.append(task)
            self.seq = seq
            return bool(out)
        return False

    def replied(self, replies: list[TaskReply]) -> list[tuple[Task, TaskReply]]:
        """Answers of the worker; the finished calls."""
        done = []
        pop = self.inflight.pop
        for reply in replies:
            task = pop(reply.task_id, None)
            if task is not None:
                done.append((task, reply))
        return done

    def cancel_queued(self, task: Task) -> bool:
        """Take back a call that was not sent; whether it was there."""
        if self.aside.pop(task.task_id, None) is not None:
            return True
        try:
            self.queue.remove(task)
        except ValueError:
            return False
        return True

    def cancel(self, task: Task) -> bool:
        """Never send the call (again). True: it is over; False: the actor has it and must be told,
        or if it has died, the call is over with the head's verdict."""
        task.cancelled = True
        if task in self.out:
            self.out.remove(task)
            del self.inflight[task.task_id]
            return True
        return task.task_id not in self.inflight and self.cancel_queued(task)

    def forgotten(self, task_ids: list[bytes]) -> list[Task]:
        """Cancelled calls that the actor had not begun and never will: they are over."""
        return [task for task_id in task_ids if (task := self.inflight.pop(task_id, None))]

    def disconnected(self) -> None:
        """The worker is dead; the head will say what becomes of the actor."""
        if self.state == "ALIVE":
            self.lost_incarnation = self.incarnation
            self.state = "PENDING"
            self.worker = None
            unsent = [self.inflight.pop(task.task_id) for task in self.out]
            self.out.clear()
            self.queue.extendleft(reversed(unsent))

    def changed(self, state: ActorState) -> None:
        """The head's word. Older incarnations' words are ignored."""
        if self.state == "DEAD" or state.incarnation < self.incarnation:
            return
        if state.incarnation == self.incarnation and (
            (self.state == "ALIVE" and state.state in ("PENDING", "RESTARTING"))
            or (state.state == "ALIVE" and state.incarnation == self.lost_incarnation)
        ):
            return
        self.verdict = state
        if state.incarnation > self.incarnation or state.state == "DEAD":
            if self.inflight:
                self._end_incarnation(state)
            self.known = set()
            self.seq = 0
        self.state = state.state
        self.incarnation = state.incarnation
        self.worker = state.worker if state.state == "ALIVE" else None
        if state.state == "DEAD":
            for task in (*self.queue, *self.aside.values()):
                self.effects.append(FailCall(task, "died", state))
            self.queue.clear()
            self.aside.clear()

    def _end_incarnation(self, state: ActorState) -> None:
        again: list[Task] = []
        unsent = {id(task) for task in self.out}
        for task in self.inflight.values():
            if task.cancelled:
                self.effects.append(FailCall(task, "cancelled", state))
            elif state.state == "DEAD":
                self.effects.append(FailCall(task, "died", state))
            elif id(task) in unsent:
                again.append(task)
            elif task.retries_left != 0:
                task.retries_left -= 1
                task.attempt += 1
                again.append(task)
            else:
                self.effects.append(FailCall(task, "unavailable", state))
        self.inflight.clear()
        self.out.clear()
        self.queue.extendleft(reversed(again))

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        who = f"actor {self.actor_id.hex()}"
        if self.state == "DEAD" and (self.queue or self.aside or self.inflight):
            raise InvariantError(f"{who} is dead and has calls")
        if (self.state == "ALIVE") != (self.worker is not None):
            raise InvariantError(f"{who} is {self.state} with the worker {self.worker}")
        if self.out and self.state != "ALIVE":
            raise InvariantError(f"{who} is {self.state} and calls leave for it")
        for task in self.out:
            if task.task_id not in self.inflight:
                raise InvariantError(f"call {task.task_id.hex()} leaves without being in flight")
        numbers = [task.seq for task in self.inflight.values()]
        if numbers != sorted(set(numbers)):
            raise InvariantError(f"{who}: calls in flight out of order: {numbers}")
        queued = {task.task_id for task in self.queue}
        if queued & self.inflight.keys() or queued & self.aside.keys():
            raise InvariantError(f"{who}: a call is in two places")
        if any(not task.template.unordered for task in self.aside.values()):
            raise InvariantError(f"{who}: a call that has its place in the order waits aside")
