"""A soak: a cluster of machines, a steady load, a fault every few seconds, and a report of it.

``Soak`` puts the parts together. Machine 1 has the head and one driver, machine 2 the other
drivers: a driver's death is an outcome of its own, so their nodes are left alone, but for the head,
which is killed and comes back. The other machines suffer: workers killed and stopped, node daemons
killed and stopped, cables pulled. Who supervises a machine starts its node again where it has
ended: after a kill, or because it was silent for too long and ended itself.

A node counts as dead after ``DEAD_AFTER_S``, so that of the partitions (2-8 s) and stops (1-20 s)
some are sat out and some are deaths, after which the node comes back to hear that it is dead.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from . import nemesis_history as checks
from .nemesis import Nemesis, Target, workers_of
from .nemesis_history import WRITER, History
from .nemesis_report import BACK, Daemon, Report, Tail, Timeline
from .netcluster import Driver, NetCluster, NetNode
from .quiescent import Watch, assert_quiescent, dump_of
from .quiescent_outside import count_descriptors, daemons
from .waiting import eventually

DEAD_AFTER_S = 5.0
SETTINGS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": str(int(DEAD_AFTER_S * 1000)),
    "RAY_health_check_failure_threshold": "5",
}
_STORE = "--object-store-memory=200MiB"
_HURT = ("--num-cpus=2", "--resources", '{"away": 10}', _STORE)
#: All strands of a driver at once without an acknowledged call. A worker is stopped for 20 s at
#: most, and nobody can know that it will not go on; that its node is dead is known after
#: DEAD_AFTER_S, and another one is there seconds later. All strands would have to wait for that.
SILENCE_S = 30.0
#: One strand, for a round: it may meet several such harms. Strands wait 90 s for a result, so
#: beyond that something hangs that cannot give up.
HANG_S = 100.0
_SLOT_S = 0.5
_SAMPLE_S = 5.0


@dataclass(frozen=True)
class Plan:
    """How long what takes, in seconds. ``first``: the harms to begin with."""

    seed: int
    machines: int
    drivers: int
    quiet_s: float
    harm_s: float
    period_s: float
    #: After all is healed: until throughput is back, and at most so long.
    calm_s: float
    lasts_s: dict[str, tuple[float, float]]
    first: tuple[str, ...] = ()


class _Machine:
    """One that suffers, and who starts its node again."""

    def __init__(self, cluster: NetCluster, history: History) -> None:
        self._cluster = cluster
        self._history = history
        self._over = threading.Event()
        self.node = cluster.add_machine()
        self.node.start(f"--address={cluster.address}", *_HURT)
        self._supervisor = threading.Thread(target=self._supervise, name=f"of {self.node.ip}")

    def begin(self) -> None:
        self._supervisor.start()

    def end(self) -> None:
        self._over.set()
        if self._supervisor.is_alive():
            self._supervisor.join()

    def target(self) -> Target:
        return Target(
            self.node.ip, self._workers, replace_node=self._kill,
            node_pid=lambda: self.node.daemon().pid,
            cut_off=self.node.pull_cable, reconnect=self.node.plug_in,
        )  # fmt: skip

    def _workers(self) -> list[psutil.Process]:
        try:
            return workers_of(self.node.daemon().pid)
        except LookupError:
            return []

    def _kill(self) -> None:
        self.node.signal(signal.SIGKILL)

    def _supervise(self) -> None:
        while not self._over.wait(0.2):
            if self.node.is_cut_off or self._runs():
                continue
            self._history.add("has ended", machine=self.node.ip)
            try:
                self.node.start(f"--address={self._cluster.address}", *_HURT)
                self._history.add("started again", machine=self.node.ip)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                # The head may be away, or the cable be pulled meanwhile.
                self._history.add("not started", machine=self.node.ip, error=str(error))

    def _runs(self) -> bool:
        try:
            return bool(self.node.daemon())
        except LookupError:
            return False


class Soak:
    """See the module. ``folder`` is for its files; ``say`` gets a line now and then."""

    def __init__(self, cluster: NetCluster, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.history = History()
        self._cluster = cluster
        self._folder = folder
        self._log, self._until = folder / "calls", folder / "until"
        cluster.add_node(_STORE, num_cpus=1)
        cluster.add_node(_STORE, num_cpus=0)
        self._machines = [_Machine(cluster, self.history) for _ in range(plan.machines)]
        #: The first looks, the others work.
        self._eyes = self._driver(cluster.nodes[0])
        cluster.wait_for_nodes(2 + plan.machines)
        self._drivers = {
            f"driver{n}": self._driver(cluster.nodes[min(n, 1)]) for n in range(plan.drivers)
        }
        self._tails = {name: Tail(folder / f"{name}.progress") for name in self._drivers}
        self._timeline = Timeline(_SLOT_S)
        self._seen: dict[tuple[int, float], Daemon] = {}
        self._acknowledged: set[tuple[str, int, int]] = set()
        #: What went wrong first in each driver, and the state of everything then.
        self.dumps: dict[str, str] = {}
        self._one_dump = threading.Lock()
        self._dumping: list[threading.Thread] = []

    def _driver(self, machine: NetNode) -> Driver:
        driver = machine.driver()
        driver.do("import gc, mray, nemesis_load\nmray.init('auto', log_to_driver=False)")
        return driver

    def run(self) -> Report:
        """All of it; the report holds what was found, wrong or not. AssertionError with a dump: a
        driver hangs or has ended, or the cluster does not come to rest."""
        for name, driver in self._drivers.items():
            words = (name, str(self._log), WRITER, str(self._tails[name].path), _SLOT_S)
            driver.do(f"load = nemesis_load.Load(*{words!r})")
        for _ in range(2):
            self._on_all("load.warm_up()")
        watch = Watch(self._cluster)
        targets = [machine.target() for machine in self._machines]
        head = Target("head", list, restart_head=self._restart_head)
        nemesis = Nemesis(
            [*targets, head], self.history, self.plan.seed, lasts_s=self.plan.lasts_s
        )
        try:
            for machine in self._machines:
                machine.begin()
            with self._sampling():
                report = self._under_load(nemesis)
            self._check(report)
            for machine in self._machines:
                machine.end()
            self._on_all("del load\ngc.collect()")
            assert_quiescent(watch, 60)
        except BaseException as error:
            raise AssertionError(f"{error}\n{self.history}") from error
        finally:
            nemesis.heal()
            for machine in self._machines:
                machine.end()
            for thread in self._dumping:
                thread.join()
        return report

    def _on_all(self, program: str) -> None:
        for driver in self._drivers.values():
            driver.begin(program)
        for driver in self._drivers.values():
            driver.end(HANG_S)

    def _under_load(self, nemesis: Nemesis) -> Report:
        for driver in self._drivers.values():
            driver.begin(f"result = load.run({str(self._until)!r})")
        # The first second is that of warm-up.
        self._watch_for(1.0)
        quiet = self._watch_for(self.plan.quiet_s)
        with nemesis.run(self.plan.period_s, self.plan.first):
            harm = self._watch_for(self.plan.harm_s)
        began_at = time.monotonic()
        wanted = BACK * self._timeline.rate(*quiet)
        while time.monotonic() < began_at + self.plan.calm_s:
            self._watch_for(1.0)
            if self._timeline.recovery_s(began_at, _told_until(), wanted) is not None:
                break
        calm = began_at, _told_until()
        self._until.touch()
        told = {name: driver.end(HANG_S) for name, driver in self._drivers.items()}
        self._take_up()
        refused: Counter[str] = Counter()
        for each in told.values():
            refused.update(each["refused"])
        self._acknowledged = {
            (actor, 0, number) for each in told.values() for actor, number in each["calls"]
        }
        return Report(
            self.plan.seed, self._timeline, nemesis.faults, quiet, harm, calm, refused,
            [f"{name}: {line}" for name, each in told.items() for line in each["wrong"]],
            [f"{name}: {line}" for name, each in told.items() for line in each["errors"]],
            [],
            {name: each["gaps"] for name, each in told.items()},
            list(self._seen.values()),
        )  # fmt: skip

    def _watch_for(self, seconds: float) -> tuple[float, float]:
        """Begin and end. AssertionError, with a dump: a driver hangs or has ended."""
        began_at = time.monotonic()
        while (now := time.monotonic()) < began_at + seconds:
            time.sleep(min(1.0, began_at + seconds - now))
            self._take_up()
            for name, driver in self._drivers.items():
                assert not driver.is_done(), f"{name} has ended\n{dump_of(self._cluster)}"
        return began_at, time.monotonic()

    def _take_up(self) -> None:
        """What drivers have told since the last time."""
        for name, tail in self._tails.items():
            for line in tail.lines():
                self._timeline.add(line["slots"])
                self._judge(name, line)

    def _judge(self, name: str, line: dict[str, Any]) -> None:
        """Dump all where something is wrong for the first time; raise where it cannot go on."""
        silent = {kind: s for kind, s in line["silent_s"].items() if s > HANG_S}
        wrong = [*line["errors"], *line["wrong"]]
        if silent:
            raise AssertionError(
                f"{name}: no round ended for so many seconds: {silent}\n{dump_of(self._cluster)}"
            )
        if wrong and name not in self.dumps:
            self.history.add("trouble", driver=name, error=wrong[0].splitlines()[-1])
            self.dumps[name] = "\n".join([name, *wrong])
            # Beside the load: it takes seconds, and faults are measured meanwhile.
            thread = threading.Thread(target=self._dump, args=(name,), name="dump")
            self._dumping.append(thread)
            thread.start()

    def _dump(self, name: str) -> None:
        with self._one_dump:
            self.dumps[name] += f"\n{dump_of(self._cluster)}"

    def _restart_head(self) -> None:
        first = self._cluster.nodes[0]
        record = first.signal(signal.SIGKILL, "head")
        eventually(lambda: not record.alive)
        first.start("--head", f"--port={self._cluster.port}")

    def _check(self, report: Report) -> None:
        """What the file of calls says of those that were acknowledged."""
        lines = checks.read(self._log)
        once = [line for line in lines if line.actor.endswith("-once")]
        for check in (
            lambda: checks.check_acknowledged(lines, self._acknowledged),
            lambda: checks.check_incarnations(lines),
            lambda: checks.check_order(lines),
            lambda: checks.check_at_most_once(once),
        ):
            try:
                check()
            except AssertionError as error:
                report.lost.append(str(error))

    # -- figures of processes

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        over = threading.Event()

        def turn() -> None:
            while not over.wait(_SAMPLE_S):
                self._sample()

        self._sample()
        thread = threading.Thread(target=turn, name="samples")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self._sample()

    def _sample(self) -> None:
        for number, machine in enumerate(self._cluster.nodes, 1):
            for record in daemons(machine.sessions()):
                self._note(f"{record.kind} of machine {number}", record.pid)
        for name, driver in self._drivers.items():
            # `ip netns exec` becomes the program.
            self._note(name, driver.process.pid)

    def _note(self, what: str, pid: int) -> None:
        now = time.monotonic()
        try:
            process = psutil.Process(pid)
            key = pid, process.create_time()
            figures = process.memory_info().rss, count_descriptors(pid), process.num_threads()
        except (psutil.NoSuchProcess, FileNotFoundError):
            return
        seen = self._seen.get(key)
        if seen is None or now < seen.began_at + _SAMPLE_S:
            # What has just begun is not yet what it will be.
            began_at = seen.began_at if seen else now
            self._seen[key] = Daemon(what, began_at, now, figures, figures)
        else:
            self._seen[key] = replace(seen, seen_at=now, last=figures)


def _told_until() -> float:
    """By now drivers have told of all slots before."""
    return time.monotonic() - 3 * _SLOT_S
