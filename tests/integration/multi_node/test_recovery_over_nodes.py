"""Objects on nodes that die: other copies, results made again, and what cannot be had.

All that the tests look at is made first, on two nodes. Then both die at once, and another comes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mray
from mray import current
from mray.cluster_utils import Cluster, ClusterNode
from mray.exceptions import (
    ActorDiedError,
    ObjectReconstructionFailedError,
    ObjectReconstructionFailedLineageEvictedError,
    OwnerDiedError,
)
from mray.units import MIB
from mray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ...run_log import Log
from ...waiting import eventually
from .conftest import SETTINGS

pytestmark = pytest.mark.integration
PATIENCE_S = 40


class World:
    """The head's node without CPUs, where the driver is, and two more."""

    def __init__(self, path: Path) -> None:
        self.log = Log(path)
        self.cluster = Cluster(
            True, head_node_args={"num_cpus": 0, "_system_config": dict(SETTINGS)}
        )
        self.cluster.connect(log_to_driver=False)
        assert self.cluster.head_node is not None
        self.head: ClusterNode = self.cluster.head_node
        self.nodes = [self._add(), self._add()]
        #: What was made before the loss, by who made it.
        self.made: dict[str, Any] = {}

    def _add(self) -> ClusterNode:
        return self.cluster.add_node(num_cpus=2, object_store_memory=100 * MIB)

    def lose(self) -> None:
        """Both nodes die at once, one takes their place, and the driver has heard."""
        going, self.nodes = self.nodes, []
        for node in going:  # Else the second would make again what the first has lost.
            os.kill(node.raylet_pid, signal.SIGKILL)
        for node in going:
            self.cluster.remove_node(node, allow_graceful=False)
        gone = {bytes.fromhex(node.node_id) for node in going}
        eventually(lambda: gone <= set(current.get().dead_nodes), 20, "the driver has heard")
        self.nodes = [self._add()]

    def at(self, node: ClusterNode) -> NodeAffinitySchedulingStrategy:
        """Only there."""
        return NodeAffinitySchedulingStrategy(node.node_id, soft=False)


Prepare = Callable[[World], Any]
PREPARED: list[Prepare] = []


def before_the_loss(prepare: Prepare) -> Prepare:
    """What it returns is in ``World.made`` under its name."""
    PREPARED.append(prepare)
    return prepare


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("recovery") / "log")
    made.made = {prepare.__name__: prepare(made) for prepare in PREPARED}
    made.lose()
    yield made
    made.made.clear()
    rt = current.get()
    eventually(lambda: not rt.references.lineage.records, what="lineage is let go")
    eventually(lambda: not rt.recovering.rebuilding.jobs, what="the last generator has ended")
    assert not rt.recovering.locations.copies
    made.cluster.shutdown()


@mray.remote
def make(log: Log, name: str, value: int, *needs: Any) -> Any:
    log.note(name)
    return np.full(MIB, value, np.uint8)


@mray.remote
def first_of(value: Any) -> int:
    return int(value[0])


def there(*refs: Any) -> None:
    """Wait until values are made, and have none of them brought here."""
    ready, _ = mray.wait(list(refs), num_returns=len(refs), timeout=PATIENCE_S, fetch_local=False)
    assert len(ready) == len(refs)


def get(ref: Any) -> Any:
    return mray.get(ref, timeout=PATIENCE_S)


@before_the_loss  # The first: it lets go of the descriptions of all tasks before.
def many_descriptions(world: World) -> list[Any]:
    lineage = current.get().references.lineage
    former, lineage.max_bytes = lineage.max_bytes, 100_000
    refs = []
    for number in range(6):
        refs.append(make.remote(world.log, "described", number, b"x" * 20_000))
        there(refs[-1])
    lineage.max_bytes = former
    return refs


def test_beyond_the_cap_of_the_lineage_the_error_says_so(world: World) -> None:
    refs = world.made.pop("many_descriptions")
    with pytest.raises(ObjectReconstructionFailedLineageEvictedError) as caught:
        get(refs[0])
    assert caught.value.reason == "OBJECT_UNRECONSTRUCTABLE_LINEAGE_EVICTED"
    assert get(refs[-1])[0] == 5
    del caught


@before_the_loss
def three_hops(world: World) -> Any:
    first = make.remote(world.log, "first", 1)
    second = make.remote(world.log, "second", 2, first)
    third = make.remote(world.log, "third", 3, second)
    there(third)
    return third


def test_three_hops_are_run_again_when_only_the_last_is_held(world: World) -> None:
    assert get(world.made.pop("three_hops"))[0] == 3
    assert all(world.log.count(name) == 2 for name in ("first", "second", "third"))


@before_the_loss
def copied(world: World) -> Any:
    ref = make.remote(world.log, "copied", 7)
    there(ref)
    value = get(ref)
    locations = current.get().recovering.locations
    eventually(lambda: ref.binary() in locations.copies, what="the owner knows of the copy")
    return ref, value


def test_a_copy_elsewhere_is_used_and_nothing_runs_again(world: World) -> None:
    ref, value = world.made.pop("copied")
    assert get(first_of.remote(ref)) == value[0] == 7
    assert world.log.count("copied") == 1


@before_the_loss
def both_copies(world: World) -> Any:
    ref = make.remote(world.log, "two copies", 7)
    for node in world.nodes:
        assert get(first_of.options(scheduling_strategy=world.at(node)).remote(ref)) == 7
    return ref


def test_both_copies_lost_at_once_are_one_run(world: World) -> None:
    ref = world.made.pop("both_copies")
    assert get(first_of.remote(ref)) == 7
    assert world.log.count("two copies") == 2


@before_the_loss
def held(world: World) -> list[Any]:
    refs = [make.remote(world.log, "held", number) for number in range(6)]
    there(*refs)
    return refs


def test_results_that_are_held_are_made_again_unasked(world: World) -> None:
    eventually(lambda: world.log.count("held") == 12, PATIENCE_S, "all of them are made again")
    assert [int(get(ref)[0]) for ref in world.made.pop("held")] == list(range(6))
    assert world.log.count("held") == 12


@before_the_loss
def with_put(world: World) -> Any:
    ref = make.remote(world.log, "with put", 7, mray.put(np.full(MIB, 5, np.uint8)))
    there(ref)
    return ref


def test_a_put_argument_that_is_dropped_is_there_for_the_second_run(world: World) -> None:
    assert get(world.made.pop("with_put"))[0] == 7
    assert world.log.count("with put") == 2


@before_the_loss
def without_retries(world: World) -> Any:
    ref = make.options(max_retries=0).remote(world.log, "once", 7)
    there(ref)
    return ref


def test_without_retries_a_lost_result_is_an_error_for_dependents_too(world: World) -> None:
    ref = world.made.pop("without_retries")
    with pytest.raises(ObjectReconstructionFailedError, match="max_retries") as caught:
        get(ref)
    assert "which is gone" in str(caught.value)
    with pytest.raises(ObjectReconstructionFailedError):
        get(first_of.remote(ref))
    assert world.log.count("once") == 1
    del caught


@mray.remote
class Owner:
    def put(self) -> list[Any]:
        self.ref = mray.put(np.zeros(MIB, np.uint8))
        return [self.ref]


@before_the_loss
def put_elsewhere(world: World) -> Any:
    owner = Owner.remote()
    return owner, get(owner.put.remote())[0]


def test_what_was_put_by_a_process_that_is_gone_has_no_owner(world: World) -> None:
    _, ref = world.made.pop("put_elsewhere")
    with pytest.raises(OwnerDiedError):
        get(ref)


class Maker:
    def make(self, log: Log) -> Any:
        log.note("actor")
        return np.full(MIB, 4, np.uint8)


@before_the_loss
def of_actors(world: World) -> Any:
    makers = [
        mray.remote(max_restarts=restarts, max_task_retries=retries)(Maker).remote()
        for restarts, retries in ((-1, -1), (0, -1), (-1, 0))
    ]
    refs = [maker.make.remote(world.log) for maker in makers]
    there(*refs)
    return makers, refs


def test_results_of_actors_come_back_where_both_may_go_on(world: World) -> None:
    makers, refs = world.made.pop("of_actors")
    assert get(refs[0])[0] == 4
    with pytest.raises(ActorDiedError):
        get(refs[1])
    with pytest.raises(ObjectReconstructionFailedError, match="max_task_retries"):
        get(refs[2])
    for maker in (makers[0], makers[2]):
        mray.kill(maker)


@mray.remote
def shrink(log: Log) -> Any:
    return np.zeros(MIB if log.note("shrink") == 1 else 3, np.uint8)


@before_the_loss
def shrinking(world: World) -> Any:
    ref = shrink.remote(world.log)
    there(ref)
    return ref


def test_a_result_of_another_size_is_taken_as_it_is(world: World) -> None:
    assert len(get(world.made.pop("shrinking"))) == 3


@mray.remote(num_cpus=0)
class Reader:
    def hold(self, refs: list[Any]) -> None:
        self.refs = refs

    def read(self) -> int:
        return int(mray.get(self.refs[0])[0])


@before_the_loss
def borrowed(world: World) -> Any:
    reader = Reader.options(scheduling_strategy=world.at(world.head)).remote()
    ref = make.remote(world.log, "borrowed", 7)
    there(ref)
    get(reader.hold.remote([ref]))
    return reader


def test_a_borrower_waits_for_what_its_owner_has_made_again(world: World) -> None:
    reader = world.made.pop("borrowed")
    assert get(reader.read.remote()) == 7
    assert world.log.count("borrowed") == 2
    mray.kill(reader)


@mray.remote(num_returns="streaming", max_retries=-1)
def yield_four(log: Log) -> Any:
    log.note("generator")
    for number in range(4):
        yield np.full(MIB, number, np.uint8)


@before_the_loss
def items(world: World) -> list[Any]:
    refs = list(yield_four.remote(world.log))
    there(*refs)
    return refs


def test_items_of_a_generator_come_back_in_one_run(world: World) -> None:
    assert [int(get(ref)[0]) for ref in world.made.pop("items")] == [0, 1, 2, 3]
    assert world.log.count("generator") == 2


@before_the_loss
def local_put(world: World) -> Any:
    return mray.put(np.full(MIB, 6, np.uint8))


def test_what_the_driver_has_put_is_not_concerned(world: World) -> None:
    assert get(world.made.pop("local_put"))[0] == 6
