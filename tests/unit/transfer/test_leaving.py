"""What a draining node gives away, and who takes it: messages in, messages out."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from mray.node.sched.cluster_view import ClusterView
from mray.node.transfer.leaving import Leaving
from mray.wire import messages as m
from tests.unit.transfer.transfer_rig import (
    ME,
    OWNER,
    SIZE,
    WORKER,
    A,
    B,
    Node,
    X,
    info,
)

Y = b"y" * 28


class Leaver(Node):
    """A node that may drain, beside two others."""

    def __init__(self, base: str) -> None:
        super().__init__(base)
        self.pump.every = lambda period_s, call: call  # type: ignore[attr-defined]
        self.view = ClusterView(info(ME))
        self.view.joined([info(A), info(B)])
        self.view.nodes[A].store_used_bytes = 100
        self.leaving = Leaving(self.pump, self.server, self.transfer, self.view)  # type: ignore[arg-type]
        self.transfer.handlers.update(self.leaving.handlers)

    def keep(self, object_id: bytes, owner: m.Address) -> None:
        """A task here makes an object of somebody elsewhere."""
        self.tell(WORKER, m.CreateObject(1, object_id, SIZE, owner.process_id, False, owner))
        self.tell(WORKER, m.SealObject(object_id))

    def drain(self) -> None:
        self.leaving.begin(30.0)
        self.pump.now += 2.0
        self.leaving._look()


@pytest.fixture
def node() -> Iterator[Leaver]:
    base = tempfile.mkdtemp(prefix="leaving-test-", dir="/dev/shm")
    node = Leaver(base)
    yield node
    node.memory.close()
    node.transfer.close()
    node.server.close()
    shutil.rmtree(base)


def test_objects_are_offered_to_the_emptiest_node_and_the_owner_is_told_in_order(
    node: Leaver,
) -> None:
    node.keep(X, OWNER)
    assert not node.leaving.busy()
    node.drain()
    assert node.leaving.busy()
    [(to, offer, answer)] = node.pump.asked
    assert to == B
    assert offer == m.AdoptCopies(7, [X], [m.Source(OWNER, SIZE, [ME])])
    node.pump.sent.clear()
    answer(m.CopiesAdopted(7, []))
    assert node.pump.sent == [
        (OWNER.process_id, m.CopyMade([X], B)),
        (OWNER.process_id, m.CopyGone([X], ME, "its node drains")),
    ]
    assert not node.leaving.busy()
    assert node.tell(OWNER.process_id, m.PromoteCopies(3, [X])) == [
        (OWNER.process_id, m.PromotedCopies(3, [X]))
    ]


def test_what_was_just_made_waits_until_its_owner_may_have_heard_of_it(node: Leaver) -> None:
    node.keep(X, OWNER)
    node.leaving.begin(30.0)
    assert node.pump.asked == []
    assert node.leaving.busy()


def test_what_nobody_takes_is_offered_once_more_and_left(node: Leaver) -> None:
    node.keep(X, OWNER)
    node.drain()
    for number in range(2):
        node.pump.asked[number][2](m.CopiesAdopted(7, [X]))
        node.leaving._look()
    assert len(node.pump.asked) == 2
    assert not node.leaving.busy()


def test_objects_of_owners_here_and_copies_of_others_stay(node: Leaver) -> None:
    node.keep(X, m.Address(b"here" + ME[4:], ME, "", "10.0.0.1:1"))
    node.tell(WORKER, m.FetchObjects([Y], [m.Source(OWNER, SIZE, [A])], 2))
    node.come(0, 1, 2)
    node.drain()
    assert node.pump.asked == []
    assert not node.leaving.busy()


def test_alone_there_is_nobody_to_give_to(node: Leaver) -> None:
    node.keep(X, OWNER)
    for other in (A, B):
        node.view.nodes[other].draining = True
    node.drain()
    assert node.pump.asked == []
    assert not node.leaving.busy()


def test_the_taker_answers_when_all_have_come_and_keeps_them(node: Leaver) -> None:
    source = m.Source(OWNER, SIZE, [A])
    assert node.tell(A, m.AdoptCopies(9, [X], [source])) == []
    sent = node.come(0, 1, 2)
    assert (A, m.CopiesAdopted(9, [])) in sent
    [copy] = node.server.store.copies()
    assert copy.further is None


def test_the_taker_says_what_did_not_come(node: Leaver) -> None:
    node.tell(A, m.AdoptCopies(9, [X], [m.Source(OWNER, SIZE, [A])]))
    node.hear(A, m.ChunksRefused(1, [], "gone"))
    node.pump.sent.clear()
    node.pump.asked[0][2](m.ObjectsLocated(7, [[]]))
    assert node.pump.sent == [(A, m.CopiesAdopted(9, [X]))]
