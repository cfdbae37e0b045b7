"""What an owner has asked of which node: its own first, others when named, back if they refuse."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.machine import InvariantError
from mray.tasks.asked import HOME, Asked

X, Y = b"x", b"y"


def test_the_own_node_is_asked_first_and_again_by_factors_of_two() -> None:
    asked = Asked()
    assert asked.revise(3) == [(HOME, 3)]
    assert asked.revise(5) == []
    assert asked.revise(7) == [(HOME, 7)]
    assert asked.revise(0) == [(HOME, 0)]
    assert asked.revise(0) == []


def test_what_the_own_node_moves_is_asked_there() -> None:
    asked = Asked()
    asked.revise(5)
    assert asked.moved(X, 2, stay=False) == [(X, 2)]
    assert asked.moved(X, 2, stay=True) == [(X, 4)]
    assert asked.staying == {X}
    assert (asked.home, asked.total) == (1, 5)
    assert asked.moved(Y, 9, stay=False) == [(Y, 1)]
    assert asked.moved(Y, 1, stay=False) == []


def test_less_is_taken_back_from_other_nodes_too() -> None:
    asked = Asked()
    asked.revise(6)
    asked.moved(X, 4, stay=True)
    assert asked.revise(2) == [(X, 2), (HOME, 0)]
    assert asked.revise(0) == [(X, 0)]
    assert asked.staying == set()


def test_a_node_without_room_is_avoided_ever_longer_and_its_part_comes_home() -> None:
    asked = Asked()
    asked.revise(4)
    asked.moved(X, 3, stay=False)
    asked.refused(X, 10.0)
    assert asked.avoid(10.1) == [X]
    assert asked.avoid(10.3) == []
    assert asked.revise(4) == [(HOME, 4)]
    asked.moved(X, 1, stay=False)
    asked.refused(X, 20.0)
    assert asked.avoid(20.3) == [X]
    asked.granted(X)
    assert asked.avoid(20.3) == []


def test_the_own_node_hears_of_a_refusal_even_if_the_number_hardly_changes() -> None:
    asked = Asked()
    asked.revise(4)
    asked.moved(X, 1, stay=False)
    asked.refused(X, 0.0)
    assert asked.revise(4) == [(HOME, 4)]


def test_the_own_node_is_told_when_it_may_name_a_node_again() -> None:
    asked = Asked()
    asked.revise(2)
    asked.moved(X, 2, stay=False)
    asked.refused(X, 10.0)
    assert asked.relents_at() is None  # It has not been told.
    asked.revise(2)
    assert asked.avoid(10.0) == [X]
    assert asked.relents_at() == 10.2
    assert asked.avoid(10.2) == []
    assert asked.relents_at() is None


def test_targets_alone_are_asked_each_for_all() -> None:
    asked = Asked()
    asked.targets = []
    assert asked.revise(3) == []
    asked.targets = [X, HOME]
    assert sorted(asked.revise(3)) == [(HOME, 3), (X, 3)]
    asked.targets = [Y]
    assert sorted(asked.revise(3)) == [(HOME, 0), (X, 0), (Y, 3)]
    assert asked.moved(X, 3, stay=False) == []


def test_a_dead_node_owes_nothing() -> None:
    asked = Asked()
    asked.revise(4)
    asked.moved(X, 3, stay=True)
    assert asked.gone(X)
    assert not asked.gone(X)
    assert asked.revise(4) == [(HOME, 4)]


def test_contradictions_are_found() -> None:
    asked = Asked()
    asked.staying.add(X)
    with pytest.raises(InvariantError, match="stay"):
        asked.check()
    asked = Asked()
    asked.away[X] = 0
    with pytest.raises(InvariantError, match="elsewhere"):
        asked.check()


class World(RuleBasedStateMachine):
    """An owner and what nodes believe it wants of them, by what they were told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = Asked()
        self.believed: dict[bytes, int] = {}
        self.want = 0
        self.now = 0.0

    def hear(self, said: list[tuple[bytes, int]]) -> None:
        assert len({node for node, _ in said}) == len(said)
        self.believed.update(said)

    @rule(want=st.integers(0, 300))
    def revise(self, want: int) -> None:
        self.want = want
        self.hear(self.asked.revise(want))

    @rule(node=st.sampled_from((X, Y)), count=st.integers(1, 50), stay=st.booleans())
    def moved(self, node: bytes, count: int, stay: bool) -> None:
        count = min(count, self.believed.get(HOME, 0))
        self.believed[HOME] = self.believed.get(HOME, 0) - count
        self.hear(self.asked.moved(node, count, stay))

    @precondition(lambda self: any(self.believed.values()))
    @rule(pick=st.integers(0, 10))
    def granted(self, pick: int) -> None:
        nodes = [node for node, count in self.believed.items() if count]
        node = nodes[pick % len(nodes)]
        self.believed[node] -= 1
        self.asked.granted(node)
        self.want = max(0, self.want - 1)
        self.hear(self.asked.revise(self.want))

    @rule(node=st.sampled_from((X, Y)), gone=st.booleans())
    def refused(self, node: bytes, gone: bool) -> None:
        self.now += 1.0
        self.believed[node] = 0
        if gone:
            self.asked.gone(node)
        else:
            self.asked.refused(node, self.now)
        self.hear(self.asked.revise(self.want))

    @invariant()
    def nodes_and_owner_agree(self) -> None:
        self.asked.check()
        assert {n: c for n, c in self.believed.items() if c and n != HOME} == self.asked.away
        assert self.believed.get(HOME, 0) == self.asked.home

    @invariant()
    def what_is_wanted_is_asked_for(self) -> None:
        total = self.asked.total
        assert (total == 0) == (self.want == 0)
        assert total <= 2 * self.want
        assert self.want <= 2 * total


TestAsked = World.TestCase
TestAsked.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
