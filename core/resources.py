"""Resource vectors in fixed point: amounts are whole numbers of 1/10000.

Owns arithmetic on ``{name: amount}`` only; who holds what is the scheduler's business. Fixed point
because 0.1 + 0.2 CPUs must give back exactly what they took.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

#: One unit of a resource in fixed point.
UNIT = 10_000
#: Nobody has so much; sums of it still fit into a message.
_FIXED_MAX = 2**56

Resources = dict[str, int]


def to_fixed(amounts: Mapping[str, float]) -> Resources:
    """Amounts as users give them, in fixed point; zero amounts are left out.

    Raises ValueError for an amount that is negative, not finite, finer than 1/10000, or too big to
    be told of.
    """
    fixed: Resources = {}
    for name, amount in amounts.items():
        if amount < 0:
            raise ValueError(f"resource {name!r}: {amount} is negative")
        if not math.isfinite(amount):
            raise ValueError(f"resource {name!r}: {amount} is not a finite number")
        scaled = round(amount * UNIT)
        if amount and not scaled:
            raise ValueError(f"resource {name!r}: {amount} is finer than 0.0001")
        if scaled > _FIXED_MAX:
            raise ValueError(f"resource {name!r}: {amount} is more than {_FIXED_MAX // UNIT}")
        if scaled:
            fixed[name] = scaled
    return fixed


def to_float(fixed: Mapping[str, int]) -> dict[str, float]:
    """Fixed-point amounts as users read them."""
    return {name: amount / UNIT for name, amount in fixed.items()}


def fits(need: Mapping[str, int], available: Mapping[str, int]) -> bool:
    """Whether every needed amount is there."""
    return all(available.get(name, 0) >= amount for name, amount in need.items())


def take(need: Mapping[str, int], available: Resources) -> None:
    """Subtract; may go below zero, which is how a worker that wakes up takes its CPU back."""
    for name, amount in need.items():
        available[name] = available.get(name, 0) - amount


def give_back(need: Mapping[str, int], available: Resources) -> None:
    """Add."""
    for name, amount in need.items():
        available[name] = available.get(name, 0) + amount


def missing(need: Mapping[str, int], total: Mapping[str, int]) -> dict[str, tuple[float, float]]:
    """What is asked beyond ``total``: ``{name: (asked, there)}`` in users' units."""
    return {
        name: (amount / UNIT, total.get(name, 0) / UNIT)
        for name, amount in need.items()
        if total.get(name, 0) < amount
    }
