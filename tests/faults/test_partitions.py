"""F13 to F17: networks that are cut, one way or both, and slow, between the machines of a cluster.

Machines are network namespaces (netcluster.py). A node counts as dead after three seconds here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .. import nemesis_history as checks
from ..nemesis_history import WRITER
from ..netcluster import Driver, NetCluster, NetNode, why_not
from ..quiescent import Watch, assert_quiescent
from ..waiting import eventually

pytestmark = pytest.mark.failure

DEAD_AFTER_S = 3.0
SETTINGS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": str(int(DEAD_AFTER_S * 1000)),
    "RAY_health_check_failure_threshold": "3",
}

PROGRAM = """
import os, time, numpy, mray
mray.init('auto', namespace='faults', log_to_driver=False)

@mray.remote(max_retries=5)
def on(number, hold=None):
    note('begin', 'task', number)
    while hold and not os.path.exists(hold):
        time.sleep(0.01)
    note('end', 'task', number)
    return number, os.getpid()

@mray.remote(max_retries=5)
def make(size):
    return numpy.arange(size, dtype='uint8')

@mray.remote(max_retries=5)
def total(array):
    return int(array.astype('int64').sum())

@mray.remote(max_restarts=5, max_task_retries=5, num_cpus=0)
class Teller:
    def __init__(self):
        note('born', 'teller', 0)
    def call(self, number):
        note('begin', 'teller', number)
        note('end', 'teller', number)
        return number
    def pid(self):
        return os.getpid()
"""


class Three:
    """The head and a driver on one machine, two more nodes with resources of their names."""

    def __init__(self, cluster: NetCluster, log: Path) -> None:
        self.cluster = cluster
        self.log = log
        self.first = cluster.add_node("--resources", '{"first": 100}', num_cpus=1)
        self.left = cluster.add_node("--resources", '{"left": 100, "away": 100}')
        self.right = cluster.add_node("--resources", '{"right": 100, "away": 100}')
        #: Looks, while the other works.
        self.eyes = self.begin(self.first)
        self.driver = self.begin(self.first)
        cluster.wait_for_nodes(3)

    def warm_up(self) -> None:
        """Workers and bulk connections are made when they are first needed."""
        self.driver.do(
            "places = ('first', 'left', 'right')\n"
            "warm = [make.options(resources={name: 1}).remote(1 << 20) for name in places]\n"
            "mray.get([total.options(resources={name: 1}).remote(each)\n"
            "          for name in places for each in warm])\n"
            "mray.get(warm)\ndel warm"
        )

    def begin(self, machine: NetNode) -> Driver:
        """A driver with the program above."""
        driver = machine.driver()
        driver.do(f"LOG = {str(self.log)!r}\n{WRITER}{PROGRAM}")
        return driver

    def alive(self) -> int:
        count = self.eyes.do("result = sum(node['Alive'] for node in mray.nodes())")
        assert isinstance(count, int)
        return count


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    with NetCluster(SETTINGS) as cluster:
        yield Three(cluster, tmp_path_factory.mktemp("calls") / "calls")


@pytest.fixture(autouse=True)
def rest(three: Three) -> Iterator[None]:
    """Each test begins with three living nodes and an empty log, and ends at rest."""
    three.log.unlink(missing_ok=True)
    three.warm_up()
    watch = Watch(three.cluster)
    yield
    three.driver.do("import gc\ngc.collect()")
    assert_quiescent(watch)
    eventually(lambda: three.alive() == 3, 20, "three living nodes")


def test_a_short_cut_evicts_nobody_and_runs_nothing_twice(three: Three, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    three.driver.do(
        "teller = Teller.options(resources={'left': 1}).remote()\n"
        "pid = mray.get(teller.pid.remote())\n"
        f"held = [on.options(resources={{'left': 1}}).remote(i, {str(hold)!r}) for i in range(2)]\n"
    )
    eventually(lambda: three.log.read_text().count("begin task") == 2)
    three.left.pull_cable()
    try:
        three.driver.begin(
            "calls = [teller.call.remote(i) for i in range(50)]\n"
            "more = [on.options(resources={'left': 1}).remote(100 + i) for i in range(20)]\n"
            "result = mray.get(calls, timeout=60)"
        )
        hold.touch()  # What runs there ends while nobody can be told.
        eventually(lambda: three.log.read_text().count("end task") == 2)
        time.sleep(1.0)  # The fault itself lasts this long.
        assert not three.driver.is_done()
    finally:
        three.left.plug_in()
    assert three.driver.end(60) == list(range(50))
    numbers = three.driver.do("result = [n for n, _ in mray.get(held + more, timeout=60)]")
    assert numbers == [0, 1, *range(100, 120)]
    assert three.driver.do("result = mray.get(teller.pid.remote()) == pid")
    assert three.alive() == 3
    three.driver.do("del teller, held, more, calls")
    checks.check_at_most_once(checks.read(three.log))


def test_a_long_cut_moves_the_work_and_the_node_comes_back_as_another(
    three: Three, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    old = three.left.daemon()
    three.driver.do(
        "teller = Teller.options(resources={'away': 1}).remote()\n"
        "where = mray.get(teller.pid.remote())\n"
        f"held = [on.options(resources={{'left': 1}}).remote(i, {str(hold)!r}) for i in range(2)]\n"
    )
    eventually(lambda: three.log.read_text().count("begin task") == 2)
    workers = three.left.workers()
    three.left.pull_cable()
    try:
        eventually(lambda: three.alive() == 2, DEAD_AFTER_S + 7, "the node counts as dead")
        three.driver.do("calls = mray.get([teller.call.remote(i) for i in range(50)], timeout=60)")
        hold.touch()  # The first attempts end too, where nobody hears of it.
        eventually(lambda: three.log.read_text().count("end task") >= 2)
    finally:
        three.left.plug_in()
    # Whoever was declared dead ends its workers before it says anything else.
    eventually(lambda: not old.alive, 20, "the old node daemon has ended")
    assert not any(worker.is_running() for worker in workers)
    if three.alive() < 3:
        three.left.start(f"--address={three.cluster.address}", "--num-cpus=2",
                         "--resources", '{"left": 100, "away": 100}')  # fmt: skip
    numbers = three.driver.do("result = [n for n, _ in mray.get(held, timeout=60)]", 70)
    assert numbers == [0, 1]
    three.driver.do("del teller, held, calls")
    lines = checks.read(three.log)
    checks.check_attempts(lines, 2)
    checks.check_order([line for line in lines if line.actor == "teller"])


def test_a_cut_between_two_nodes_that_both_see_the_head_delays_and_hangs_nobody(
    three: Three,
) -> None:
    three.driver.do(
        "big = make.options(resources={'left': 1}).remote(8 << 20)\nmray.wait([big])\n"
    )
    three.right.block(three.left)
    try:
        three.driver.begin(
            "result = mray.get(total.options(resources={'right': 1}).remote(big), timeout=60)"
        )
        seven = three.eyes.do("result = mray.get(on.options(resources={'right': 1}).remote(7))")
        assert seven[0] == 7
        # Whoever waits with a limit is not kept beyond it.
        waited_s = three.eyes.do(
            "never = on.options(resources={'right': 1}).remote(8, '/nowhere')\n"
            "began = time.monotonic()\n"
            "try: mray.get(never, timeout=0.5)\n"
            "except mray.exceptions.GetTimeoutError: result = time.monotonic() - began\n"
            "mray.cancel(never)\ndel never"
        )
        assert 0.5 <= waited_s < 1.5
        assert three.alive() == 3
    finally:
        three.right.unblock(three.left)
    assert three.driver.end(70) == sum(range(256)) * (8 << 20) // 256
    three.driver.do("del big")


def test_a_driver_whose_machine_vanishes_leaves_only_what_is_detached(three: Three) -> None:
    lost = three.begin(three.left)
    pids = lost.do(
        "kept = Teller.options(name='kept', lifetime='detached', resources={'right': 1}).remote()\n"
        "mine = Teller.options(resources={'right': 1}).remote()\n"
        "big = make.options(resources={'right': 1}).remote(4 << 20)\n"
        "mray.wait([big], fetch_local=False)\n"
        "result = mray.get([kept.pid.remote(), mine.pid.remote()])"
    )
    three.left.pull_cable()
    try:
        eventually(lambda: not Path(f"/proc/{pids[1]}").exists(), 30, "its actor has ended")
        assert Path(f"/proc/{pids[0]}").exists()
        assert three.driver.do(
            "kept = mray.get_actor('kept')\nresult = mray.get(kept.call.remote(1), timeout=20)"
        ) == 1  # fmt: skip
        eventually(lambda: not three.cluster.look(True)["store"], 30, "its objects are freed")
    finally:
        lost.kill()
        three.cluster.drivers.remove(lost)
        three.left.plug_in()
        three.driver.do("mray.kill(kept)\ndel kept")
    old = three.left.daemon()
    eventually(lambda: not old.alive or three.alive() == 3, 20)
    if three.alive() < 3:
        three.left.start(f"--address={three.cluster.address}", "--num-cpus=2",
                         "--resources", '{"left": 100, "away": 100}')  # fmt: skip


def test_a_slow_line_moves_a_large_object_and_nobody_is_taken_for_dead(three: Three) -> None:
    size = 4 << 20
    three.driver.do(f"big = make.options(resources={{'left': 1}}).remote({size})\nmray.wait([big])")
    three.left.slow_down("8mbit")
    try:
        three.driver.begin(
            "result = mray.get(total.options(resources={'right': 1}).remote(big), timeout=100)"
        )
        rounds = 0
        while not three.driver.is_done():
            (number, _) = three.eyes.do(
                "result = mray.get(on.options(resources={'left': 1}).remote(3))"
            )
            assert number == 3
            rounds += 1
        assert rounds > 3
        assert three.alive() == 3
    finally:
        three.left.full_speed()
    assert three.driver.end(110) == sum(range(256)) * size // 256
    three.driver.do("del big")


