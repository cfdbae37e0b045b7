"""F5, F6, F8, F13, F14 at random over machines with a network between them: for `--soak`.

Workers and nodes are killed and stopped, cables are pulled, the head is killed and started again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import nemesis_history as checks
from ..nemesis import Nemesis, Target, workers_of
from ..nemesis_history import WRITER, History
from ..netcluster import NetCluster, NetNode, why_not
from ..quiescent import Watch, assert_quiescent
from ..waiting import eventually

pytestmark = [pytest.mark.failure, pytest.mark.soak]

SETTINGS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
OPTIONS = ("--num-cpus=2", "--resources", '{"away": 10}', "--object-store-memory=100MiB")
ROUNDS = int(os.environ.get("PYTEST_SOAK_ROUNDS", "200"))


@pytest.fixture
def machines() -> Iterator[NetCluster]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with NetCluster(SETTINGS) as cluster:
        cluster.add_node("--object-store-memory=100MiB", num_cpus=1)
        for _ in range(3):
            cluster.add_machine().start(f"--address={cluster.address}", *OPTIONS)
        yield cluster


def _bring_back(cluster: NetCluster, machine: NetNode) -> None:
    """A node that ended by itself is started again, as a supervisor would."""
    try:
        machine.daemon()
    except LookupError:
        machine.start(f"--address={cluster.address}", *OPTIONS)


def _target(cluster: NetCluster, machine: NetNode) -> Target:
    def workers() -> list[object]:
        try:
            return list(workers_of(machine.daemon().pid))
        except LookupError:
            return []

    def replace() -> None:
        try:
            machine.signal(signal.SIGKILL)
        except LookupError:
            pass
        _bring_back(cluster, machine)

    def node_pid() -> int:
        _bring_back(cluster, machine)
        return machine.daemon().pid

    return Target(
        machine.ip, workers, replace_node=replace, node_pid=node_pid,  # type: ignore[arg-type]
        cut_off=machine.pull_cable, reconnect=machine.plug_in,
    )  # fmt: skip


def _restart_head(cluster: NetCluster) -> None:
    first = cluster.nodes[0]
    record = first.signal(signal.SIGKILL, "head")
    eventually(lambda: not record.alive)
    first.start("--head", f"--port={cluster.port}")


@pytest.mark.parametrize("seed", range(3))
def test_every_fault_at_random_changes_no_result(
    machines: NetCluster, tmp_path: Path, seed: int
) -> None:
    log, history = tmp_path / "calls", History()
    driver = machines.nodes[0].driver()
    driver.do(
        "import gc, mray, nemesis_work\n"
        "mray.init('auto', log_to_driver=False)\n"
        f"work = nemesis_work.Work({str(log)!r}, {WRITER!r})\n"
    )
    machines.wait_for_nodes(4)
    driver.do("work.warm_up([n['NodeID'] for n in mray.nodes()])\nwork.begin(0)\nwork.end()")
    watch = Watch(machines)
    targets = [_target(machines, machine) for machine in machines.nodes[1:]]
    head = Target("head", list, restart_head=lambda: _restart_head(machines))
    nemesis = Nemesis([*targets, head], history, seed, longest_s=6.0)
    try:
        for number in range(1, ROUNDS + 1):
            driver.begin(f"work.begin({number})\nwork.end()")
            if number % 2:
                nemesis.step()
            eventually(lambda: _tended(machines) and driver.is_done(), 200, f"round {number}")
            driver.end()
        nemesis.heal()
        told = driver.do("result = sorted(work.acknowledged)")
        checks.check_work(log, {(name, caller, number) for name, caller, number in told})
        eventually(lambda: _all_back(machines), 60, "every node is back")
    except BaseException as error:
        raise AssertionError(f"{error}\n{history}") from error
    finally:
        nemesis.heal()
    driver.do("del work\ngc.collect()")
    assert_quiescent(watch, 60)


def _tended(cluster: NetCluster) -> bool:
    """Nodes that were declared dead have ended, and are brought back."""
    for machine in cluster.nodes[1:]:
        if not machine.is_cut_off:
            _bring_back(cluster, machine)
    return True


def _all_back(cluster: NetCluster) -> bool:
    _tended(cluster)
    return bool(
        cluster.drivers[0].do("result = sum(node['Alive'] for node in mray.nodes())")
        == len(cluster.nodes)
    )
