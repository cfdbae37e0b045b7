"""Which queue a call of an actor with concurrency groups goes to."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Any

import pytest

from mray.runtime.calls import Work
from mray.runtime.lanes import Lanes
from mray.tasks.writable import TemplateOptions, WritableArgs
from mray.wire.messages import Address, TaskSpec, TaskTemplate

OWNER = Address(b"owner", b"node")


def call(group: str, writable: WritableArgs | None = None) -> Work:
    options = TemplateOptions(writable, group).encode()
    template = TaskTemplate(1, b"", "A.m", 1, b"job1", {}, "m", options=options)
    return Work(OWNER, template, TaskSpec(b"t", 1, 0))


def drained(queue: SimpleQueue[Any]) -> list[Any]:
    return [queue.get_nowait() for _ in range(queue.qsize())]


@pytest.fixture
def lanes() -> Lanes:
    return Lanes(SimpleQueue(), {"io": 2, "compute": 4})


def test_calls_go_to_their_group_in_order(lanes: Lanes) -> None:
    calls = [call(group) for group in ("io", "", "compute", "io", "")]
    for work in calls:
        lanes.put(work)
    assert drained(lanes.named["io"].queue) == [calls[0], calls[3]]
    assert drained(lanes.named["compute"].queue) == [calls[2]]
    assert drained(lanes._default) == [calls[1], calls[4]]


def test_a_call_with_other_options_goes_to_the_same_group(lanes: Lanes) -> None:
    first, second = call("io"), call("io", WritableArgs([0]))
    lanes.put(first)
    lanes.put(second)
    assert drained(lanes.named["io"].queue) == [first, second]


def test_a_group_has_its_own_limit(lanes: Lanes) -> None:
    assert {name: lane.limit for name, lane in lanes.named.items()} == {"io": 2, "compute": 4}
