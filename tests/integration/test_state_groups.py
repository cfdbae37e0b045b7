"""Placement groups in ray.util.state."""

from __future__ import annotations

import pytest

import mray
from mray.util.placement_group import placement_group, remove_placement_group
from mray.util.state import get_placement_group, list_placement_groups

from ..waiting import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster(nothing_left_behind: None):
    mray.init(address="local", num_cpus=2, log_to_driver=False)
    yield
    mray.shutdown()


def test_a_group_is_listed_with_its_bundles() -> None:
    group = placement_group([{"CPU": 1}, {"CPU": 0.5}], name="pair", strategy="SPREAD")
    assert group.wait(30)
    group_id = group.id.hex()
    [told] = list_placement_groups(filters=[("name", "=", "pair")])
    assert (told.placement_group_id, told.state) == (group_id, "CREATED")
    assert told.creator_job_id == mray.get_runtime_context().get_job_id()
    assert told.bundles is None, "only where details are asked for"

    detailed = get_placement_group(group_id)
    assert detailed is not None
    assert detailed.bundles is not None
    node_id = mray.get_runtime_context().get_node_id()
    assert detailed.bundles == [
        {"bundle_index": 0, "unit_resources": {"CPU": 1.0}, "node_id": node_id},
        {"bundle_index": 1, "unit_resources": {"CPU": 0.5}, "node_id": node_id},
    ]
    assert (detailed.is_detached, detailed.strategy) == (False, "SPREAD")

    remove_placement_group(group)

    def state() -> str | None:
        told = get_placement_group(group_id)
        return told.state if told is not None else None

    eventually(lambda: state() == "REMOVED")


def test_one_that_waits_says_why() -> None:
    group = placement_group([{"CPU": 50}])
    assert not group.wait(0.2)
    told = get_placement_group(group.id.hex())
    assert told is not None
    assert told.state == "PENDING"
    assert "50" in (told.reason or "")
    remove_placement_group(group)
    assert get_placement_group("ab" * 16) is None
    with pytest.raises(ValueError, match="there is no 'colour'"):
        list_placement_groups(filters=[("colour", "=", "red")])
