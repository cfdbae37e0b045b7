"""Which node an actor goes to."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mray.node.head.placement import Choice, Room, allowed, choose, on_named
from mray.placement import INFEASIBLE, Where
from mray.resources import fits, to_fixed

CPU1 = to_fixed({"CPU": 1})
A, B = b"a" * 28, b"b" * 28


def room(node_id: bytes, total: float, free: float, *, is_head: bool = False) -> Room:
    return Room(
        node_id=node_id,
        is_head=is_head,
        total=to_fixed({"CPU": total}),
        available=to_fixed({"CPU": free}),
    )


def test_a_node_with_room_is_chosen_and_the_heads_before_others() -> None:
    rooms = [room(A, 2, 2), room(B, 2, 2, is_head=True)]
    assert choose(CPU1, {}, rooms) == Choice(B)


def test_a_full_head_node_gives_way_to_another_with_room() -> None:
    rooms = [room(A, 2, 0, is_head=True), room(B, 2, 1)]
    assert choose(CPU1, {}, rooms) == Choice(B)


def test_the_only_feasible_node_gets_the_actor_even_when_full() -> None:
    choice = choose(CPU1, {}, [room(A, 2, 0, is_head=True)])
    assert choice.node_id == A
    assert "waiting for room: needs 1 CPU, free now" in choice.reason


def test_among_several_full_nodes_the_actor_waits() -> None:
    choice = choose(CPU1, {}, [room(A, 2, 0), room(B, 2, 0.5)])
    assert choice.node_id is None
    assert "has 0 CPU" in choice.reason
    assert "has 0.5 CPU" in choice.reason


def test_an_infeasible_need_says_what_each_node_has() -> None:
    choice = choose(to_fixed({"CPU": 4, "GPU": 1}), {}, [room(A, 2, 2)])
    assert choice.node_id is None
    assert choice.reason.startswith("infeasible: needs 4 CPU, 1 GPU, and no node has that much")
    assert "has 2 CPU, 0 GPU" in choice.reason


def test_what_is_held_while_alive_counts_for_feasibility() -> None:
    assert choose({}, to_fixed({"CPU": 3}), [room(A, 2, 2)]).node_id is None
    assert choose(CPU1, {}, [room(A, 0, 0)]).node_id is None


def test_without_nodes_the_reason_says_so() -> None:
    assert "no node yet" in choose(CPU1, {}, []).reason


def test_an_actor_that_needs_nothing_goes_anywhere() -> None:
    assert choose({}, {}, [room(A, 0, 0)]) == Choice(A)


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=5), st.integers(0, 9))
def test_a_choice_is_feasible_and_a_wait_has_a_reason(
    nodes: list[tuple[int, int]], need: int
) -> None:
    rooms = [
        room(bytes([n]) * 28, max(nodes[n]), min(nodes[n]), is_head=n == 0)
        for n in range(len(nodes))
    ]
    wanted = to_fixed({"CPU": need})
    choice = choose(wanted, {}, rooms)
    chosen = {r.node_id: r for r in rooms}.get(choice.node_id or b"")
    if chosen is None:
        assert choice.reason
        assert not any(fits(wanted, r.available) for r in rooms)
    else:
        assert fits(wanted, chosen.total)
        with_room = [r for r in rooms if fits(wanted, r.available)]
        assert not with_room or chosen in with_room


def test_what_has_to_be_on_a_node_that_can_never_hold_it_can_never_be() -> None:
    where, too_big = Where(A), to_fixed({"CPU": 100})
    never = on_named(where, choose(too_big, {}, [room(A, 1, 1)]))
    assert never.never
    assert f"it has to be on node {A.hex()}" in never.reason
    assert "100 CPU" in never.reason
    for other in (Where(), Where(A, soft=True)):
        assert not on_named(other, choose(too_big, {}, [room(A, 1, 1)])).never
    waits = choose(CPU1, {}, [room(A, 1, 0)])
    assert on_named(where, waits) == waits


def test_labels_that_no_node_has_give_way_to_the_next_choice() -> None:
    near, far = room(A, 1, 1), room(B, 1, 1)
    near.labels, far.labels = {"zone": "a"}, {"zone": "b"}
    zone = {name: {"zone": ("in", [name])} for name in "abc"}
    where = Where(labels=zone["c"], fallbacks=[zone["b"], zone["a"]])
    assert allowed(where, [near, far]) == ([far], None)
    rooms, settled = allowed(Where(labels=zone["c"]), [near, far])
    assert rooms == []
    assert settled is not None
    assert settled.reason.startswith(INFEASIBLE)
