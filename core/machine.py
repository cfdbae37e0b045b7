"""The one contract of all decision code.

A machine owns its state and decides; it reads no clock, does no IO, never blocks, draws nothing at
random. The same state, event and ``now`` give the same effects in the same order, and an event
that raises has changed nothing. Shells feed machines and carry out what they return.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

EventT = TypeVar("EventT", contravariant=True)
EffectT = TypeVar("EffectT")


class Machine(Protocol[EventT, EffectT]):
    """What every decision object offers. Hot in-process paths add named methods, same promise."""

    def handle(self, event: EventT, now: float) -> list[EffectT]:
        """Take one event at ``now`` (monotonic seconds) and return what should be done."""

    def deadline(self) -> float | None:
        """When the machine wants a tick (monotonic seconds), or None."""

    def check(self) -> None:
        """Raise InvariantError if the state contradicts itself. For tests and simulation."""


class InvariantError(AssertionError):
    """A machine's state contradicts itself: a bug of ours, never of the world."""
