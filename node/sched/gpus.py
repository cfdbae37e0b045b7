"""Which GPUs of the node are whose: numbers for what the scheduler only counts.

Machine. Owns what is free of each GPU, in fixed point. Whole GPUs are given to one holder alone;
parts of one share it, and go where they leave the smallest rest, so that whole ones stay free. Who
gets how much is leases.py's decision, which asks ``fits`` first: amounts may add up on paper where
no single GPU has room. Told to workers by gpu_service.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mray.machine import InvariantError
from mray.placement import plain
from mray.resources import UNIT


def gpu_amount(resources: Mapping[str, int]) -> int:
    """How much of GPUs these needs have, in a placement group or not."""
    return plain(resources).get("GPU", 0)


class Gpus:
    """See the module. False where the node has none."""

    def __init__(self, total: int) -> None:
        self._sizes = [UNIT] * (total // UNIT) + ([total % UNIT] if total % UNIT else [])
        self.free = list(self._sizes)

    def __bool__(self) -> bool:
        return bool(self._sizes)

    def fits(self, amount: int) -> bool:
        """Whether so much can be given now: whole GPUs, or a part of one."""
        return not amount or len(self._choose(amount)) * UNIT >= amount

    def take(self, amount: int) -> list[int]:
        """Give so much away; the numbers of the GPUs. ``fits`` has to hold."""
        chosen = self._choose(amount)
        if len(chosen) * UNIT < amount:
            raise InvariantError(f"{amount} of GPUs was granted, and free are {self.free}")
        for number in chosen:
            self.free[number] -= min(amount, UNIT)
        return chosen

    def give_back(self, numbers: Sequence[int], amount: int) -> None:
        """Take back what ``take`` gave away."""
        for number in numbers:
            self.free[number] += min(amount, UNIT)

    def _choose(self, amount: int) -> list[int]:
        if not amount:
            return []
        if amount < UNIT:
            room = [(free, number) for number, free in enumerate(self.free) if free >= amount]
            return [min(room)[1]] if room else []
        whole = [number for number, free in enumerate(self.free) if free >= UNIT]
        return whole[: -(-amount // UNIT)]

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        for number, (free, size) in enumerate(zip(self.free, self._sizes, strict=True)):
            if not 0 <= free <= size:
                raise InvariantError(f"of GPU {number} {free} is free, and it has {size}")
