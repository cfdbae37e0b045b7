"""Records of actors that are dead: what their constructors' errors may take."""

from __future__ import annotations

import pytest

from mray.machine import InvariantError
from mray.node.head import actor_records
from mray.node.head.actor_records import SPECS, STATES, Actor, Registry
from mray.wire.messages import ActorSpec, Address

ERROR = b"e" * 1000
ROOM_FOR = 10


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor_records, "DEAD_ERRORS_BYTES_MAX", ROOM_FOR * len(ERROR))
    monkeypatch.setattr(actor_records, "DEAD_ACTORS_MAX", 30)


def end_one(registry: Registry, number: int, error: bytes = ERROR) -> Actor:
    """Register an actor and make it dead."""
    actor_id = number.to_bytes(16, "big")
    spec = ActorSpec(
        actor_id, b"job1", Address(b"o", b"n"), b"k", "C", b"", b"", [], None, None, {}, {}, 0, 0, 1
    )
    actor = Actor(spec=spec, error=error)
    registry.add(actor)
    registry.end(actor)
    registry.check()
    return actor


def test_the_oldest_errors_go_and_their_actors_stay() -> None:
    registry = Registry(kept=True)
    actors = [end_one(registry, number) for number in range(ROOM_FOR + 5)]
    assert [bool(actor.error) for actor in actors] == [False] * 5 + [True] * ROOM_FOR
    assert registry.all() == actors
    # What is stored is cut too.
    assert (STATES, actors[0].spec.actor_id) in registry.changed


def test_an_error_is_kept_however_big_until_the_next_comes() -> None:
    registry = Registry()
    big = end_one(registry, 1, ERROR * ROOM_FOR * 2)
    assert big.error
    end_one(registry, 2)
    assert not big.error


def test_errors_go_with_their_actors() -> None:
    registry = Registry()
    for number in range(5):
        end_one(registry, number)
    for number in range(5, 100):
        end_one(registry, number, b"")
    assert not any(actor.error for actor in registry.all())
    last = end_one(registry, 100)
    registry.check()
    last.error = b"other"
    with pytest.raises(InvariantError, match="bytes"):
        registry.check()


def test_what_was_stored_is_counted_again() -> None:
    registry = Registry(kept=True)
    for number in range(ROOM_FOR + 5):
        end_one(registry, number)
    rows = registry.rows()
    restored = Registry(kept=True)
    restored.restore(rows[STATES], rows[SPECS])
    restored.check()
    end_one(restored, 1000)
    assert sum(bool(actor.error) for actor in restored.all()) == ROOM_FOR
