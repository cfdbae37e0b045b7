"""When a loop looks for messages before it sleeps, and what ends a look."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mray.ids import new_process_id
from mray.rpc.door import Door
from mray.rpc.pump import Pump
from mray.rpc.vigil import WINDOW_S, Vigil
from mray.wire.codec import encode
from mray.wire.messages import Address, Ping

from .doors import receive


def _looks(vigil: Vigil, outcomes: str) -> str:
    """y and n: whether each wait is looked out for; what comes is told by ``outcomes``."""
    said = ""
    for outcome in outcomes:
        worth = vigil.is_worth_it()
        said += "y" if worth else "n"
        if worth:
            vigil.ended(outcome == "+")
    return said


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ("+" * 20, "y" * 20),
        ("-" * 8, "y" * 8),
        ("-" * 25, "y" * 8 + "n" * 7 + "y" + "n" * 7 + "y" + "n"),
        ("-------+" * 3, "y" * 24),
        # Once right after many in vain, it looks every time again.
        ("-" * 15 + "+" + "-" * 8 + "-", "y" * 8 + "n" * 7 + "y" + "y" * 8 + "n"),
    ],
)
def test_it_is_worth_it_until_it_was_in_vain_eight_times(outcomes: str, said: str) -> None:
    assert _looks(Vigil(), outcomes) == said


class _Clock:
    """Each look at it takes a tenth of the window."""

    now = 100.0

    def __call__(self) -> float:
        self.now += WINDOW_S / 10
        return self.now


class _Watched:
    """A loop with an inbox, and how often it was looked for messages, and how long it slept."""

    def __init__(self, tmp_path: Any) -> None:
        self.pump = Pump(Door(new_process_id()), clock=_Clock())
        self.pump.door.listen_ipc(str(tmp_path / "a"))
        self.peer = Door(new_process_id())
        self.peer.dial(Address(self.pump.door.process_id, b"", str(tmp_path / "a")), b"")
        self.inbox = SimpleNamespace(posts=deque[Any](), asleep=False)
        self.pump.inbox = self.inbox
        self.looks = 0
        self.slept: list[float | None] = []
        self.at_look: Callable[[], None] = lambda: None
        is_ready, poll = self.pump.door.is_ready, self.pump.door.poll

        def counted() -> bool:
            self.looks += 1
            self.at_look()
            return is_ready()

        def spied(timeout_s: float | None, *args: Any) -> Any:
            assert self.inbox.asleep
            self.slept.append(timeout_s)
            # What is in the inbox wakes the loop: the test's stands still.
            return poll(0.0 if timeout_s is None else timeout_s, *args)

        self.pump.door.is_ready = counted  # type: ignore[method-assign]
        self.pump.door.poll = spied  # type: ignore[method-assign]

    def ping(self) -> None:
        self.peer.send(self.pump.door.process_id, encode(Ping(1)))

    def get_something(self) -> None:
        """A round that brings a message."""
        self.ping()
        self.pump.run_once(10.0, lambda: False)
        receive(self.peer)
        self.looks = 0
        self.slept.clear()


@pytest.fixture
def watched(tmp_path: Any) -> Any:
    made = _Watched(tmp_path)
    yield made
    made.pump.door.close()
    made.peer.close()


def test_after_a_message_it_looks_for_as_long_as_the_window(watched: _Watched) -> None:
    watched.get_something()
    watched.pump.run_once(None, lambda: False)
    assert 5 <= watched.looks <= 11
    assert watched.slept == [None]
    watched.pump.run_once(None, lambda: False)
    assert 5 <= watched.looks <= 11  # Nothing has come since: it sleeps at once.


def test_who_is_not_at_leisure_sleeps_at_once(watched: _Watched) -> None:
    watched.get_something()
    watched.pump.run_once(0.01)
    assert watched.looks == 0


def test_it_looks_no_longer_than_it_may_wait(watched: _Watched) -> None:
    watched.get_something()
    watched.pump.run_once(WINDOW_S / 3, lambda: False)
    assert 1 <= watched.looks <= 4


@pytest.mark.parametrize("what", ["message", "note", "call"])
def test_what_comes_meanwhile_is_taken_at_once(watched: _Watched, what: str) -> None:
    ran: list[str] = []
    watched.get_something()

    def come() -> None:
        if watched.looks == 2:
            if what == "message":
                watched.ping()
            elif what == "note":
                watched.inbox.posts.append("note")
            else:
                watched.pump._calls.append(lambda: ran.append("call"))

    watched.at_look = come
    if what == "message":
        # It is under way for a while: the clock does not tell how long.
        watched.pump.clock = lambda: 100.0
    watched.pump.run_once(None if what == "message" else 0.0001, lambda: False)
    assert watched.looks >= 2
    if what == "message":
        assert receive(watched.peer)  # the answer
    else:
        assert watched.looks <= 3
    if what == "note":
        assert watched.slept == [0.0]  # It does not sleep over a note that woke nobody.
    watched.pump.run_once(0.0, lambda: False)
    assert ran == (["call"] if what == "call" else [])
