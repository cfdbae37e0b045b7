"""What a process keeps of actors that are dead."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mray.ownership.entry import Entry
from mray.runtime.actors import DEAD_MAX, ActorsPart
from mray.runtime.creations import Creation
from mray.wire.messages import (
    ActorOutOfScope,
    ActorSpec,
    ActorState,
    Address,
    DeathCause,
    WatchActor,
)

HEAD = "head"


class Owner:
    """A process that makes actors, without a process."""

    def __init__(self) -> None:
        self.handlers: dict[type, Callable[[bytes, Any], None]] = {}
        self.told: list[Any] = []
        rt: Any = SimpleNamespace(
            head=HEAD,
            pump=SimpleNamespace(on=self.handlers.__setitem__, clock=lambda: 0.0),
            head_link=SimpleNamespace(on_back=[], ask=lambda *request: None),
            tasks=SimpleNamespace(
                recorder=SimpleNamespace(on=False), parent_of=None, pending={}, fail=self._failed
            ),
            references=SimpleNamespace(hold=lambda entry: None, release=lambda entry: None),
            tell=lambda to, message: self.told.append(message),
            post=lambda call: call(),
        )
        self.failed: list[Any] = []
        self.part = ActorsPart(rt)

    def _failed(self, task: Any, error: bytes) -> None:
        self.failed.append(task)

    def live(self, actor_id: bytes, *, handle_dies_first: bool) -> None:
        """One life of an actor, from its making to the end of its handle."""
        mailbox: Any = None
        entry = Entry(actor_id + b"handle", None, mailbox, 1)
        spec = ActorSpec(
            actor_id, b"job1", Address(b"me", b"n"), b"key", "C", actor_id, b"", [], None, None,
            {}, {}, 0, 0, 1, "", "", False, b"", False, b"",
        )  # fmt: skip
        packed: Any = SimpleNamespace(data=b"", deps=[], holds=[], in_store=None)
        self.part._create(Creation(spec, packed, entry))
        if handle_dies_first:
            self.part.out_of_scope(entry)
        self.hear(actor_id, "DEAD")
        if not handle_dies_first:
            self.part.out_of_scope(entry)
        self.part.turn()

    def hear(self, actor_id: bytes, state: str, incarnation: int = 0) -> None:
        cause = DeathCause("killed", "by its test")
        word = ActorState(actor_id, state, incarnation, None, cause=cause, class_name="C")
        self.handlers[ActorState](b"", word)

    def kept(self) -> dict[str, int]:
        """How many entries of each table are left."""
        tables = {name: value for name, value in vars(self.part).items() if hasattr(value, "clear")}
        return {name: len(table) for name, table in tables.items() if len(table)}


@pytest.fixture
def owner() -> Owner:
    return Owner()


def lives(owner: Owner, count: int, handle_dies_first: bool) -> None:
    for number in range(count):
        owner.live(number.to_bytes(16, "big"), handle_dies_first=handle_dies_first)


@pytest.mark.parametrize("handle_dies_first", [False, True])
def test_the_last_dead_actors_are_remembered_and_no_others(
    owner: Owner, handle_dies_first: bool
) -> None:
    lives(owner, DEAD_MAX + 500, handle_dies_first)
    assert owner.kept() == {"calls": DEAD_MAX, "_dead": DEAD_MAX}
    assert (500).to_bytes(16, "big") in owner.part.calls


def test_the_head_hears_of_the_last_handle_only_while_the_actor_may_live(owner: Owner) -> None:
    owner.live(b"first", handle_dies_first=True)
    owner.live(b"second", handle_dies_first=False)
    told = [message for message in owner.told if isinstance(message, ActorOutOfScope)]
    assert told == [ActorOutOfScope(b"first")]


def test_of_a_dead_actor_that_is_forgotten_the_head_is_asked_again(owner: Owner) -> None:
    owner.live(b"forgotten", handle_dies_first=True)
    lives(owner, DEAD_MAX, True)
    owner.told.clear()
    task: Any = SimpleNamespace(
        task_id=b"t", actor_id=b"forgotten", deps=[], holds=[], unresolved=0, retries_left=0,
        template=SimpleNamespace(name="C.m", unordered=False),
    )  # fmt: skip
    owner.part.rt.tasks.await_arguments = lambda task: True
    owner.part.rt.tasks.doomed = {}
    owner.part.submit(task)
    assert owner.told == [WatchActor(b"forgotten")]
    assert owner.part.calls[b"forgotten"].waiting() == 1


def test_a_stale_word_of_death_forgets_nothing(owner: Owner) -> None:
    owner.part._meet(b"lives", "C")
    owner.hear(b"lives", "RESTARTING", 3)
    owner.hear(b"lives", "DEAD", 0)
    assert owner.kept() == {"calls": 1, "_dirty": 1}
