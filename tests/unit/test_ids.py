"""Widths, forms and uniqueness of ids."""

from __future__ import annotations

import pytest

from mray import ids
from mray.ids import IdMaker, JobId

JOB = JobId(b"\x01\0\0\0")


def test_ids_have_rays_widths() -> None:
    maker = IdMaker(b"u" * 12, JOB)
    task = maker.task()
    assert len(ids.job_id(1)) == ids.JOB_BYTES == 4
    assert len(maker.actor()) == ids.ACTOR_BYTES == 16
    assert len(task) == ids.TASK_BYTES == 24
    assert len(ids.object_id(task, 1)) == len(maker.put()) == ids.OBJECT_BYTES == 28
    assert len(ids.new_process_id()) == ids.PROCESS_BYTES == 28
    assert len(ids.new_node_id()) == ids.NODE_BYTES == 28


def test_a_job_id_prints_as_ray_prints_it() -> None:
    assert ids.job_id(1).hex() == "01000000"


def test_a_process_id_is_fresh_and_never_begins_with_zero() -> None:
    made = {ids.new_process_id() for _ in range(100)}
    assert len(made) == 100
    assert all(process_id[0] for process_id in made)


def test_an_object_names_its_task_and_its_job() -> None:
    task = IdMaker(b"u" * 12, JOB).task()
    first, second = ids.object_id(task, 1), ids.object_id(task, 2)
    assert first != second
    assert ids.task_of(first) == ids.task_of(second) == task
    assert first[20:24] == JOB


def test_ids_of_one_maker_and_of_two_differ() -> None:
    one, other = IdMaker(b"u" * 12, JOB), IdMaker(b"v" * 12, JOB)
    made = [make() for maker in (one, other) for make in (maker.task, maker.put) for _ in range(50)]
    assert len(set(made)) == 200
    actors = [one.actor() for _ in range(50)]
    assert len(set(actors)) == 50
    assert all(actor.endswith(JOB) for actor in actors)


def test_an_actors_count_wraps_within_its_bytes() -> None:
    assert len(IdMaker(b"\xff" * 12, JOB).actor()) == ids.ACTOR_BYTES


def test_a_put_has_index_zero_which_no_return_has() -> None:
    assert IdMaker(b"u" * 12, JOB).put().endswith(b"\0\0\0\0")


@pytest.mark.parametrize("width", [0, 11, 13])
def test_a_maker_needs_twelve_unique_bytes(width: int) -> None:
    with pytest.raises(ValueError, match="12 unique bytes"):
        IdMaker(b"u" * width, JOB)


def test_a_process_id_tells_its_node_and_whether_it_is_a_heads() -> None:
    node, other = ids.new_node_id(), ids.new_node_id()
    worker, head = ids.new_process_id(node), ids.new_head_id()
    assert ids.is_on(worker, node)
    assert ids.is_on(node, node)
    assert not ids.is_on(worker, other)
    assert not ids.is_on(head, node)
    assert ids.is_head(head)
    assert not ids.is_head(worker)
    assert len(worker) == len(head) == ids.PROCESS_BYTES
    assert ids.new_process_id(node) != worker
