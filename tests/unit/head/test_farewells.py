"""The head keeps nothing for connections of the dead, and a dead node still hears of its end."""

from __future__ import annotations

from typing import Any

from mray.ids import new_node_id, new_process_id
from mray.node.head.farewells import LAST_WORDS_S, NODE_FORGOTTEN_S, Farewells
from mray.rpc.link import Link


class Loop:
    """What is needed of a pump, with links as it keeps them."""

    def __init__(self) -> None:
        self.links: dict[bytes, Link] = {}
        self.now = 0.0
        self._timers: list[tuple[float, Any]] = []

    def speak(self, process_id: bytes) -> None:
        self.links[process_id] = Link()

    def peers(self) -> list[bytes]:
        return list(self.links)

    def after(self, delay_s: float, call: Any) -> None:
        self._timers.append((self.now + delay_s, call))

    def hang_up(self, process_id: bytes) -> None:
        self.links.pop(process_id, None)

    def pass_time(self, duration_s: float) -> None:
        self.now += duration_s
        due = [timer for timer in self._timers if timer[0] <= self.now]
        self._timers = [timer for timer in self._timers if timer[0] > self.now]
        for _, call in due:
            call()


def test_nothing_is_kept_of_a_thousand_processes_that_died() -> None:
    loop: Any = Loop()
    farewells, node_id = Farewells(loop), new_node_id()
    for _ in range(1000):
        process_id = new_process_id(node_id)
        loop.speak(process_id)
        farewells.process_died(process_id)
    loop.pass_time(LAST_WORDS_S / 2)
    assert len(loop.links) == 1000  # Their last words may be on the way.
    loop.pass_time(LAST_WORDS_S / 2)
    assert not loop.links


def test_with_a_node_go_its_processes_and_nobody_elses() -> None:
    loop: Any = Loop()
    farewells, dead, other = Farewells(loop), new_node_id(), new_node_id()
    neighbour = new_process_id(other)
    for process_id in (dead, other, new_process_id(dead), new_process_id(dead), neighbour):
        loop.speak(process_id)
    farewells.node_lost(dead)
    loop.pass_time(LAST_WORDS_S)
    assert list(loop.links) == [dead, other, neighbour]  # It may come back, and has to hear of it.
    loop.pass_time(NODE_FORGOTTEN_S)
    assert list(loop.links) == [other, neighbour]
