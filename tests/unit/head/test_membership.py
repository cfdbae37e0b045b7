"""Nodes join, fall silent, come back, leave and die."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mray.node.head.events import (
    Effect,
    From,
    NodeLost,
    NodeProcessEnded,
    NodeUp,
    Note,
    RoomSeen,
    Send,
    Tick,
    ToNodes,
)
from mray.node.head.membership import DEAD_NODES_MAX, Membership, Silence
from mray.wire.messages import (
    Address,
    DeathCause,
    GetNodes,
    Heartbeat,
    LostOutput,
    NodeGone,
    NodeInfo,
    NodeJoined,
    NodeRegistered,
    Nodes,
    Ping,
    Refused,
    RegisterNode,
)

A, B, CLI = b"a" * 28, b"b" * 28, b"c" * 28
HEAD = Address(b"h" * 28, A, ipc="/s/gcs")


def info(node_id: bytes, *, mray: str = "0.1.0", python: str = "3.11.7") -> NodeInfo:
    return NodeInfo(
        node_id,
        Address(node_id, node_id, ipc="/s/raylet"),
        ip="10.0.0.1",
        hostname="box",
        pid=7,
        resources={"CPU": 20_000},
        labels={},
        session_dir="/s",
        log_dir="/s/logs",
        store_path="",
        store_capacity_bytes=0,
        is_head=node_id == A,
        mray_version=mray,
        python_version=python,
    )


def beat(node_id: bytes, cpus: int = 2) -> From:
    return From(node_id, Heartbeat(node_id, {"CPU": cpus * 10_000}, [], 5, 1))


@pytest.fixture
def table() -> Membership:
    return Membership(
        cluster_id="c1",
        config=b"cfg",
        head=HEAD,
        silence=Silence(suspect_after_s=3.0, dead_after_s=10.0),
        now=0.0,
    )


def join(table: Membership, node_id: bytes, now: float = 0.0) -> list[Effect]:
    effects = table.handle(From(node_id, RegisterNode(1, info(node_id))), now)
    table.check()
    return effects


def states(table: Membership, now: float) -> dict[bytes, str]:
    (effect,) = table.handle(From(CLI, GetNodes(9)), now)
    assert isinstance(effect, Send)
    assert isinstance(effect.message, Nodes)
    return {view.node.node_id: view.state for view in effect.message.nodes}


def without_notes(effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if not isinstance(effect, Note)]


def test_a_node_that_joins_learns_the_cluster_and_the_others_learn_of_it(
    table: Membership,
) -> None:
    join(table, A)
    assert without_notes(join(table, B)) == [
        Send(B, NodeRegistered(1, "c1", b"cfg", HEAD, [info(A), info(B)], 1)),
        ToNodes(NodeJoined(info(B)), but=B),
        NodeUp(info(B)),
    ]


def test_registering_again_only_answers_again(table: Membership) -> None:
    join(table, A)
    assert join(table, A) == [Send(A, NodeRegistered(1, "c1", b"cfg", HEAD, [info(A)], 1))]
    assert len(table.living()) == 1


def test_a_process_cannot_register_another_node(table: Membership) -> None:
    effects = table.handle(From(B, RegisterNode(1, info(A))), 0.0)
    assert isinstance(effects[0], Send)
    assert isinstance(effects[0].message, Refused)
    assert table.living() == []


@pytest.mark.parametrize(("mray", "python"), [("0.2.0", "3.11.7"), ("0.1.0", "3.12.1")])
def test_other_versions_are_refused_with_both_named(
    table: Membership, mray: str, python: str
) -> None:
    join(table, A)
    effects = table.handle(From(B, RegisterNode(1, info(B, mray=mray, python=python))), 0.0)
    assert isinstance(effects[0], Send)
    refused = effects[0].message
    assert isinstance(refused, Refused)
    assert "mray 0.1.0 on Python 3.11" in refused.text
    assert f"mray {mray} on Python {python[:4]}" in refused.text
    assert [node.node_id for node in table.living()] == [A]


def test_another_patch_of_python_is_welcome(table: Membership) -> None:
    join(table, A)
    table.handle(From(B, RegisterNode(1, info(B, python="3.11.2"))), 0.0)
    assert len(table.living()) == 2


def test_silence_makes_a_node_suspect_then_dead(table: Membership) -> None:
    join(table, A)
    assert table.deadline() == 3.0
    assert without_notes(table.handle(Tick(), 3.0)) == []
    assert states(table, 3.0) == {A: "SUSPECT"}
    assert table.deadline() == 10.0
    effects = without_notes(table.handle(Tick(), 10.0))
    cause = DeathCause("node_died", "nothing was heard of the node for 10 s", node_id=A)
    assert effects == [ToNodes(NodeGone(A, cause)), NodeLost(A, cause)]
    assert states(table, 10.0) == {A: "DEAD"}
    assert table.deadline() is None
    table.check()


def test_a_heartbeat_clears_suspicion(table: Membership) -> None:
    join(table, A)
    table.handle(Tick(), 3.0)
    effects = table.handle(beat(A), 9.0)
    assert effects == [Note(f"node {A.hex()[:10]} is back after 9 s"), RoomSeen(A, {"CPU": 20_000})]
    assert states(table, 9.0) == {A: "ALIVE"}
    assert table.deadline() == 12.0


def test_a_stop_of_the_head_itself_kills_no_node(table: Membership) -> None:
    join(table, A)
    # Due at 3, called at 63: the head was stopped for 60 s, and the heartbeats wait in its socket.
    assert without_notes(table.handle(Tick(), 63.0)) == []
    assert states(table, 63.0) == {A: "SUSPECT"}
    table.handle(beat(A), 63.0)
    assert states(table, 63.0) == {A: "ALIVE"}


def test_a_dead_node_is_told_so_when_it_speaks_again(table: Membership) -> None:
    join(table, A)
    cause = DeathCause("node_died", "the node daemon's process ended", node_id=A)
    table.handle(NodeProcessEnded(A), 1.0)
    assert table.handle(beat(A), 2.0) == [Send(A, NodeGone(A, cause))]
    effects = table.handle(From(A, RegisterNode(1, info(A))), 2.0)
    assert isinstance(effects[0], Send)
    assert isinstance(effects[0].message, Refused)
    assert table.living() == []


def test_an_unknown_node_that_speaks_is_told_to_end(table: Membership) -> None:
    (effect,) = table.handle(beat(A), 2.0)
    assert isinstance(effect, Send)
    assert isinstance(effect.message, NodeGone)


def test_the_end_of_a_daemon_is_known_at_once_and_told_once(table: Membership) -> None:
    join(table, A)
    first = without_notes(table.handle(NodeProcessEnded(A), 1.0))
    assert [type(effect) for effect in first] == [ToNodes, NodeLost]
    assert table.handle(NodeProcessEnded(A), 1.0) == []


def test_a_node_may_leave_and_nobody_else_may_say_so(table: Membership) -> None:
    join(table, A)
    join(table, B)
    cause = DeathCause("intended", "the node was stopped")
    assert table.handle(From(B, NodeGone(A, cause)), 1.0) == []
    assert without_notes(table.handle(From(A, NodeGone(A, cause)), 1.0)) == [
        ToNodes(NodeGone(A, cause)),
        NodeLost(A, cause),
    ]


def test_nodes_are_shown_with_their_last_heartbeat(table: Membership) -> None:
    join(table, A)
    told = msgspec.structs.replace(beat(A, cpus=1).message, lost_output=LostOutput(3, 30))
    table.handle(From(A, told), 5.0)
    (effect,) = table.handle(From(CLI, GetNodes(9)), 7.5)
    assert isinstance(effect, Send)
    nodes = effect.message
    assert isinstance(nodes, Nodes)
    (view,) = nodes.nodes
    assert (nodes.cluster_id, nodes.head, nodes.uptime_s) == ("c1", HEAD, 7.5)
    assert (view.available, view.store_used_bytes, view.workers) == ({"CPU": 10_000}, 5, 1)
    assert view.since_heartbeat_s == 2.5
    assert view.lost_output == LostOutput(3, 30)


def test_dead_nodes_are_remembered_up_to_a_bound(table: Membership) -> None:
    for number in range(DEAD_NODES_MAX + 3):
        node_id = number.to_bytes(28, "big")
        join(table, node_id)
        table.handle(NodeProcessEnded(node_id), 0.0)
    table.check()
    assert len(states(table, 0.0)) == DEAD_NODES_MAX


def test_other_messages_are_a_mistake(table: Membership) -> None:
    with pytest.raises(TypeError):
        table.handle(From(A, Ping(1)), 0.0)


@settings(derandomize=True, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["join", "beat", "tick", "ended"]),
            st.integers(0, 3),
            st.floats(0, 4),
        ),
        max_size=60,
    )
)
def test_a_node_dies_only_of_silence_or_its_process_and_once(
    steps: list[tuple[str, int, float]],
) -> None:
    table = Membership(
        cluster_id="c",
        config=b"",
        head=HEAD,
        silence=Silence(suspect_after_s=3.0, dead_after_s=10.0),
        now=0.0,
    )
    now = 0.0
    heard: dict[bytes, float] = {}
    dead: set[bytes] = set()
    for what, number, passed_s in steps:
        now += passed_s
        node_id = bytes([number + 1]) * 28
        effects: list[Effect] = []
        while (due := table.deadline()) is not None and due <= now:
            effects += table.handle(Tick(), due)
            for effect in effects:
                if isinstance(effect, NodeLost):
                    assert due - heard[effect.node_id] >= 10.0 - 1e-9
        if what == "join":
            joined = table.handle(From(node_id, RegisterNode(1, info(node_id))), now)
            if any(
                isinstance(effect, Send) and isinstance(effect.message, NodeRegistered)
                for effect in joined
            ):
                heard[node_id] = now
            effects += joined
        elif what == "beat":
            effects += table.handle(beat(node_id), now)
            if node_id in heard:
                heard[node_id] = now
        elif what == "ended":
            effects += table.handle(NodeProcessEnded(node_id), now)
        for effect in effects:
            if isinstance(effect, NodeLost):
                assert effect.node_id not in dead
                dead.add(effect.node_id)
        table.check()
        assert {n.node_id for n in table.living()} == set(heard) - dead
