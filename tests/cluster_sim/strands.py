"""User code of simulated processes: coroutines of which one at a time runs, when the world says so.

So code that blocks (get, put, reading arguments from the store) is the real one. A strand that
waits for a lock goes on at the moment after its process's loop has released it; its clock is the
world's. A strand of a process that has died never comes back; one whose process stands still comes
back later. What is local to a thread is local to a strand.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from greenlet import greenlet

from mray import current
from mray.runtime.borrowing import adopting
from mray.runtime.calls import running
from mray.serialization.context import collector

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

    from .doors import SimDoor

#: Objects of threading.local that user code's way through mray leaves something in.
_LOCALS = (adopting, running, collector)


class Killed(BaseException):
    """Raised in a strand whose process is dead."""


class Strand:
    """One thread of one process. ``body`` runs from the moment on at which it is made."""

    #: The one that runs now.
    now: ClassVar[Strand | None] = None

    def __init__(self, door: SimDoor, rt: Runtime, body: Callable[[], None]) -> None:
        self._door, self._rt, self._body = door, rt, body
        self._world = door.world
        self._greenlet = greenlet(self._run, door.world.main)
        self._locals: list[dict[str, Any]] = [{} for _ in _LOCALS]
        self._killed = False
        self._over = False
        #: The lock that is waited for.
        self.awaits: Any = None
        self._wait_number = 0
        door.strands[self] = None
        self._world.after(0.0, self._go)

    # -- the world's side

    def _go(self, number: int | None = None) -> None:
        """Let it run until it waits or ends."""
        if self._over or (number is not None and number != self._wait_number):
            return
        world, door = self._world, self._door
        if not door.is_dead and world.now < door.stopped_until:
            world.after(door.stopped_until - world.now, lambda: self._go(number))
            return
        self._killed = self._killed or door.is_dead
        former, current.runtime = current.runtime, self._rt
        self._exchange()
        Strand.now = self
        try:
            self._greenlet.switch()
        finally:
            Strand.now = None
            self._exchange()
            current.runtime = former
        if self._over:
            door.strands.pop(self, None)
        door.turn_soon()

    def _exchange(self) -> None:
        for place, local in enumerate(_LOCALS):
            theirs = dict(vars(local))
            vars(local).clear()
            vars(local).update(self._locals[place])
            self._locals[place] = theirs

    def kill(self) -> None:
        """End it: its process is dead, or the life is over."""
        if not self._over:
            self._killed = True
            self._go()

    def released(self) -> None:
        """The loop has been turned: is what it waits for there?"""
        if self.awaits is not None and not self.awaits.locked():
            number, self.awaits = self._wait_number, None
            self._world.after(0.0, lambda: self._go(number))

    # -- its own side

    def _run(self) -> None:
        try:
            if not self._killed:
                self._body()
        except Killed:
            return
        finally:
            self._over = True
            self._body = _nothing  # What it held is not held by those who still know the strand.

    def _pause(self) -> None:
        self._world.main.switch()
        if self._killed:
            raise Killed

    def sleep(self, duration_s: float) -> None:
        """Let time pass."""
        self._wait_number += 1
        number = self._wait_number
        self._world.after(duration_s, lambda: self._go(number))
        self._pause()

    def wait(self, lock: Any, timeout_s: float | None) -> bool:
        """Acquire a lock that the loop releases; False if the time ran out first."""
        deadline = None if timeout_s is None else self._world.now + timeout_s
        while not lock.acquire(blocking=False):
            if deadline is not None and self._world.now >= deadline:
                return False
            self._wait_number += 1
            self.awaits = lock
            if deadline is not None:
                go = partial(self._go, self._wait_number)
                self._world.after(deadline - self._world.now, go)
            self._pause()
            self.awaits = None
        return True


def _nothing() -> None:
    """The body of a strand that is over."""


def sleep(duration_s: float) -> None:
    """Let time pass, in a strand."""
    assert Strand.now is not None
    Strand.now.sleep(duration_s)


def block_on(rt: Runtime, lock: Any, timeout_s: float | None) -> bool:
    """In the place of Runtime.block_on."""
    if Strand.now is None:
        raise AssertionError("the world's own thread would wait for itself")
    return Strand.now.wait(lock, timeout_s)
