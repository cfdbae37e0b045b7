"""Seeing which files of a directory change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mray.ids import new_process_id
from mray.node.logs import watch
from mray.node.logs.watch import DirectoryWatch
from mray.rpc.door import Door
from mray.rpc.pump import Pump


@pytest.fixture
def real_pump() -> Iterator[Pump]:
    made = Pump(Door(new_process_id()))
    yield made
    made.door.close()


def turn(pump: Pump, until: Callable[[], object]) -> None:
    for _ in range(1000):
        if until():
            return
        pump.run_once(0.05)
    raise AssertionError("it did not come")


def test_written_and_renamed_files_are_reported(real_pump: Pump, tmp_path: Path) -> None:
    seen: set[str] = set()

    def changed(names: set[str] | None) -> None:
        assert names is not None
        seen.update(names)

    watching = DirectoryWatch(real_pump, str(tmp_path), changed, gap_s=0.001)
    (tmp_path / "a.log").write_text("x")
    turn(real_pump, lambda: seen == {"a.log"})
    (tmp_path / "a.log").rename(tmp_path / "a.log.1")
    turn(real_pump, lambda: "a.log.1" in seen)
    watching.close()


def test_without_inotify_everything_may_have_changed_again_and_again(
    real_pump: Pump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_open_inotify", lambda path: -1)
    reports: list[set[str] | None] = []
    watching = DirectoryWatch(real_pump, str(tmp_path), reports.append, gap_s=0.001)
    turn(real_pump, lambda: len(reports) >= 3)
    assert set(map(type, reports)) == {type(None)}
    watching.close()
