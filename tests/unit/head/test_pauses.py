"""How long the head waits before it starts an actor again."""

from __future__ import annotations

import pytest

from mray.node.head.actor_records import Actor
from mray.node.head.pauses import LAST_CALLS_S, pause_of
from mray.wire.messages import ActorSpec, Address, DeathCause

SPEC = ActorSpec(
    b"a" * 16, b"job1", Address(b"d" * 28, b"n" * 28), b"k", "Counter", b"", b"", [], None, None,
    {}, {}, max_restarts=-1, max_task_retries=0, max_concurrency=1,
)  # fmt: skip
CRASH, OUT_OF_MEMORY = DeathCause("signal", signal=11), DeathCause("kernel_oom")


def pause_s(cause: DeathCause, *, fruitless: int = 0, memory: int = 0) -> float:
    actor = Actor(spec=SPEC, fruitless_count=fruitless, memory_count=memory)
    return pause_of(actor, cause)[0]


def test_starts_that_never_got_alive_are_spaced_out_up_to_half_a_minute() -> None:
    waits = [pause_s(CRASH, fruitless=count) for count in range(1, 12)]
    assert waits == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.mark.parametrize("count", [1028, 1029, 100_000])
def test_one_that_has_failed_for_hours_is_started_again_all_the_same(count: int) -> None:
    assert pause_s(CRASH, fruitless=count) == 30.0
    assert pause_s(OUT_OF_MEMORY, memory=count) == 60.0


def test_the_next_life_begins_after_all_have_heard_of_the_end_of_the_node() -> None:
    assert pause_s(DeathCause("node_died")) == LAST_CALLS_S
    assert pause_s(CRASH) == 0.0
