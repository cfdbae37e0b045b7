"""Does harm to a cluster while it works: kills, stops, partitions, drawn from a seed.

``Nemesis(targets, history, seed)`` chooses among the harms that its targets know, by ``WEIGHTS``.
``step()`` does one; a harm that lasts is undone by a timer, or by ``heal()``. A test calls ``step``
between rounds of its work, so that a run depends on the seed and on the progress of the work, not
on a clock of its own; ``run`` does it from a thread, once a period of wall time. ``faults`` is what
was done.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from .nemesis_history import History

#: Of a hundred faults.
WEIGHTS = {
    "kill worker": 60,
    "kill node": 15,
    "partition": 10,
    "stop worker": 5,
    "stop node": 5,
    "restart head": 5,
}


@dataclass
class Target:
    """One machine. What it cannot suffer is None."""

    name: str
    #: Its worker processes, those alone: not the zygote.
    workers: Callable[[], list[psutil.Process]]
    #: End the node daemon and start another in its place.
    replace_node: Callable[[], None] | None = None
    #: The node daemon. LookupError: none runs now.
    node_pid: Callable[[], int] | None = None
    #: Cut it off, and undo that.
    cut_off: Callable[[], None] | None = None
    reconnect: Callable[[], None] | None = None
    restart_head: Callable[[], None] | None = None


@dataclass
class Fault:
    """A harm that was done. Times are those of the monotonic clock; ``ended_at`` is None while it
    lasts, and that of the begin's end where it does not last."""

    what: str
    machine: str
    began_at: float
    ended_at: float | None = None


@dataclass
class _Lasting:
    what: str
    target: str
    undo: Callable[[], None]
    timer: threading.Timer
    fault: Fault


class Nemesis:
    """See the module. One lasting harm to a machine at a time."""

    def __init__(
        self,
        targets: list[Target],
        history: History,
        seed: int,
        longest_s: float = 4.0,
        lasts_s: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        """``longest_s``: of any harm that lasts; ``lasts_s``: the shortest and the longest, by
        harm."""
        self.targets = targets
        self.history = history
        self.faults: list[Fault] = []
        self._random = random.Random(seed)
        self._longest_s = longest_s
        self._lasts_s = dict(lasts_s or {})
        self._lasting: list[_Lasting] = []
        history.add("nemesis", seed=seed)

    @property
    def count(self) -> int:
        """How many harms were done."""
        return len(self.faults)

    def step(self, first: str = "") -> None:
        """Do one harm that is possible now; ``first`` if that one is."""
        hurt = {each.target for each in list(self._lasting)}
        whole = [target for target in self.targets if target.name not in hurt]
        names, weights = list(WEIGHTS), list(WEIGHTS.values())
        wanted = [first] * 10 if first else []
        for what in wanted + self._random.choices(names, weights, k=20):
            target = self._random.choice(whole) if whole else None
            if target is not None and self._do(what, target):
                return

    def _do(self, what: str, target: Target) -> bool:
        """False where this cannot be done to this target now."""
        shortest_s, longest_s = self._lasts_s.get(what, (0.2, self._longest_s))
        lasts_s = round(self._random.uniform(shortest_s, longest_s), 2)
        if what in ("kill worker", "stop worker"):
            workers = sorted(target.workers(), key=lambda process: process.pid)
            if not workers:
                return False
            victim = self._random.choice(workers)
            with contextlib.suppress(psutil.NoSuchProcess):
                self.history.add(what, machine=target.name, pid=victim.pid, lasts_s=lasts_s)
                if what == "kill worker":
                    self._at_once(what, target, victim.kill)
                else:
                    victim.suspend()
                    self._later(lasts_s, lambda: _resume(victim), what, target)
            return True
        if what == "stop node" and target.node_pid is not None:
            try:
                victim = psutil.Process(target.node_pid())
                victim.suspend()
            except (LookupError, psutil.NoSuchProcess):
                return False
            self.history.add(what, machine=target.name, pid=victim.pid, lasts_s=lasts_s)
            self._later(lasts_s, lambda: _resume(victim), what, target)
            return True
        if what == "partition" and target.cut_off is not None and target.reconnect is not None:
            self.history.add(what, machine=target.name, lasts_s=lasts_s)
            target.cut_off()
            self._later(lasts_s, target.reconnect, what, target)
            return True
        once = {"kill node": target.replace_node, "restart head": target.restart_head}.get(what)
        if once is None or (what == "kill node" and not _runs(target)):
            return False
        self.history.add(what, machine=target.name)
        self._at_once(what, target, once)
        return True

    def _at_once(self, what: str, target: Target, do: Callable[[], None]) -> None:
        fault = Fault(what, target.name, time.monotonic())
        self.faults.append(fault)
        try:
            do()
        finally:
            fault.ended_at = time.monotonic()

    def _later(self, lasts_s: float, undo: Callable[[], None], what: str, target: Target) -> None:
        timer = threading.Timer(lasts_s, lambda: self._undo(each))
        each = _Lasting(what, target.name, undo, timer, Fault(what, target.name, time.monotonic()))
        self.faults.append(each.fault)
        self._lasting.append(each)
        timer.start()

    def _undo(self, each: _Lasting) -> None:
        """Whoever takes it out of the list undoes it: its timer or heal()."""
        try:
            self._lasting.remove(each)
        except ValueError:
            return
        self.history.add(f"end of {each.what}", machine=each.target)
        each.undo()
        each.fault.ended_at = time.monotonic()

    def heal(self) -> None:
        """Undo all that lasts."""
        for each in list(self._lasting):
            each.timer.cancel()
            self._undo(each)
            each.timer.join()
        self.history.add("healed")

    @contextmanager
    def run(self, period_s: float, first: tuple[str, ...] = ()) -> Iterator[None]:
        """Do a harm each ``period_s`` meanwhile, those of ``first`` before others; healed
        afterwards. Raises what a step raised. A step that takes longer than a period delays no
        other but the next one."""
        over = threading.Event()
        errors: list[BaseException] = []

        def turn() -> None:
            due_at, wanted = time.monotonic() + period_s, list(first)
            while not over.wait(max(0.0, due_at - time.monotonic())):
                due_at = max(due_at + period_s, time.monotonic())
                try:
                    self.step(wanted.pop(0) if wanted else "")
                except BaseException as error:
                    errors.append(error)
                    return

        thread = threading.Thread(target=turn, name="nemesis")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.heal()
        if errors:
            raise errors[0]


def _runs(target: Target) -> bool:
    """Whether a node daemon runs there now, as far as can be told."""
    try:
        return target.node_pid is None or bool(target.node_pid())
    except LookupError:
        return False


def _resume(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()


def workers_of(node_pid: int) -> list[psutil.Process]:
    """Worker processes of a node daemon."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(node_pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name().startswith("ray::"):  # not the zygote, nor who is being born
                    found.append(child)
    return found
