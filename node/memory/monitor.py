"""When the node ends a worker for want of memory: one look, one victim, one kill at a time.

Machine: readings of memory, snapshots of workers and ends of processes in; effects out. Decides
when to look again, whether new tasks are admitted, when the object store is asked to give back
first, and when a kill is due and with which signal. Whom it hits is policy.py's choice. Reads
nothing and signals nobody: thread.py does.

    watching --above--> pressing --still above--> picking -> rereading --still above--> killing
        ^                                                        |                          |
        +---------------- fine again, or nobody to end ----------+------- it is gone -------+

Choosing takes milliseconds, so memory is read again before the kill; and after a kill nothing is
decided before the process is gone and memory was read once more.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from mray.machine import InvariantError
from mray.memory.threshold import threshold_bytes
from mray.node.memory.policy import Candidate, Choice, Rules, exceeds_own_limit, first
from mray.units import format_bytes

#: The shortest time between two looks. A look costs 0.1 ms, so this is 0.2 % of a CPU.
LOOK_MIN_S: Final = 0.05
#: What a worker gets between SIGTERM and SIGKILL: from the threshold to SIGKILL may pass 400 ms, of
#: which a look at the default interval takes up to 250.
TERM_GRACE_S: Final = 0.1
#: Above this share of the limit there is no time for SIGTERM.
_URGENT_SHARE: Final = 0.98
#: How long the store may take to give memory back before a worker is ended instead.
_PRESS_S: Final = 0.3
#: ... and in all, as long as it gets on: a disk may be slow.
_PRESS_MAX_S: Final = 10.0
#: A process that does not end after SIGKILL sits in the kernel: others are looked at again.
_GONE_S: Final = 10.0
_SAY_EVERY_S: Final = 10.0
#: New tasks are admitted again this share of the limit below the soft mark, not to flap.
_ADMIT_BELOW_SHARE: Final = 0.01
#: How often workers are compared with their own limits while memory is fine.
_OWN_LIMITS_S: Final = 1.0
#: A driver that holds this share of what is used is named.
_DRIVER_SHARE: Final = 0.5

Phase: TypeAlias = Literal["watching", "pressing", "picking", "rereading", "killing"]
Enforce: TypeAlias = Literal["off", "warn", "kill"]


class MonitorRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says. Durations in seconds."""

    refresh_s: float = 0.25
    #: The share of the threshold from which on no new task is admitted.
    soft_share: float = 0.9
    enforce: Enforce = "off"
    policy: Rules = Rules()


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The node's memory at one moment. The threshold is computed anew with each: limits change."""

    used_bytes: int
    limit_bytes: int
    threshold_bytes: int

    @classmethod
    def of(
        cls, used_bytes: int, limit_bytes: int, usage_threshold: float, min_free_bytes: int
    ) -> Reading:
        """With the threshold that follows from the limit as it is now."""
        return cls(
            used_bytes=used_bytes,
            limit_bytes=limit_bytes,
            threshold_bytes=threshold_bytes(limit_bytes, usage_threshold, min_free_bytes),
        )

    @property
    def above(self) -> bool:
        """Whether somebody has to go."""
        return self.used_bytes > self.threshold_bytes


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """A driver on this node: never ended, but named when it is the one."""

    pid: int
    private_bytes: int


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Who uses what."""

    candidates: Sequence[Candidate]
    drivers: Sequence[Driver] = ()


class Admit(msgspec.Struct, frozen=True):
    """From now on admit new tasks, or do not."""

    is_open: bool


class PressStore(msgspec.Struct, frozen=True):
    """Have the object store give back what it can, and spill until new tasks could be admitted:
    ``excess_bytes`` are to go."""

    excess_bytes: int


class Pick(msgspec.Struct, frozen=True):
    """Take a snapshot: ``picked`` wants it."""


class Reread(msgspec.Struct, frozen=True):
    """Read memory once more: ``reread`` wants it."""


class Kill(msgspec.Struct, frozen=True):
    """End this worker. ``number`` is SIGTERM, or SIGKILL for its whole tree."""

    choice: Choice
    reading: Reading
    number: int


class Say(msgspec.Struct, frozen=True):
    """For the log, and the drivers where ``to_drivers``."""

    text: str
    to_drivers: bool = False


Effect: TypeAlias = Admit | PressStore | Pick | Reread | Kill | Say


class Monitor:
    """See the module. All times are monotonic seconds."""

    def __init__(self, rules: MonitorRules) -> None:
        self.rules = rules
        self.phase: Phase = "watching"
        self.is_open = True
        #: The last reading, and when it was taken.
        self.last: Reading | None = None
        self._last_at = 0.0
        #: Growth of what is used, bytes a second; 0 while it shrinks.
        self._rate = 0.0
        self._next_at = 0.0
        #: Since this pressure began the store was asked to give back, until when it may take.
        self._pressed_until: float | None = None
        self._pressing_since = 0.0
        #: The snapshot is only to find workers above their own limits.
        self._only_limits = False
        self._limits_at = 0.0
        #: Who is to go, from picking until it is gone.
        self.victim: Choice | None = None
        self._killed_at = 0.0
        self._number = 0
        #: Kind of text -> when it was last said.
        self._said: dict[str, float] = {}

    def deadline(self) -> float:
        """When to read memory next."""
        return self._next_at

    # -- readings

    def read(self, reading: Reading, now: float) -> list[Effect]:
        """A look at memory."""
        self._learn(reading, now)
        effects: list[Effect] = self._admission(reading)
        if self.phase == "killing":
            effects += self._wait(reading, now)
        elif reading.above:
            effects += self._above(reading, now)
        else:
            effects += self._fine(now)
        self._next_at = now + self._interval(reading)
        return effects

    def _above(self, reading: Reading, now: float) -> list[Effect]:
        if self._pressed_until is None:
            self._pressed_until = now + _PRESS_S
            self._pressing_since = now
            self.phase = "pressing"
            press = PressStore(reading.used_bytes - int(self._calm(reading)))
            if not self._is_urgent(reading):
                return [press]
            return [press, *self._pick(only_limits=False)]
        if self.phase == "pressing" and now < self._pressed_until and not self._is_urgent(reading):
            return []
        return self._pick(only_limits=False)

    def pressed(self) -> None:
        """The store has given back all that it will: look again, which may lead to a kill."""
        if self._pressed_until is not None:
            self._pressed_until = self._next_at = float("-inf")

    def press_goes_on(self, now: float) -> None:
        """The store gets on with giving back enough: nobody is ended meanwhile, within bounds."""
        if self._pressed_until is not None and now < self._pressed_until:
            self._pressed_until = min(now + _PRESS_S, self._pressing_since + _PRESS_MAX_S)

    def _fine(self, now: float) -> list[Effect]:
        self.phase = "watching"
        self._pressed_until = None
        if self.rules.enforce == "off" or now < self._limits_at:
            return []
        self._limits_at = now + _OWN_LIMITS_S
        return self._pick(only_limits=True)

    def _pick(self, *, only_limits: bool) -> list[Effect]:
        self.phase = "picking"
        self._only_limits = only_limits
        return [Pick()]

    def picked(self, snapshot: Snapshot, now: float) -> list[Effect]:
        """Who uses what, after Pick."""
        if self.phase != "picking":
            raise InvariantError(f"a snapshot came while {self.phase}")
        candidates = list(snapshot.candidates)
        effects = self._warn_of_limits(candidates, now) + self._warn_of_drivers(snapshot, now)
        if self._only_limits:
            candidates = [c for c in candidates if exceeds_own_limit(c) and c.kind != "idle"]
            if self.rules.enforce != "kill":
                candidates = []
        self.victim = first(candidates, self.rules.policy, now)
        if self.victim is None:
            self.phase = "watching"
            if not self._only_limits:
                effects += self._nobody(now)
            return effects
        self.phase = "rereading"
        return [*effects, Reread()]

    def reread(self, reading: Reading, now: float) -> list[Effect]:
        """A last look before the kill."""
        if self.phase != "rereading" or self.victim is None:
            raise InvariantError(f"a last look came while {self.phase}")
        choice = self.victim
        self._learn(reading, now)
        self._next_at = now + LOOK_MIN_S
        if choice.candidate.busy_until > now and not self._is_urgent(reading):
            self.phase, self.victim = "watching", None
            self._next_at = min(self._next_at, choice.candidate.busy_until)
            return []
        if not reading.above and choice.rule != "own_limit":
            self.phase, self.victim = "watching", None
            text = f"memory is fine again ({_numbers(reading)}): nobody is ended"
            return self._say("passed", text, now)
        self.phase = "killing"
        self._killed_at = now
        self._number = signal.SIGKILL if self._is_urgent(reading) else signal.SIGTERM
        return [Kill(choice, reading, self._number)]

    # -- the end of a victim

    def _wait(self, reading: Reading, now: float) -> list[Effect]:
        assert self.victim is not None
        late_s = now - self._killed_at
        if self._number == signal.SIGTERM:
            if late_s < TERM_GRACE_S and not self._is_urgent(reading):
                return []
            self._number = signal.SIGKILL
            self._killed_at = now
            return [Kill(self.victim, reading, signal.SIGKILL)]
        if late_s < _GONE_S:
            return []
        pid = self.victim.candidate.pid
        self.phase, self.victim = "watching", None
        return [Say(f"pid {pid} has not ended {late_s:.0f} s after SIGKILL: no longer waited for")]

    def gone(self, worker_id: bytes, now: float) -> None:
        """A worker has ended; the next look is at once if it was the victim."""
        if self.phase != "killing" or self.victim is None:
            return
        if self.victim.candidate.worker_id == worker_id:
            self.phase, self.victim = "watching", None
            self._next_at = now

    # -- arithmetic

    def _learn(self, reading: Reading, now: float) -> None:
        if self.last is not None and now > self._last_at:
            grown = reading.used_bytes - self.last.used_bytes
            self._rate = max(0.0, grown / (now - self._last_at))
        self.last, self._last_at = reading, now

    def _is_urgent(self, reading: Reading) -> bool:
        soon = reading.used_bytes + self._rate * TERM_GRACE_S
        return max(reading.used_bytes / _URGENT_SHARE, soon) >= reading.limit_bytes

    def _interval(self, reading: Reading) -> float:
        """Until the next look: half of the time in which the threshold would be reached at the
        present growth, never more than configured, and the least above the soft mark. A loner that
        begins to grow by 1 GB/s is so seen twice before it has taken 300 MB."""
        refresh_s = self.rules.refresh_s
        shortest_s = min(LOOK_MIN_S, refresh_s)
        if self.phase == "watching" and reading.above:
            return refresh_s  # Nobody to end: looking more often does not help.
        if self.phase != "watching" or reading.used_bytes > self._soft(reading):
            return shortest_s
        if self._rate <= 0:
            return refresh_s
        left_s = (reading.threshold_bytes - reading.used_bytes) / self._rate
        return min(refresh_s, max(shortest_s, left_s / 2))

    def _soft(self, reading: Reading) -> float:
        return reading.threshold_bytes * self.rules.soft_share

    def _calm(self, reading: Reading) -> float:
        """Down to where new tasks are admitted again, in bytes."""
        return max(0.0, self._soft(reading) - reading.limit_bytes * _ADMIT_BELOW_SHARE)

    def _admission(self, reading: Reading) -> list[Effect]:
        mark = self._soft(reading) if self.is_open else self._calm(reading)
        is_open = reading.used_bytes <= mark
        if is_open == self.is_open:
            return []
        self.is_open = is_open
        return [Admit(is_open)]

    # -- telling

    def _nobody(self, now: float) -> list[Effect]:
        assert self.last is not None
        text = (
            f"memory is short ({_numbers(self.last)}), but this node has no worker to end: the "
            "memory is held by drivers, the object store or other programs"
        )
        return self._say("nobody", text, now, to_drivers=True)

    def _warn_of_drivers(self, snapshot: Snapshot, now: float) -> list[Effect]:
        if self._only_limits or self.last is None or not self.last.above:
            return []
        biggest = max(snapshot.drivers, key=lambda d: (d.private_bytes, d.pid), default=None)
        if biggest is None or biggest.private_bytes < self.last.used_bytes * _DRIVER_SHARE:
            return []
        text = (
            f"memory is short ({_numbers(self.last)}) and the driver pid {biggest.pid} itself "
            f"holds {format_bytes(biggest.private_bytes)} of it. Drivers are never ended: it has "
            "to free memory, or workers will be ended for it"
        )
        return self._say("driver", text, now, to_drivers=True)

    def _warn_of_limits(self, candidates: Sequence[Candidate], now: float) -> list[Effect]:
        if self.rules.enforce != "warn":
            return []
        effects: list[Effect] = []
        for c in sorted(candidates, key=lambda c: c.pid):
            if c.kind != "idle" and exceeds_own_limit(c):
                text = (
                    f"{c.kind} {c.name} (pid {c.pid}) uses {format_bytes(c.private_bytes)} and "
                    f"declared memory={format_bytes(c.requested_bytes)}"
                )
                effects += self._say(f"limit {c.pid} {c.name}", text, now, to_drivers=True)
        return effects

    def _say(self, kind: str, text: str, now: float, *, to_drivers: bool = False) -> list[Effect]:
        """Once in ten seconds."""
        if now < self._said.get(kind, float("-inf")) + _SAY_EVERY_S:
            return []
        self._said = {k: at for k, at in self._said.items() if at > now - _SAY_EVERY_S}
        self._said[kind] = now
        return [Say(text, to_drivers)]

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        if (self.victim is not None) != (self.phase in ("rereading", "killing")):
            raise InvariantError(f"{self.phase} with the victim {self.victim}")
        if self.phase == "pressing" and self._pressed_until is None:
            raise InvariantError("the store is waited for and was not asked")


def _numbers(reading: Reading) -> str:
    return (
        f"{format_bytes(reading.used_bytes)} of {format_bytes(reading.limit_bytes)} used, "
        f"threshold {format_bytes(reading.threshold_bytes)}"
    )
