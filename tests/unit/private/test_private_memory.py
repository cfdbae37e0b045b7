"""Memory under the names that programs written for Ray import."""

from __future__ import annotations

from pathlib import Path

import pytest

from mray._private import utils
from mray.memory.usage import MemoryReading
from mray.units import GIB

READING = MemoryReading(
    used_bytes=GIB, limit_bytes=4 * GIB, source="", total_bytes=16 * GIB,
    available_bytes=8 * GIB, cache_bytes=0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def reading(monkeypatch) -> None:
    monkeypatch.setattr(utils, "read_memory", lambda: READING)


def test_they_say_what_the_one_reading_says() -> None:
    assert utils.get_system_memory() == 4 * GIB
    assert utils.get_used_memory() == GIB
    assert utils.estimate_available_memory() == 3 * GIB


@pytest.mark.parametrize(
    ("first", "second", "limit"),
    [
        (str(2 * GIB), None, 2 * GIB),
        (None, str(3 * GIB), 3 * GIB),
        (str(64 * GIB), str(GIB), 16 * GIB),
        (None, "max", 16 * GIB),
        (None, None, 16 * GIB),
    ],
)
def test_named_files_are_the_limit(tmp_path: Path, first, second, limit) -> None:
    for name, text in (("v1", first), ("v2", second)):
        if text is not None:
            (tmp_path / name).write_text(f"{text}\n")
    assert utils.get_system_memory(str(tmp_path / "v1"), str(tmp_path / "v2")) == limit
