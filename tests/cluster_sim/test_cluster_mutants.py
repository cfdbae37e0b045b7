"""The simulation notices broken rules: each mutant fails within a few lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from mray.node.head.actors import ActorTable
from mray.node.neighbours import Neighbours
from mray.node.sched.leases import Leases
from mray.ownership.rebuilding import Rebuilding
from mray.rpc.link import Link
from mray.runtime.copies import CopiesPart
from mray.runtime.tasks import TasksPart
from mray.tasks.dispatch import Dispatcher
from mray.wire import messages as m

from .lives import live

_LIVES = 60


@contextmanager
def changed(owner: type, name: str, wrapped: Callable[[Any], Any]) -> Iterator[None]:
    """A method replaced by what ``wrapped`` makes of it."""
    with patch.object(owner, name, wrapped(getattr(owner, name))):
        yield


def links_send_nothing_again() -> Any:
    """What a cut connection loses is lost."""
    return changed(Link, "_all_kept", lambda real: lambda link: [])


def a_dead_workers_tasks_are_forgotten() -> Any:
    def wrap(real: Any) -> Any:
        def worker_died(dispatcher: Dispatcher, worker_id: bytes, cause: Any) -> None:
            lease = dispatcher.by_worker.get(worker_id)
            if lease is not None:
                lease.inflight.clear()
            real(dispatcher, worker_id, cause)

        return worker_died

    return changed(Dispatcher, "worker_died", wrap)


def what_was_not_begun_is_begun_again_and_again() -> Any:
    """The retry is not charged, and the first copy of a task is not waited for."""

    def wrap(real: Any) -> Any:
        def push(part: TasksPart, lease: Any) -> None:
            out = list(lease.out)
            real(part, lease)
            for _ in range(25):
                lease.out = list(out)
                real(part, lease)

        return push

    return changed(TasksPart, "_push", wrap)


def leases_are_not_given_back() -> Any:
    return changed(Leases, "returned", lambda real: lambda *args: [])


def processes_hear_nothing_of_dead_nodes() -> Any:
    def wrap(real: Any) -> Any:
        def node_gone(neighbours: Neighbours, sender: bytes, message: m.NodeGone) -> None:
            peers, neighbours._peers = neighbours._peers, []  # type: ignore[assignment]
            try:
                real(neighbours, sender, message)
            finally:
                neighbours._peers = peers

        return node_gone

    return changed(Neighbours, "_node_gone", wrap)


def a_dead_workers_resources_stay_taken() -> Any:
    return changed(Leases, "_let_go", lambda real: lambda leases, hold: None)


def actors_of_dead_workers_live_on() -> Any:
    def wrap(real: Any) -> Any:
        def handle(table: ActorTable, event: Any, now: float) -> Any:
            if isinstance(getattr(event, "message", None), (m.ProcessDied, m.ActorStartFailed)):
                return []
            return real(table, event, now)

        return handle

    return changed(ActorTable, "handle", wrap)


def lost_values_are_not_made_again() -> Any:
    return changed(Rebuilding, "lost", lambda real: lambda *args: None)


def objects_are_freed_here_alone() -> Any:
    return changed(CopiesPart, "free_at", lambda real: lambda *args: None)


MUTANTS = [
    links_send_nothing_again,
    a_dead_workers_tasks_are_forgotten,
    what_was_not_begun_is_begun_again_and_again,
    leases_are_not_given_back,
    processes_hear_nothing_of_dead_nodes,
    a_dead_workers_resources_stay_taken,
    actors_of_dead_workers_live_on,
    lost_values_are_not_made_again,
    objects_are_freed_here_alone,
]


def _live_many() -> None:
    for seed in range(_LIVES):
        live(seed)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_a_broken_rule_is_noticed(mutant: Callable[[], Any]) -> None:
    with ExitStack() as stack:
        stack.enter_context(mutant())
        with pytest.raises(AssertionError):
            _live_many()
