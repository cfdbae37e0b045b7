"""Leases and nodes that turn out to be dead: nothing waits for what nobody will tell."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mray.runtime.leasing import LeasingPart
from mray.tasks.asked import HOME
from mray.tasks.dispatch import Demand, Dispatcher, ReturnLease
from mray.tasks.task import Task, Template
from mray.wire.messages import (
    Address,
    LeaseElsewhere,
    LeaseGranted,
    LeaseOverElsewhere,
    LeaseReturned,
    TaskTemplate,
)

OWN, OTHER = b"own", b"other"


class Owner:
    """A process that asks for leases, without a process."""

    def __init__(self) -> None:
        self.handlers: dict[type, Callable[[bytes, Any], None]] = {}
        self.woken = 0
        #: What was sent to whom.
        self.told: list[tuple[bytes, Any]] = []
        self.dispatcher = Dispatcher()
        self.class_id = self.dispatcher.class_of({"CPU": 1}, b"job1", b"")
        #: node_book.reach() of a node that is dead answers at once.
        self.rt: Any = SimpleNamespace(
            pump=SimpleNamespace(
                on=self.handlers.__setitem__, clock=lambda: 0.0, send=self._send
            ),
            on_node_gone=[],
            node=SimpleNamespace(node_id=OWN, address=Address(OWN, OWN)),
            tasks=SimpleNamespace(dispatcher=self.dispatcher),
            nodes=SimpleNamespace(reach=lambda node, told: told(node not in self.rt.dead_nodes)),
            mailbox=SimpleNamespace(wake=self.wake),
            dead_nodes={OTHER: object()},
            dead_processes={},
            reach=lambda node: node.node_id not in self.rt.dead_nodes,
            tell=lambda address, message: self._send(address.process_id, message),
        )
        self.part = LeasingPart(self.rt)
        wire = TaskTemplate(1, b"k", "f", 1, b"job1", {})
        template = Template(wire, self.class_id, 0)
        self.dispatcher.submit(Task(b"t" * 24, template, b"", [], [], []))

    def _send(self, receiver: bytes, message: Any) -> bool:
        self.told.append((receiver, message))
        return True

    def wake(self) -> None:
        self.woken += 1

    def turn(self) -> list[Any]:
        """A round: dispatch, then all effects; which those were."""
        self.dispatcher.dispatch(0.0)
        effects = self.dispatcher.take()
        for effect in effects:
            if isinstance(effect, Demand):
                self.part.demand(effect.class_id, effect.count, effect.node)
        return effects

    def hear(self, message: Any, sender: bytes = OWN) -> None:
        self.handlers[type(message)](sender, message)


@pytest.fixture
def owner() -> Owner:
    return Owner()


def test_a_demand_that_was_sent_to_a_dead_node_is_asked_again_in_a_round_of_its_own(
    owner: Owner,
) -> None:
    assert owner.turn() == [Demand(owner.class_id, 1)]
    owner.hear(LeaseElsewhere(owner.class_id, 1, Address(OTHER, OTHER)))
    assert owner.turn() == [Demand(owner.class_id, 1, OTHER)]
    # This round had dispatched before it knew: nothing else may come that would begin another.
    assert owner.woken == 1
    assert owner.turn() == [Demand(owner.class_id, 1)]


def test_a_grant_that_is_read_after_the_end_of_its_node_is_none(owner: Owner) -> None:
    owner.turn()
    owner.hear(LeaseGranted(owner.class_id, 1, Address(b"w", OTHER), 7), OTHER)
    assert owner.dispatcher.by_worker == {}
    owner.hear(LeaseGranted(owner.class_id, 2, Address(b"v", OWN), 8))
    assert list(owner.dispatcher.by_worker) == [b"v"]


def test_the_own_node_hears_what_is_free_again_where_it_sent_us(owner: Owner) -> None:
    needs = {"CPU": 1}
    owner.part.give_back(ReturnLease(1, True, OTHER, needs))
    owner.part.give_back(ReturnLease(2, False, OTHER))
    owner.part.give_back(ReturnLease(3, True))
    assert owner.told == [
        (OTHER, LeaseReturned(1)),
        (OWN, LeaseOverElsewhere(OTHER, needs)),
        (OTHER, LeaseReturned(2, False)),
        (OWN, LeaseReturned(3)),
    ]


@pytest.mark.parametrize("targets", [None, [OTHER]])
def test_leases_of_named_nodes_alone_are_free_again_by_the_owners_word(
    owner: Owner, targets: list[bytes] | None
) -> None:
    """Where its place was given nobody else judged by what was free."""
    sclass = owner.dispatcher.classes[owner.class_id]
    sclass.asked.targets = targets
    sclass.queue.clear()
    for lease_id, node in ((1, OTHER), (2, HOME)):
        worker = Address(b"w%d" % lease_id, node)
        owner.dispatcher.granted(owner.class_id, lease_id, worker, 7, 0.0, node)
    freed = {} if targets else sclass.resources
    away, home = owner.dispatcher.take()
    assert away == ReturnLease(1, True, OTHER, freed)
    assert home == ReturnLease(2, True)
