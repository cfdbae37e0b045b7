"""Which of the leases that a node is asked for are better asked of another."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mray.node.sched.cluster_view import DEBIT_S, ClusterView
from mray.node.sched.effects import Send
from mray.node.sched.elsewhere import Elsewhere
from mray.node.sched.holds import Holds
from mray.node.sched.lines import Line
from mray.node.sched.moving import Moving
from mray.node.workers.pool import Key
from mray.placement import Where
from mray.resources import Resources, fits, take, to_fixed
from mray.wire.messages import Address, ClusterNews, DeathCause, NodeInfo, NodeNews

A, B, C = b"a" * 28, b"b" * 28, b"c" * 28
CPU = to_fixed({"CPU": 1})


def info(node_id: bytes, labels: dict[str, str] | None = None, **amounts: float) -> NodeInfo:
    return NodeInfo(
        node_id, Address(node_id, node_id), "1.2.3.4", "host", 1, to_fixed(amounts or {"CPU": 4}),
        labels or {}, "", "", "", 0, False, "1", "3",
    )  # fmt: skip


def line(need: Resources = CPU, where: Where | None = None) -> Line:
    made = Line(1, b"owner", 1, Key(b"job"), need, need, "f()")
    made.where = where
    return made


class Node:
    """Node A as it sees B and C."""

    def __init__(self, *others: NodeInfo, own: NodeInfo | None = None) -> None:
        own = own or info(A)
        self.view = ClusterView(own)
        self.view.joined(others)
        self.elsewhere = Elsewhere(self.view)
        self.total = dict(own.resources)
        self.free = dict(own.resources)

    def move(self, count: int, one: Line | None = None, now: float = 0.0) -> dict[bytes, int]:
        moves = self.elsewhere.move(one or line(), count, self.free, self.total, now)
        self.view.check()
        return {move.node.info.node_id: move.leases for move in moves}

    def told(self, node_id: bytes, cpus: float, **more: object) -> None:
        news = NodeNews(node_id, to_fixed({"CPU": cpus}), **more)  # type: ignore[arg-type]
        self.view.news(ClusterNews([news]))


def test_alone_nothing_goes_anywhere() -> None:
    assert Node().move(100) == {}


def test_this_node_is_packed_to_one_half_and_then_the_emptiest_gets_more() -> None:
    node = Node(info(B), info(C))
    assert node.move(2) == {}
    assert node.free["CPU"] == to_fixed({"CPU": 2})["CPU"]
    assert node.move(2) == {B: 1, C: 1}


def test_what_no_node_has_room_for_waits_here() -> None:
    node = Node(info(B, CPU=1))
    assert node.move(100) == {B: 1}
    assert node.move(100) == {}


def test_what_was_sent_counts_until_news_comes_or_for_a_second() -> None:
    node = Node(info(B))
    node.free = {"CPU": 0}
    assert node.move(4) == {B: 4}
    assert node.move(4) == {}
    node.told(B, 1)
    assert node.move(4) == {B: 1}
    assert node.move(4, now=5.0) == {B: 1}


def test_nodes_that_had_no_room_or_drain_or_are_gone_are_not_named() -> None:
    node = Node(info(B), info(C))
    node.free = {"CPU": 0}
    one = line()
    one.avoid = (B,)
    assert node.move(1, one) == {C: 1}
    node.told(C, 4, draining=True)
    assert node.move(1, one) == {}
    assert node.view.left(B, DeathCause("node_died"))
    assert not node.view.left(B, DeathCause("node_died"))
    assert node.move(1) == {}


def test_a_node_that_drains_sends_all_away() -> None:
    node = Node(info(B))
    node.view.nodes[A].draining = True
    moves = node.elsewhere.move(line(), 9, node.free, node.total, 0.0)
    assert [(move.leases, move.stay) for move in moves] == [(9, True)]


def test_what_only_another_node_can_ever_have_goes_there_for_good() -> None:
    node = Node(info(B, CPU=1, GPU=1), info(C))
    need = to_fixed({"CPU": 1, "GPU": 1})
    moves = node.elsewhere.move(line(need), 7, node.free, node.total, 0.0)
    assert [(move.node.info.node_id, move.leases, move.stay) for move in moves] == [(B, 7, True)]


def test_what_several_others_can_have_goes_to_those_with_room() -> None:
    node = Node(info(B, GPU=1), info(C, GPU=2))
    assert node.move(5, line(to_fixed({"GPU": 1}))) == {B: 1, C: 2}


def test_spread_takes_all_nodes_in_turn() -> None:
    node = Node(info(B), info(C))
    spread = line(where=Where(spread=True))
    assert node.move(3, spread) == {B: 1, C: 1}
    assert node.move(6, spread) == {B: 2, C: 2}


def test_where_most_of_the_arguments_are_is_preferred_while_there_is_room() -> None:
    node = Node(info(B, CPU=1), info(C))
    assert node.move(2, line(where=Where(prefer=B))) == {B: 1}


def test_soft_affinity_waits_for_its_node_and_falls_back_where_there_is_none() -> None:
    node = Node(info(B, CPU=1), info(C))
    soft = Where(node_id=B, soft=True)
    assert node.move(3, line(where=soft)) == {B: 3}
    big = to_fixed({"CPU": 2})
    assert node.move(1, line(big, soft)) == {}
    assert node.free["CPU"] == to_fixed({"CPU": 2})["CPU"]
    assert node.move(3, line(where=Where(node_id=A, soft=True))) == {}


def test_labels_choose() -> None:
    node = Node(info(B, {"zone": "1"}), info(C, {"zone": "2"}))
    assert node.move(2, line(where=Where(labels={"zone": ("in", ["2"])}))) == {C: 2}
    nowhere = line(where=Where(labels={"zone": ("in", ["9"])}))
    assert node.move(2, nowhere) == {}
    assert not node.elsewhere.possible(nowhere, node.total)
    assert "zone in (9)" in node.elsewhere.why_not(nowhere, node.total, "aa")
    soft = line(where=Where(soft_labels={"zone": ("in", ["2"])}))
    assert node.move(1, soft) == {C: 1}


def test_whether_any_node_can_ever_is_known() -> None:
    node = Node(info(B, GPU=1))
    assert node.elsewhere.possible(line(to_fixed({"GPU": 1})), node.total)
    two = line(to_fixed({"GPU": 2}))
    assert not node.elsewhere.possible(two, node.total)
    assert "nor can any of the 1 other nodes" in node.elsewhere.why_not(two, node.total, "aa")


AMOUNTS = st.fixed_dictionaries({}, optional={"CPU": st.integers(0, 8), "GPU": st.integers(0, 4)})


@given(
    st.lists(AMOUNTS, max_size=5), AMOUNTS, AMOUNTS, st.integers(1, 40), st.booleans(),
    st.data(),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_nobody_is_sent_more_than_fits_and_nothing_is_lost(
    others: list[dict[str, int]], own: dict[str, int], need: dict[str, int], count: int,
    spread: bool, data: st.DataObject,
) -> None:  # fmt: skip
    infos = [info(bytes([i + 1]) * 28, **amounts or {"x": 1}) for i, amounts in enumerate(others)]
    node = Node(*infos, own=info(A, **own or {"x": 1}))
    for other in infos:
        amounts = {name: data.draw(st.integers(0, n)) for name, n in other.resources.items()}
        node.view.news(ClusterNews([NodeNews(other.node_id, amounts)]))
    one = line(to_fixed(need), Where(spread=True) if spread else None)
    before = {n.info.node_id: dict(n.available) for n in node.view.others()}
    moves = node.elsewhere.move(one, count, node.free, node.total, 0.0)
    assert sum(move.leases for move in moves) <= count
    for move in moves:
        assert move.leases > 0
        assert move.node.info.node_id != A
        assert fits(one.need, move.node.total)
        if move.stay:
            continue
        room = before[move.node.info.node_id]
        for _ in range(move.leases):
            assert fits(one.need, room)
            take(one.need, room)
    assert all(amount >= 0 for amount in node.free.values())


def test_room_that_an_owner_gave_back_is_there_before_the_news_of_it() -> None:
    node = Node(info(B, CPU=2), info(C, CPU=2), own=info(A, CPU=1))
    spread = line(where=Where(spread=True))
    assert sum(node.move(5, spread).values()) == 4
    node.view.lease_over(B, CPU)
    node.view.lease_over(C, CPU)
    assert node.move(5, spread, now=0.01) == {B: 1, C: 1}
    # With news that was of the time when all was lent.
    node.told(B, 0)
    assert node.move(5, spread, now=0.02) == {}
    node.view.lease_over(B, CPU)
    assert node.move(5, spread, now=0.03) == {B: 1}


def test_no_more_is_given_back_than_a_node_has() -> None:
    node = Node(info(B, CPU=1), own=info(A, CPU=1))
    node.view.lease_over(B, to_fixed({"CPU": 7, "gold": 1}))
    node.view.lease_over(A, CPU)
    node.view.lease_over(C, CPU)
    assert node.view.nodes[B].available == to_fixed({"CPU": 1})
    assert node.move(3) == {B: 1}


def test_old_news_of_a_node_that_drains_do_not_tell_it_that_it_does_not() -> None:
    node = Node(info(B))
    node.view.nodes[A].draining = True
    node.told(A, 4, draining=False)
    node.told(B, 4, draining=True)
    assert [node.view.nodes[one].draining for one in (A, B)] == [True, True]


def test_a_view_that_contradicts_itself_is_noticed() -> None:
    node = Node(info(B))
    node.view.gone[B] = DeathCause("node_died")
    with pytest.raises(Exception, match="lives and is gone"):
        node.view.check()


def test_room_is_looked_for_again_when_what_was_sent_is_forgotten_without_news() -> None:
    """A node that took a lease and has it back between two heartbeats has no news to tell."""
    node = Node(info(B, CPU=1), own=info(A, CPU=1))
    one = line()
    moving = Moving(node.elsewhere, Holds(dict(CPU)), "A")
    one.count = 1
    assert len(moving.move([one], {}, {}, now=10.0)) == 1
    one.count = 1
    assert moving.move([one], {}, {}, now=10.5) == []
    assert moving.deadline([one]) == 10.0 + DEBIT_S
    [sent] = moving.move([one], {}, {}, now=10.0 + DEBIT_S)
    assert isinstance(sent, Send)
    # Nobody waits: there is nothing to look for.
    assert moving.deadline([]) is None
