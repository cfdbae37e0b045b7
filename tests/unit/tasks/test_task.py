"""Templates learn run times; tasks count their arguments down."""

from __future__ import annotations

from collections import deque

import pytest

from mray.tasks.task import PIPELINE_DEPTH_MAX, Task, Template
from mray.wire.messages import TaskTemplate


def template(target_us: int = 5000) -> Template:
    return Template(TaskTemplate(1, b"k", "f", 1, b"job1", {}), 0, 3, target_us)


def test_nothing_is_pipelined_until_the_run_time_is_known() -> None:
    assert template().depth == 1


@pytest.mark.parametrize(
    ("run_us", "depth"),
    [(0, PIPELINE_DEPTH_MAX), (10, 250), (90, 50), (1000, 4), (5000, 1), (10_000_000, 1)],
)
def test_depth_makes_about_the_target_of_work(run_us: int, depth: int) -> None:
    made = template()
    made.ran(run_us)
    assert made.depth == depth


def test_the_estimate_rises_fast_and_falls_slowly() -> None:
    made = template()
    made.ran(100)
    made.ran(10_000)
    assert made.run_us == 5050
    made.ran(50)
    assert made.run_us == pytest.approx(4550)


def test_a_target_of_zero_turns_pipelining_off() -> None:
    made = template(0)
    made.ran(1)
    assert made.depth == 1


class Home:
    def __init__(self) -> None:
        self.resolved: deque[Task] = deque()


class Ready:
    def __init__(self, home: Home) -> None:
        self.home = home


def test_a_task_is_resolved_when_its_last_argument_is_there() -> None:
    home = Home()
    task = Task(b"t", template(), b"", [], [], [])
    task.unresolved = 2
    task.fire(Ready(home))
    assert not home.resolved
    task.fire(Ready(home))
    assert list(home.resolved) == [task]
