"""Which GPUs of the node are whose: numbers for what the scheduler only counts.

Machine. Owns what is free of each GPU, in fixed point. Whole GPUs are given to one holder alone;
parts of one share it, and go where they leave the smallest rest, so that whole ones stay free. Who
gets how much is leases.py's decision, which asks ``fits`` first: amounts may add up on paper where
no single GPU has room. A bundle of a placement group has numbers of its own from the moment it is
reserved, which nobody outside of it gets. Told to workers by gpu_service.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mray.machine import InvariantError
from mray.placement import plain
from mray.resources import UNIT


def gpu_amount(resources: Mapping[str, int]) -> int:
    """How much of GPUs these needs have, in a placement group or not."""
    return plain(resources).get("GPU", 0)


class Gpus:
    """See the module. False where the node has none."""

    def __init__(self, total: int) -> None:
        sizes = [UNIT] * (total // UNIT) + ([total % UNIT] if total % UNIT else [])
        #: By number: how much of each GPU is here, and how much of that is free.
        self._sizes = dict(enumerate(sizes))
        self.free = dict(self._sizes)

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

    def fits_parts(self, amounts: Iterable[int]) -> bool:
        """Whether ``part`` can be called with one after the other."""
        trial = Gpus(0)
        trial._sizes, trial.free = self._sizes, dict(self.free)
        for amount in amounts:
            whole, rest = amount // UNIT * UNIT, amount % UNIT
            for each in (whole, rest):
                if not trial.fits(each):
                    return False
                trial.take(each)
        return True

    def part(self, amount: int) -> Gpus:
        """Take so much out, as GPUs that others give away. ``fits_parts`` has to hold."""
        taken = Gpus(0)
        for each in (amount // UNIT * UNIT, amount % UNIT):
            for number in self.take(each):
                taken._sizes[number] = min(each, UNIT)
        taken.free = dict(taken._sizes)
        return taken

    def join(self, part: Gpus) -> None:
        """Take back what ``part`` made, of which nothing is in use."""
        if part.free != part._sizes:
            raise InvariantError(f"GPUs come back in use: of {part._sizes} free are {part.free}")
        for number, size in part._sizes.items():
            self.free[number] += size

    def _choose(self, amount: int) -> list[int]:
        if not amount:
            return []
        if amount < UNIT:
            room = [(free, number) for number, free in self.free.items() if free >= amount]
            return [min(room)[1]] if room else []
        whole = [number for number, free in self.free.items() if free >= UNIT]
        return whole[: -(-amount // UNIT)]

    def check(self) -> None:
        """Raise InvariantError on a contradiction."""
        for number, size in self._sizes.items():
            free = self.free[number]
            if not 0 <= free <= size:
                raise InvariantError(f"of GPU {number} {free} is free, and it has {size}")
