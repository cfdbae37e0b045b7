"""The simulation of nodes can fail: each rule of recovery, when broken, is noticed.

Every mutant is an owner with one rule broken. Some of the first seeds must end in a violation.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mray.ownership.entry import Entry
from mray.runtime.recovering import RecoveringPart

from .node_life import live_on_nodes
from .owner import Owner
from .world import Violation

SEEDS = 600


def arguments_are_not_kept(owner: Owner) -> None:
    """The lineage of a task keeps nothing of its arguments."""
    lineage = owner.references.lineage
    keep = lineage.keep
    lineage.keep = lambda task_id, task, size, inputs, returns: keep(  # type: ignore[method-assign]
        task_id, task, size, [], returns
    )


def arguments_are_not_held(owner: Owner) -> None:
    """What is made for a job may go before the job runs."""
    real = owner.references
    owner.recovering.rebuilding._references = SimpleNamespace(  # type: ignore[assignment]
        hold=lambda entry: real.hold(entry) or real.release(entry), release=lambda entry: None
    )


def arguments_do_not_come_first(owner: Owner) -> None:
    """Arguments whose values went are taken for being there."""
    rebuilding = owner.recovering.rebuilding
    real = rebuilding._lose

    def lose(*args: Any) -> Any:
        jobs = real(*args)
        for job in jobs:
            job.missing = []
        return jobs

    rebuilding._lose = lose  # type: ignore[method-assign]


def running_again_is_free(owner: Owner) -> None:
    """No retry is charged."""
    rebuilding = owner.recovering.rebuilding
    real = rebuilding._lose

    def lose(*args: Any) -> Any:
        jobs = real(*args)
        for job in jobs:
            job.task.retries_left += job.task.retries_left >= 0
        return jobs

    rebuilding._lose = lose  # type: ignore[method-assign]


def all_at_once(owner: Owner) -> None:
    """As many run again as are lost."""
    owner.recovering.rebuilding.parallel_max = 1000


def ends_are_missed(owner: Owner) -> None:
    """Nobody notices that a task has run again."""
    owner.recovering.rebuilding.ended = lambda task_id, pending=(): None  # type: ignore[method-assign]


def lineage_stays(owner: Owner) -> None:
    """The lineage of what is gone is kept."""
    owner.references.lineage.close = lambda entry: []  # type: ignore[method-assign]


def copies_are_no_use(owner: Owner) -> None:
    """Further copies are not used when the primary one is gone."""
    owner.recovering.locations.promote = lambda entry, but=(): None  # type: ignore[method-assign]


def copies_are_not_freed(owner: Owner) -> None:
    """Freeing does not reach further copies."""
    owner.recovering.locations.forget = lambda object_id: []  # type: ignore[method-assign]


def surplus_stays(owner: Owner) -> None:
    """Results that were made once too often stay where they are."""
    owner.recovering.copies.discard = lambda object_id, made: None  # type: ignore[method-assign]


def evicted_without_need(owner: Owner) -> None:
    """The cap is far too small."""
    owner.references.lineage.max_bytes = 1500


class BelievesReaders(RecoveringPart):
    """What a reader did not find is lost."""

    def _look(self, entry: Entry, reason: str) -> None:
        entry.ready = False
        self.lost([entry], reason)


class BelievesNodes(RecoveringPart):
    """A node's word about a former copy is taken for the present one."""

    def doubt(self, node_id: bytes, entries: list[Entry], loss: str) -> None:
        self.lost(entries, loss)


class FailsWhatMayTurnUp(RecoveringPart):
    """When a task fails, all its returns that are not ready get the error."""

    def failed(self, task: Any, error: bytes) -> bool:
        job = self.rebuilding.jobs.get(task.task_id)
        if job is not None:
            job.wanted = {entry.object_id: entry for entry in task.returns}
        return super().failed(task, error)


class TrustsDeadNodes(RecoveringPart):
    """Nobody heeds the death of a node."""

    def _node_gone(self, message: Any) -> None:
        return None


@pytest.mark.parametrize(
    "change",
    [
        arguments_are_not_kept, arguments_are_not_held, arguments_do_not_come_first,
        running_again_is_free, all_at_once, ends_are_missed, lineage_stays, copies_are_no_use,
        copies_are_not_freed, surplus_stays, evicted_without_need, BelievesReaders, BelievesNodes,
        FailsWhatMayTurnUp, TrustsDeadNodes,
    ],
)  # fmt: skip
def test_a_broken_rule_of_recovery_is_noticed(change: Callable[..., Any]) -> None:
    broken = {"recovering_type": change} if isinstance(change, type) else {"change": change}

    def lives() -> None:
        for seed in range(SEEDS):
            live_on_nodes(seed, **broken)  # type: ignore[arg-type]

    with pytest.raises(Violation, match="seed "):
        lives()
