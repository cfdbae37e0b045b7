"""infeasible_timeout_s: what no node can ever run fails after that time, with the reason."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mray
from mray.exceptions import ActorUnschedulableError, TaskUnschedulableError

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MRAY_INFEASIBLE_TIMEOUT_S", "0.2")
        mray.init(address="local", num_cpus=1, log_to_driver=False)
        yield
        mray.shutdown()


def test_a_task_that_no_node_can_run_fails_with_the_numbers() -> None:
    @mray.remote(num_cpus=100)
    def big() -> None:
        return None

    refs = [big.remote(), big.remote()]
    for ref in [*refs, big.remote()]:  # The last one asks anew.
        with pytest.raises(TaskUnschedulableError, match="asked 100, there 1") as caught:
            mray.get(ref, timeout=30)
        assert "after 0.2 s (infeasible_timeout_s)" in str(caught.value)
        assert caught.value.task_name.endswith("big")


def test_an_actor_that_no_node_can_hold_fails_with_the_numbers() -> None:
    @mray.remote(num_cpus=100)
    class Big:
        def ping(self) -> None:
            return None

    actor = Big.remote()
    with pytest.raises(ActorUnschedulableError, match=r"100 CPU.*after 0.2 s") as caught:
        mray.get(actor.ping.remote(), timeout=30)
    assert caught.value.class_name.endswith("<locals>.Big")
    assert caught.value.actor_id == actor._actor_id.hex()


def test_what_only_waits_for_its_turn_is_left_alone() -> None:
    @mray.remote
    def sleeps(seconds: float) -> int:
        import time

        time.sleep(seconds)
        return 1

    assert mray.get([sleeps.remote(0.5), sleeps.remote(0)], timeout=30) == [1, 1]
