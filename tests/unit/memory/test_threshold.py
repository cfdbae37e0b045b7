"""How much memory in use is too much."""

from __future__ import annotations

import pytest

from mray.memory.threshold import soft_mark_bytes, threshold_bytes


@pytest.mark.parametrize(
    ("limit", "share", "min_free", "threshold"),
    [
        (1000, 0.95, -1, 950),
        (1000, 0.95, 10, 990),
        (1000, 0.95, 100, 950),
        (1000, 0.95, 0, 1000),
        (1000, 0.5, 5000, 500),
        (1000, 0.0, -1, 0),
        (1000, 1.0, -1, 1000),
    ],
)
def test_the_larger_of_share_and_limit_less_what_stays_free(
    limit: int, share: float, min_free: int, threshold: int
) -> None:
    assert threshold_bytes(limit, share, min_free) == threshold


def test_the_soft_mark_is_nine_tenths_of_the_threshold() -> None:
    assert soft_mark_bytes(1000) == 900
