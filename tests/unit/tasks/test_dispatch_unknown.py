"""Dispatcher: tasks of which nobody knows how long they run."""

from __future__ import annotations

from mray.tasks.task import Template

from .test_dispatch import Owner


def test_nothing_is_sent_behind_a_task_whose_run_time_is_not_known() -> None:
    owner = Owner()
    owner.submit(1)
    owner.grant(1)
    assert len(owner.turn()[0][1]) == 1
    owner.template = Template(owner.template.wire, owner.class_id, 3)
    owner.learn(10)
    short = owner.submit(3)
    assert owner.turn()[0] == {}
    owner.grant(2)
    assert owner.turn()[0] == {2: short}
