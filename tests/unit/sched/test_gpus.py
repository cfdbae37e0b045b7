"""Which GPUs of a node are whose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mray.machine import InvariantError
from mray.node.sched.gpu_service import GpuService
from mray.node.sched.gpus import Gpus, gpu_amount
from mray.node.sched.holds import Hold, Holds
from mray.placement import within
from mray.resources import UNIT
from mray.wire.messages import GetGpus, GpusHeld

HALF = UNIT // 2


def test_whole_gpus_go_to_one_holder_each() -> None:
    gpus = Gpus(4 * UNIT)
    assert [gpus.take(UNIT), gpus.take(2 * UNIT)] == [[0], [1, 2]]
    assert gpus.fits(UNIT)
    assert not gpus.fits(2 * UNIT)
    gpus.give_back([0], UNIT)
    assert gpus.take(2 * UNIT) == [0, 3]
    assert not gpus.fits(1)


def test_parts_share_a_gpu_and_leave_whole_ones_free() -> None:
    gpus = Gpus(2 * UNIT)
    assert [gpus.take(HALF), gpus.take(HALF // 2), gpus.take(UNIT)] == [[0], [0], [1]]
    assert gpus.fits(HALF // 2)
    assert not gpus.fits(HALF)


def test_parts_of_two_gpus_are_not_enough_for_what_needs_one() -> None:
    gpus = Gpus(2 * UNIT)
    for _ in range(2):
        gpus.take(6000)
    assert gpus.fits(4000)
    assert not gpus.fits(5000)
    with pytest.raises(InvariantError, match="5000 of GPUs was granted"):
        gpus.take(5000)


def test_a_node_may_have_a_part_of_a_gpu() -> None:
    gpus = Gpus(UNIT + HALF)
    assert gpus.take(UNIT) == [0]
    assert gpus.take(HALF) == [1]


def test_a_node_without_gpus_has_none_to_give() -> None:
    assert not Gpus(0)
    assert Gpus(0).take(0) == []


def test_needs_in_a_placement_group_count() -> None:
    assert gpu_amount(within({"CPU": UNIT, "GPU": HALF}, b"g", 1)) == HALF
    assert gpu_amount({"CPU": UNIT}) == 0


@given(st.lists(st.tuples(st.integers(1, 5), st.sampled_from([1000, 3000, HALF, UNIT, 2 * UNIT]))))
def test_nothing_is_given_twice_and_all_comes_back(steps: list[tuple[int, int]]) -> None:
    gpus, held = Gpus(4 * UNIT), list[tuple[list[int], int]]()
    for choice, amount in steps:
        if gpus.fits(amount):
            held.append((gpus.take(amount), amount))
        elif held:
            gpus.give_back(*held.pop(choice % len(held)))
        gpus.check()
        used = [0] * 4
        for numbers, amount_held in held:
            for number in numbers:
                used[number] += min(amount_held, UNIT)
        assert list(gpus.free.values()) == [UNIT - part for part in used]
    for numbers, amount_held in held:
        gpus.give_back(numbers, amount_held)
    assert list(gpus.free.values()) == [UNIT] * 4


def test_a_worker_is_told_what_it_holds() -> None:
    holds, said = Holds({"CPU": UNIT, "GPU": 2 * UNIT}), list[tuple[bytes, object]]()
    service = GpuService(holds, lambda to, message: said.append((to, message)))
    hold = Hold(1, b"owner", 1, b"worker", {"GPU": UNIT}, None)
    holds.add(hold)
    service.handlers[GetGpus](b"worker", GetGpus(7))
    service.handlers[GetGpus](b"other", GetGpus(8))
    assert said == [(b"worker", GpusHeld(7, [0])), (b"other", GpusHeld(8, []))]
    holds.remove(hold)
    holds.check()
    assert list(holds.gpus.free.values()) == [UNIT, UNIT]


def test_a_bundle_has_numbers_of_its_own() -> None:
    gpus = Gpus(3 * UNIT)
    part = gpus.part(UNIT + HALF)
    assert (part.free, gpus.free) == ({0: UNIT, 1: HALF}, {0: 0, 1: HALF, 2: UNIT})
    assert [part.take(HALF), gpus.take(HALF), part.take(UNIT)] == [[1], [1], [0]]
    with pytest.raises(InvariantError, match="come back in use"):
        gpus.join(part)
    part.give_back([1], HALF)
    part.give_back([0], UNIT)
    gpus.join(part)
    assert list(gpus.free.values()) == [UNIT, HALF, UNIT]
    gpus.check()


def test_bundles_find_room_one_after_the_other() -> None:
    gpus = Gpus(2 * UNIT)
    assert gpus.fits_parts([UNIT, HALF, HALF, 0])
    assert not gpus.fits_parts([HALF + 1, HALF + 1, HALF])
    assert list(gpus.free.values()) == [UNIT, UNIT]
