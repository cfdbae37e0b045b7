"""A head that has begun anew calls those of its nodes that do not come by themselves."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mray.node.head.calling import AGAIN_S, FIRST_S, Calling
from mray.wire.messages import Address, Message, NodeInfo, RegisterAgain

HEAD = Address(b"h" * 28, b"n" * 28, "/gcs", "10.0.0.1:6379")
LOCAL = Address(b"h" * 28, b"n" * 28, "/gcs", "127.0.0.1:6379")


class Loop:
    """What is needed of a pump."""

    def __init__(self) -> None:
        self.sent: list[tuple[Address, Message]] = []
        self.hung_up: list[bytes] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def after(self, delay_s: float, call: Callable[[], None]) -> Any:
        self.timers.append((delay_s, call))
        return SimpleNamespace(cancel=lambda: None)

    def send_to(self, address: Address, message: Message) -> bool:
        self.sent.append((address, message))
        return True

    def hang_up(self, process_id: bytes) -> None:
        self.hung_up.append(process_id)

    def turn(self) -> float:
        """The next timer; its delay."""
        delay_s, call = self.timers.pop(0)
        call()
        return delay_s


def node(letter: bytes, tcp: str) -> NodeInfo:
    node_id = letter * 28
    address = Address(node_id, node_id, f"/{letter.decode()}", tcp)
    return NodeInfo(node_id, address, "", "", 1, {}, {}, "", "", "", 0, True, "1", "3")


A, B = node(b"a", "10.0.0.2:7000"), node(b"b", "")


def calling(loop: Any, head: Address, epoch: int, expected: list[NodeInfo]) -> Calling:
    return Calling(loop, head, epoch, lambda: expected)


def test_a_node_whose_address_is_none_keeps_no_other_from_being_called() -> None:
    loop = Loop()
    calling(loop, LOCAL, 2, [node(b"c", "nowhere"), node(b"d", "127.0.0.1:7000")])
    for _ in range(2):
        loop.turn()
    assert [address.tcp for address, _ in loop.sent] == ["127.0.0.1:7000"] * 2


def test_nodes_are_called_until_they_have_come() -> None:
    loop, expected = Loop(), [A, B]
    calling(loop, HEAD, 2, expected)
    assert loop.turn() == FIRST_S
    # By tcp alone; and who has none is on the head's machine, and cannot be elsewhere.
    call = (Address(A.node_id, A.node_id, tcp="10.0.0.2:7000"), RegisterAgain(2, HEAD))
    assert loop.sent == [call]
    assert loop.turn() == AGAIN_S
    assert loop.sent == [call, call]
    expected.clear()
    loop.turn()
    assert (len(loop.sent), loop.timers) == (2, [])


@pytest.mark.parametrize(
    ("head", "epoch", "expected"),
    [
        (HEAD, 1, [A]),
        (HEAD, 2, []),
        (Address(b"h" * 28, b"n" * 28, "/gcs"), 2, [A]),
    ],
    ids=["the first head", "nobody is missing", "a head without a port"],
)
def test_nobody_is_called_without_need(head: Address, epoch: int, expected: list[NodeInfo]) -> None:
    loop = Loop()
    calling(loop, head, epoch, expected)
    assert loop.timers == []


def test_a_head_for_its_machine_alone_calls_nobody_elsewhere_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop, near = Loop(), node(b"c", "127.0.0.1:7001")
    with caplog.at_level(logging.INFO, "mray.head"):
        calling(loop, LOCAL, 2, [A, near])
        loop.turn()
        loop.turn()
    assert {address.process_id for address, _ in loop.sent} == {near.node_id}
    assert caplog.text.count("start it with --node-ip-address") == 1


def test_a_dead_node_is_called_no_more() -> None:
    loop = Loop()
    caller = calling(loop, HEAD, 2, [A])
    caller.lost(A.node_id)
    assert loop.hung_up == []
    loop.turn()
    caller.lost(A.node_id)
    assert loop.hung_up == [A.node_id]
