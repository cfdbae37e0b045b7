"""Placement groups at the head: two phases, reasons, removal, lost nodes."""

from __future__ import annotations

import random
from typing import TypeVar

import pytest

from mray.node.head.events import (
    ActorGone,
    Effect,
    From,
    GroupEnded,
    GroupPlaced,
    JobEnded,
    NodeLost,
    NodeUp,
    RoomSeen,
    Send,
    Tick,
    ToNodes,
)
from mray.node.head.placement_groups import GroupTable
from mray.resources import to_fixed
from mray.wire.messages import (
    Ack,
    Address,
    BundlesReserved,
    CommitBundles,
    CreatePlacementGroup,
    DeathCause,
    GetPlacementGroups,
    GroupSpec,
    NodeInfo,
    PlacementGroups,
    PlacementGroupState,
    Refused,
    RemovePlacementGroup,
    ReserveBundles,
    ReturnBundles,
    WatchPlacementGroup,
)

A, B, C = b"a" * 28, b"b" * 28, b"c" * 28
DRIVER, JOB = b"driver", b"job1"
MessageT = TypeVar("MessageT")


def node(node_id: bytes, cpus: float = 4, labels: dict[str, str] | None = None) -> NodeInfo:
    return NodeInfo(
        node_id, Address(node_id, node_id), "ip", "host", 1, to_fixed({"CPU": cpus}),
        labels or {}, "", "", "", 0, node_id == A, "", "",
    )  # fmt: skip


def spec(word: str, *cpus: float, strategy: str = "PACK", **more: object) -> GroupSpec:
    return GroupSpec(
        word.encode().ljust(18), JOB, Address(DRIVER, A), strategy,
        [to_fixed({"CPU": cpu}) for cpu in cpus], **more,
    )  # type: ignore[arg-type] # fmt: skip


class Head:
    def __init__(self, *nodes: NodeInfo) -> None:
        self.table = GroupTable()
        self.now = 0.0
        self.last: list[Effect] = []
        for info in nodes:
            self.do(NodeUp(info))

    def do(self, event: object) -> list[Effect]:
        self.last = self.table.handle(event, self.now)
        self.table.check()
        return self.last

    def create(self, made: GroupSpec) -> list[Effect]:
        return self.do(From(DRIVER, CreatePlacementGroup(1, made)))

    def remove(self, made: GroupSpec) -> list[Effect]:
        return self.do(From(DRIVER, RemovePlacementGroup(2, made.group_id)))

    def sent(self, kind: type[MessageT]) -> list[tuple[bytes, MessageT]]:
        return [
            (effect.to, effect.message)
            for effect in self.last
            if isinstance(effect, Send) and isinstance(effect.message, kind)
        ]

    def reserved(self, made: GroupSpec, *nodes: bytes, attempt: int = 1) -> None:
        for node_id in nodes:
            self.do(From(node_id, BundlesReserved(made.group_id, attempt)))

    def state(self, made: GroupSpec) -> PlacementGroupState:
        self.do(From(DRIVER, GetPlacementGroups(3, group_id=made.group_id)))
        return self.sent(PlacementGroups)[0][1].groups[0]


def test_one_node_reserves_and_commits_at_once() -> None:
    head, made = Head(node(A)), spec("g", 1, 2)
    head.create(made)
    [(to, order)] = head.sent(ReserveBundles)
    assert (to, order.commit, order.bundles) == (A, True, dict(enumerate(made.bundles)))
    head.reserved(made, A)
    assert head.sent(CommitBundles) == []
    assert GroupPlaced(made.group_id, [A, A]) in head.last
    [(watcher, word)] = head.sent(PlacementGroupState)
    assert (watcher, word.state, word.nodes) == (DRIVER, "CREATED", [A, A])


def test_several_nodes_commit_only_when_all_have_reserved() -> None:
    head = Head(node(A), node(B))
    made = spec("g", 1, 1, strategy="STRICT_SPREAD")
    head.create(made)
    assert {(to, order.commit) for to, order in head.sent(ReserveBundles)} == {
        (A, False),
        (B, False),
    }
    head.reserved(made, A)
    assert head.last == []
    assert head.state(made).state == "PENDING"
    head.reserved(made, B)
    assert [to for to, _ in head.sent(CommitBundles)] == [A, B]
    assert head.state(made).state == "CREATED"


def test_what_is_reserved_is_given_up_when_the_rest_does_not_come_and_tried_again() -> None:
    head = Head(node(A), node(B))
    made = spec("g", 1, 1, strategy="STRICT_SPREAD")
    head.create(made)
    head.reserved(made, A)
    due = head.table.deadline()
    assert due is not None
    head.now = due
    head.do(Tick())
    assert {to for to, _ in head.sent(ReturnBundles)} == {A, B}
    again = head.table.deadline()
    assert again is not None
    assert again > due
    head.now = again
    head.do(Tick())
    assert [order.attempt for _, order in head.sent(ReserveBundles)] == [2, 2]
    head.reserved(made, A, B)  # Of the former attempt.
    assert {to for to, _ in head.sent(ReturnBundles)} == {B}
    assert head.state(made).state == "PENDING"


def test_what_no_number_of_these_nodes_can_hold_is_infeasible() -> None:
    head, made = Head(node(A)), spec("g", 1, 1, strategy="STRICT_SPREAD")
    head.create(made)
    assert head.sent(ReserveBundles) == []
    state = head.state(made)
    assert state.infeasible
    assert "needs 2 nodes" in state.reason


def test_pack_takes_one_node_that_has_room_for_all_and_the_makers_first() -> None:
    head = Head(node(B), node(A))
    head.create(spec("g", 2, 1))
    assert [to for to, _ in head.sent(ReserveBundles)] == [A]
    head.do(RoomSeen(A, to_fixed({"CPU": 1})))
    head.create(spec("h", 2, 1))
    assert [to for to, _ in head.sent(ReserveBundles)] == [B]


def test_a_node_that_drains_gets_no_bundles() -> None:
    head = Head(node(B), node(A))
    head.do(RoomSeen(A, to_fixed({"CPU": 4}), True))
    head.create(spec("g", 1))
    assert [to for to, _ in head.sent(ReserveBundles)] == [B]


def test_a_full_node_is_asked_and_says_when_there_is_room() -> None:
    head, made = Head(node(A)), spec("g", 4)
    head.do(RoomSeen(A, to_fixed({"CPU": 1})))
    head.create(made)
    assert len(head.sent(ReserveBundles)) == 1
    state = head.state(made)
    assert (state.state, state.infeasible, state.nodes) == ("PENDING", False, [b""])
    assert "4 CPU" in state.reason


def test_a_node_that_joins_makes_an_infeasible_group_possible() -> None:
    head, made = Head(node(A, 1)), spec("g", 2)
    head.create(made)
    assert head.state(made).infeasible
    head.do(NodeUp(node(B)))
    assert [to for to, _ in head.sent(ReserveBundles)] == [B]


def test_bundles_of_a_lost_node_are_placed_again_and_the_others_stay() -> None:
    head = Head(node(A), node(B))
    made = spec("g", 1, 1, strategy="STRICT_SPREAD")
    head.create(made)
    head.reserved(made, A, B)
    head.do(NodeLost(B, DeathCause("node_died")))
    state = head.state(made)
    assert (state.state, state.nodes) == ("RESCHEDULING", [A, b""])
    head.do(NodeUp(node(C)))
    [(to, order)] = head.sent(ReserveBundles)
    assert (to, list(order.bundles)) == (C, [1])
    head.reserved(made, C, attempt=order.attempt)
    assert head.state(made).nodes == [A, C]


def test_removal_tells_all_nodes_and_is_idempotent() -> None:
    head, made = Head(node(A)), spec("g", 1, name="n")
    head.create(made)
    head.reserved(made, A)
    head.do(From(b"other", WatchPlacementGroup(made.group_id)))
    head.remove(made)
    assert ToNodes(ReturnBundles(made.group_id)) in head.last
    assert GroupEnded(made.group_id) in head.last
    assert [to for to, _ in head.sent(PlacementGroupState)] == [b"other"]
    assert head.remove(made) == [Send(DRIVER, Ack(2))]
    head.create(spec("h", 1, name="n"))
    assert head.sent(Refused) == []


def test_a_late_reservation_of_a_removed_group_is_returned() -> None:
    head, made = Head(node(A)), spec("g", 1)
    head.create(made)
    head.remove(made)
    head.reserved(made, A)
    assert head.sent(ReturnBundles) == [(A, ReturnBundles(made.group_id))]


def test_a_name_is_taken_once_in_a_namespace() -> None:
    head = Head(node(A))
    head.create(spec("g", 1, name="n"))
    head.create(spec("h", 1, name="n"))
    assert "already" in head.sent(Refused)[0][1].text
    head.create(spec("i", 1, name="n", namespace="other"))
    assert head.sent(Refused) == []


def test_groups_end_with_their_job_but_for_detached_ones_and_those_of_detached_actors() -> None:
    head = Head(node(A))
    plain, kept, made = spec("p", 1), spec("k", 1, detached=True), spec("m", 1, actor_id=b"actor")
    for one in (plain, kept, made):
        head.create(one)
        head.reserved(one, A)
    head.do(JobEnded(JOB))
    assert [head.state(one).state for one in (plain, kept, made)] == [
        "REMOVED",
        "CREATED",
        "CREATED",
    ]
    head.do(ActorGone(b"actor"))
    assert head.state(made).state == "REMOVED"


def test_who_watches_a_group_that_nobody_makes_is_told_so() -> None:
    head = Head(node(A))
    assert head.do(From(DRIVER, WatchPlacementGroup(b"x" * 18))) == []
    due = head.table.deadline()
    assert due is not None
    head.now = due
    head.do(Tick())
    assert head.sent(PlacementGroupState)[0][1].state == "REMOVED"


def test_labels_choose_the_nodes_of_bundles() -> None:
    head = Head(node(A), node(B, labels={"zone": "1"}))
    head.create(spec("g", 1, selectors=[{"zone": "1"}]))
    assert [to for to, _ in head.sent(ReserveBundles)] == [B]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_the_table_agrees_with_itself(seed: int) -> None:
    draw = random.Random(seed)
    head = Head()
    made: list[GroupSpec] = []
    up: set[bytes] = set()
    for step in range(150):
        head.now += draw.random()
        roll = draw.random()
        if roll < 0.15:
            node_id = draw.choice((A, B, C))
            if node_id in up:
                up.discard(node_id)
                head.do(NodeLost(node_id, DeathCause("node_died")))
            else:
                up.add(node_id)
                head.do(NodeUp(node(node_id)))
        elif roll < 0.35:
            strategy = draw.choice(("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"))
            cpus = [draw.choice((1, 2, 5)) for _ in range(draw.randint(1, 3))]
            made.append(spec(f"g{step}", *cpus, strategy=strategy))
            head.create(made[-1])
        elif roll < 0.45 and made:
            head.remove(draw.choice(made))
        elif roll < 0.8 and made and up:
            chosen = draw.choice(made)
            attempt = max(1, head.state(chosen).attempts - (draw.random() < 0.2))
            refusal = "no" if draw.random() < 0.1 else ""
            reply = BundlesReserved(chosen.group_id, attempt, refusal)
            head.do(From(draw.choice(sorted(up)), reply))
        elif up and roll < 0.9:
            cpus_free = to_fixed({"CPU": draw.randint(0, 4)})
            head.do(RoomSeen(draw.choice(sorted(up)), cpus_free))
        else:
            head.do(Tick())
