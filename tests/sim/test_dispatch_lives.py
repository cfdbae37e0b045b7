"""Many lives of an owner's dispatcher, each from its own seed; and each rule, broken, is noticed.

MRAY_SIM_SEEDS=N runs N of them in place of 400. A failure names its seed; ``live(seed)`` in
dispatch_life.py repeats it exactly.
"""

from __future__ import annotations

import os

import pytest

from mray.tasks.dispatch import Dispatcher
from mray.tasks.lease import Lease
from mray.tasks.task import Task
from mray.wire.messages import Address, TaskReply

from .dispatch_life import live
from .dispatching import Violation, World

SEEDS = int(os.environ.get("MRAY_SIM_SEEDS", "400"))
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_tasks_end_once_and_wait_for_a_reason_only(part: int) -> None:
    for seed in range(part, SEEDS, PARTS):
        live(seed)


def test_lives_meet_what_they_are_about() -> None:
    """Workers that died or left, tasks that were taken back, cancelled, failed."""
    taken_back = 0

    class Counting(Dispatcher):
        def replied(
            self, worker_id: bytes, replies: list[TaskReply], returned: list[bytes],
            blocked: bool, exiting: bool, now: float,
        ) -> list[tuple[Task, TaskReply]]:  # fmt: skip
            nonlocal taken_back
            taken_back += bool(returned) and not (blocked or exiting)
            return super().replied(worker_id, replies, returned, blocked, exiting, now)

    worlds: list[World] = [live(seed, Counting) for seed in range(60)]
    ends = [end for world in worlds for end in world.ended.values()]
    assert {end: ends.count(end) > 30 for end in ends} == {
        "done": True, "cancelled": True, "failed": True,
    }  # fmt: skip
    assert sum(w.dead for world in worlds for w in world.workers.values()) > 20
    assert taken_back > 50


class StaleAnswer(Dispatcher):
    """An empty answer to a steal is believed of what was sent after the question, too."""

    def replied(
        self, worker_id: bytes, replies: list[TaskReply], returned: list[bytes],
        blocked: bool, exiting: bool, now: float,
    ) -> list[tuple[Task, TaskReply]]:  # fmt: skip
        lease = self.by_worker.get(worker_id)
        done = super().replied(worker_id, replies, returned, blocked, exiting, now)
        if lease is not None and not (replies or returned or blocked or exiting):
            lease.barren = True
        return done


class BlockedForEver(Dispatcher):
    """A worker whose task has waited in get is given nothing more."""

    def replied(
        self, worker_id: bytes, replies: list[TaskReply], returned: list[bytes],
        blocked: bool, exiting: bool, now: float,
    ) -> list[tuple[Task, TaskReply]]:  # fmt: skip
        lease = self.by_worker.get(worker_id)
        was_blocked = lease is not None and lease.blocked
        done = super().replied(worker_id, replies, returned, blocked, exiting, now)
        if lease is not None and was_blocked:
            lease.blocked = True
        return done


class NobodyLooksAgain(Dispatcher):
    """A task that turns out long is not noticed unless something else happens."""

    def _due(self, lease: Lease) -> float | None:
        return None if lease.inflight else super()._due(lease)


class NotForStuckTasks(Dispatcher):
    """A worker that was asked for because tasks are stuck is sent back: none is in the queue."""

    def granted(
        self, class_id: int, lease_id: int, worker: Address, pid: int, now: float, node: bytes = b""
    ) -> None:
        sclass = self.classes[class_id]
        leases = list(sclass.leases)
        if not sclass.queue:
            sclass.leases.clear()
        super().granted(class_id, lease_id, worker, pid, now, node)
        if not sclass.queue:
            sclass.leases[:] = leases


class ReturnedBeforeTheAnswer(Dispatcher):
    """A lease goes back while its worker is still asked for tasks."""

    def _due(self, lease: Lease) -> float | None:
        lease.stealing = False
        return super()._due(lease)


class AskedForAgain(Dispatcher):
    """A worker that never answered is asked no more, and what it has stays there."""

    def _steal_for(self, sclass: object, now: float) -> None:
        for lease in self.by_worker.values():
            lease.stealing = lease.stealing or lease.steal_seq > 0
        super()._steal_for(sclass, now)  # type: ignore[arg-type]


MUTANTS = [
    StaleAnswer, BlockedForEver, NobodyLooksAgain, NotForStuckTasks, ReturnedBeforeTheAnswer,
    AskedForAgain,
]  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_rule_is_noticed(mutant: type[Dispatcher]) -> None:
    for seed in range(SEEDS):
        try:
            live(seed, mutant)
        except Violation:
            return
    pytest.fail(f"{mutant.__doc__} And nobody noticed")
