"""One timer for each machine that wants one: armed at the machine's deadline."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from mray.rpc.pump import Pump, Timer

_Name = TypeVar("_Name", bound=Hashable)


class Deadlines(Generic[_Name]):
    """Timers by name. What is called looks itself whether anything is due."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._timers: dict[_Name, tuple[float, Timer]] = {}

    def arm(self, name: _Name, due: float | None, tick: Callable[[], None]) -> None:
        """Call ``tick`` at ``due`` (the pump's clock). Left alone where it is called earlier: then
        it is armed again."""
        armed = self._timers.get(name)
        if due is None or (armed is not None and armed[0] <= due):
            return
        if armed is not None:
            armed[1].cancel()

        def ring() -> None:
            del self._timers[name]
            tick()

        self._timers[name] = (due, self._pump.at(due, ring))
