"""When the memory monitor acts: one victim at a time, read again before and after."""

from __future__ import annotations

import signal
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.node.memory.monitor import (
    Admit,
    Driver,
    Effect,
    Kill,
    Monitor,
    MonitorRules,
    Pick,
    PressStore,
    Reading,
    Reread,
    Say,
    Snapshot,
)
from mray.node.memory.policy import Candidate, Rules
from mray.units import GIB, MIB

LIMIT = 100 * GIB


def reading(used_gib: float, threshold_gib: float = 80) -> Reading:
    return Reading(
        used_bytes=int(used_gib * GIB), limit_bytes=LIMIT,
        threshold_bytes=int(threshold_gib * GIB),
    )  # fmt: skip


def worker(number: int, **facts: Any) -> Candidate:
    facts = {"kind": "task", "retriable": True, "private_bytes": GIB, **facts}
    return Candidate(
        worker_id=bytes([number]), pid=number, owner_id=b"a", started_at=float(number), **facts
    )


TWO = Snapshot(candidates=[worker(1), worker(2)])


def kinds(effects: list[Effect]) -> list[str]:
    return [type(effect).__name__ for effect in effects]


def pressed_monitor(rules: MonitorRules | None = None) -> Monitor:
    """One that stands before its first pick."""
    monitor = Monitor(rules or MonitorRules())
    assert monitor.read(reading(50), 0.0) == []
    assert kinds(monitor.read(reading(81), 10.0)) == ["Admit", "PressStore"]
    monitor.pressed()
    return monitor


def killing_monitor() -> Monitor:
    monitor = pressed_monitor()
    assert kinds(monitor.read(reading(81), 10.05)) == ["Pick"]
    assert monitor.picked(TWO, 10.06) == [Reread()]
    (kill,) = monitor.reread(reading(81), 10.07)
    assert isinstance(kill, Kill)
    assert (kill.choice.candidate.pid, kill.number) == (2, signal.SIGTERM)
    return monitor


def test_memory_in_order_leads_to_nothing_and_a_look_each_interval() -> None:
    monitor = Monitor(MonitorRules())
    assert monitor.read(reading(50), 3.0) == []
    assert monitor.deadline() == 3.25


def test_the_store_gives_back_first_and_a_worker_only_if_that_was_not_enough() -> None:
    monitor = Monitor(MonitorRules())
    monitor.read(reading(79), 0.0)
    assert monitor.read(reading(80.5), 1.0) == [PressStore(int(9.5 * GIB))]
    assert monitor.read(reading(80.5), 1.05) == []
    assert monitor.read(reading(70), 1.1) == [Admit(True)]
    assert monitor.phase == "watching"


def test_a_store_that_does_not_answer_is_waited_for_shortly() -> None:
    monitor = Monitor(MonitorRules())
    monitor.read(reading(79), 0.0)
    monitor.read(reading(81), 1.0)
    assert monitor.read(reading(81), 1.2) == []
    assert monitor.read(reading(81), 1.35) == [Pick()]


def test_a_store_that_gets_on_with_spilling_is_waited_for() -> None:
    monitor = Monitor(MonitorRules())
    monitor.read(reading(79), 0.0)
    monitor.read(reading(81), 1.0)
    monitor.press_goes_on(1.25)
    assert monitor.read(reading(81), 1.5) == []
    assert monitor.read(reading(81), 1.56) == [Pick()]


def test_a_store_that_never_gets_done_is_not_waited_for_for_ever() -> None:
    monitor = Monitor(MonitorRules())
    monitor.read(reading(79), 0.0)
    monitor.read(reading(81), 1.0)
    for tenth in range(11, 150):
        monitor.press_goes_on(tenth / 10)
    assert monitor.read(reading(81), 10.9) == []
    assert monitor.read(reading(81), 11.0) == [Pick()]


def test_a_victim_that_saves_what_it_can_is_waited_for_while_there_is_time() -> None:
    monitor = pressed_monitor()
    snapshot = Snapshot(candidates=[worker(1), worker(2, busy_until=11.0)])
    monitor.read(reading(81), 10.05)
    monitor.picked(snapshot, 10.06)
    assert monitor.reread(reading(81), 10.07) == []
    assert (monitor.phase, monitor.victim) == ("watching", None)
    monitor.check()
    monitor.read(reading(81), 10.95)
    monitor.picked(snapshot, 10.96)
    (kill,) = monitor.reread(reading(99), 10.97)
    assert isinstance(kill, Kill)
    assert kill.number == signal.SIGKILL


def test_above_the_threshold_one_is_asked_to_end_then_killed_then_waited_for() -> None:
    monitor = killing_monitor()
    assert monitor.read(reading(81), 10.1) == []
    (kill,) = monitor.read(reading(81), 10.2)
    assert isinstance(kill, Kill)
    assert (kill.choice.candidate.pid, kill.number) == (2, signal.SIGKILL)
    assert monitor.read(reading(81), 10.4) == []
    monitor.gone(b"\x01", 10.5)
    assert monitor.phase == "killing"
    monitor.gone(b"\x02", 10.6)
    assert (monitor.phase, monitor.deadline()) == ("watching", 10.6)
    assert monitor.read(reading(81), 10.6) == [Pick()]


def test_nobody_is_ended_if_the_danger_has_passed_while_choosing() -> None:
    monitor = pressed_monitor()
    monitor.read(reading(81), 10.05)
    monitor.picked(TWO, 10.06)
    assert kinds(monitor.reread(reading(79), 10.07)) == ["Say"]
    assert monitor.phase == "watching"
    monitor.check()


def test_close_to_the_limit_there_is_no_sigterm() -> None:
    monitor = pressed_monitor()
    monitor.read(reading(81), 10.5)
    monitor.picked(TWO, 10.51)
    (kill,) = monitor.reread(reading(98.5), 10.52)
    assert isinstance(kill, Kill)
    assert kill.number == signal.SIGKILL


def test_a_growth_that_would_reach_the_limit_is_as_urgent() -> None:
    monitor = Monitor(MonitorRules())
    monitor.read(reading(50), 0.0)
    effects = monitor.read(reading(90), 0.2)  # 200 GiB/s: 10 more within 50 ms.
    assert kinds(effects) == ["Admit", "PressStore", "Pick"]


def test_no_new_tasks_above_the_soft_mark_and_again_clearly_below_it() -> None:
    monitor = Monitor(MonitorRules())
    assert monitor.read(reading(72.5), 0.0) == [Admit(False)]
    assert monitor.read(reading(71.5), 1.0) == []
    assert monitor.read(reading(70.9), 2.0) == [Admit(True)]


def test_looks_come_faster_above_the_soft_mark_and_while_memory_grows() -> None:
    monitor = Monitor(MonitorRules())
    monitor.read(reading(73), 0.0)
    assert monitor.deadline() == 0.05
    monitor = Monitor(MonitorRules())
    monitor.read(reading(50), 0.0)
    monitor.read(reading(60), 0.1)  # 100 GiB/s: the threshold in 0.2 s.
    assert abs(monitor.deadline() - 0.2) < 1e-9


def test_with_nobody_to_end_it_says_so_once_in_ten_seconds() -> None:
    monitor = pressed_monitor()
    said = []
    at = 10.05
    while at < 21:
        effects = monitor.read(reading(81), at)
        assert effects == [Pick()]
        said += monitor.picked(Snapshot(candidates=[]), at)
        assert monitor.phase == "watching"
        at += 0.25
    assert len(said) == 2
    assert all(isinstance(s, Say) and s.to_drivers and "no worker to end" in s.text for s in said)


def test_a_driver_that_holds_the_memory_is_named_and_never_ended() -> None:
    monitor = pressed_monitor()
    monitor.read(reading(81), 10.05)
    drivers = [Driver(pid=7, private_bytes=60 * GIB), Driver(pid=8, private_bytes=GIB)]
    said = monitor.picked(Snapshot(candidates=[], drivers=drivers), 10.06)
    assert "the driver pid 7 itself holds 60 GiB" in said[0].text  # type: ignore[union-attr]


def test_a_limit_that_changes_counts_at_the_next_look() -> None:
    monitor = Monitor(MonitorRules())
    assert monitor.read(reading(50), 0.0) == []
    effects = monitor.read(reading(50, threshold_gib=40), 0.25)
    assert kinds(effects) == ["Admit", "PressStore"]


def test_who_exceeds_its_own_limit_is_ended_while_memory_is_fine() -> None:
    rules = MonitorRules(enforce="kill", policy=Rules(enforce_own_limit=True))
    monitor = Monitor(rules)
    assert monitor.read(reading(10), 0.0) == [Pick()]
    greedy = worker(1, requested_bytes=100 * MIB, private_bytes=300 * MIB)
    assert monitor.picked(Snapshot(candidates=[greedy, worker(2)]), 0.0) == [Reread()]
    (kill,) = monitor.reread(reading(10), 0.0)
    assert isinstance(kill, Kill)
    assert kill.choice.candidate is greedy
    monitor.gone(b"\x01", 0.2)
    assert monitor.read(reading(10), 0.2) == []


def test_or_is_only_named() -> None:
    monitor = Monitor(MonitorRules(enforce="warn"))
    assert monitor.read(reading(10), 0.0) == [Pick()]
    greedy = worker(1, requested_bytes=100 * MIB, private_bytes=300 * MIB)
    (said,) = monitor.picked(Snapshot(candidates=[greedy]), 0.0)
    assert isinstance(said, Say)
    assert said.to_drivers
    assert monitor.phase == "watching"


def test_a_process_that_cannot_end_is_not_waited_for_for_ever() -> None:
    monitor = killing_monitor()
    monitor.read(reading(81), 10.2)
    assert kinds(monitor.read(reading(81), 20.3)) == ["Say"]
    assert monitor.read(reading(81), 20.35) == [Pick()]


class MonitorModel(RuleBasedStateMachine):
    """Whatever memory does: one victim at a time, never one that is not there, never in peace."""

    def __init__(self) -> None:
        super().__init__()
        self.monitor = Monitor(MonitorRules())
        self.now = 0.0
        self.used = 50.0
        self.workers = {n: worker(n) for n in range(1, 6)}
        self.dying: int | None = None

    def act(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Pick():
                    assert reading(self.used).above
                    snapshot = Snapshot(candidates=list(self.workers.values()))
                    self.act(self.monitor.picked(snapshot, self.now))
                case Reread():
                    self.act(self.monitor.reread(reading(self.used), self.now))
                case Kill(choice, at, number):
                    pid = choice.candidate.pid
                    assert at.above or number == signal.SIGKILL
                    assert pid in self.workers
                    assert self.dying in (None, pid)
                    self.dying = pid
                case Admit(is_open):
                    assert is_open == (self.used <= 72)

    @rule(after=st.floats(0.01, 1.0), used=st.floats(1, 99))
    def look(self, after: float, used: float) -> None:
        self.now += after
        self.used = used
        self.act(self.monitor.read(reading(used), self.now))

    @precondition(lambda self: self.dying is not None)
    @rule()
    def die(self) -> None:
        assert self.dying is not None
        del self.workers[self.dying]
        self.monitor.gone(bytes([self.dying]), self.now)
        self.dying = None

    @rule()
    def store_answers(self) -> None:
        self.monitor.pressed()

    @invariant()
    def consistent(self) -> None:
        self.monitor.check()
        assert self.monitor.phase not in ("picking", "rereading")
        if self.dying is not None and self.monitor.phase != "killing":
            self.dying = None  # Given up after ten seconds.


MonitorModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestMonitorModel = MonitorModel.TestCase
