"""mray.store.lingering: which buffers outlive their task, and that none does for long."""

from __future__ import annotations

from collections.abc import Callable

from mray.store.lingering import LINGER_S, Lingering

VIEW = memoryview(b"an object")


class Loop:
    """Runs what is posted at once, and timers when told to."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []

    def post(self, call: Callable[[], None]) -> None:
        call()

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        assert delay_s == LINGER_S
        self.timers.append(call)

    def turn(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()


def test_a_buffer_goes_at_the_second_look_without_use() -> None:
    loop = Loop()
    lingering = Lingering(loop.post, loop.after)
    lingering.keep(b"a", VIEW)
    loop.turn()
    assert len(lingering) == 1
    loop.turn()
    assert len(lingering) == 0


def test_use_keeps_a_buffer() -> None:
    loop = Loop()
    lingering = Lingering(loop.post, loop.after)
    lingering.keep(b"a", VIEW)
    lingering.keep(b"b", VIEW)
    for _ in range(5):
        loop.turn()
        lingering.keep(b"a", VIEW)
    assert len(lingering) == 1


def test_an_idle_worker_has_no_timer_and_a_later_use_starts_one() -> None:
    loop = Loop()
    lingering = Lingering(loop.post, loop.after)
    assert not loop.timers
    lingering.keep(b"a", VIEW)
    assert len(loop.timers) == 1
    loop.turn()
    loop.turn()
    assert not loop.timers
    lingering.keep(b"a", VIEW)
    assert len(loop.timers) == 1


def test_what_is_kept_during_the_last_look_is_looked_at_again() -> None:
    loop = Loop()
    lingering = Lingering(loop.post, loop.after)
    lingering.keep(b"a", VIEW)
    loop.turn()
    lingering._kept.clear()
    lingering.keep(b"b", VIEW)
    loop.turn()
    assert loop.timers
    loop.turn()
    assert len(lingering) == 0
    assert not loop.timers
