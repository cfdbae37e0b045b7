"""How much memory in use is too much, and from when on to be careful. Arithmetic only."""

from __future__ import annotations

from typing import Final

#: From this share of the threshold on a node admits no new work and looks more often.
SOFT_MARK_SHARE: Final = 0.9


def threshold_bytes(limit_bytes: int, usage_threshold: float, min_memory_free_bytes: int) -> int:
    """Above how many bytes in use processes are killed.

    ``usage_threshold`` is a share of the limit, from 0 to 1. With ``min_memory_free_bytes`` >= 0
    only so much need stay free, where that is less than the share leaves; -1 is "not set".
    """
    threshold = int(limit_bytes * usage_threshold)
    if min_memory_free_bytes >= 0:
        threshold = max(threshold, limit_bytes - min_memory_free_bytes)
    return threshold


def soft_mark_bytes(threshold: int) -> int:
    """The soft mark below a threshold, in bytes."""
    return int(threshold * SOFT_MARK_SHARE)
