"""Tasks run where most of their arguments lie."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import mray

from ...waiting import eventually
from .conftest import Three

pytestmark = pytest.mark.integration
PATIENCE_S = 30


@mray.remote(num_cpus=0, resources={"right": 1})
def make(size: int) -> Any:
    return numpy.ones(size, "uint8")


@mray.remote
def look(*arrays: Any) -> str:
    assert all(array.sum() == array.size for array in arrays)
    return str(mray.get_runtime_context().get_node_id())


def test_a_task_goes_to_the_node_of_its_big_argument(three: Three) -> None:
    big = make.remote(4 << 20)
    mray.wait([big], timeout=PATIENCE_S, fetch_local=False)
    eventually(lambda: mray.get(look.remote(big), timeout=PATIENCE_S) == three.right.node_id)


def test_small_arguments_move_no_task(three: Three) -> None:
    small = make.remote(200_000)
    mray.wait([small], timeout=PATIENCE_S, fetch_local=False)
    eventually(lambda: mray.get(look.remote(small), timeout=PATIENCE_S) == three.head.node_id)


def test_a_node_without_room_is_not_waited_for(three: Three) -> None:
    big = make.remote(2 << 20)
    mray.wait([big], timeout=PATIENCE_S, fetch_local=False)
    places = mray.get([look.remote(big) for _ in range(40)], timeout=PATIENCE_S)
    assert set(places) <= set(three.ids())
