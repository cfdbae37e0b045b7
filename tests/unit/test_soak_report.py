"""How the soak's report measures throughput and recovery."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from ..nemesis import Fault
from ..nemesis_report import Report, Tail, Timeline


def _timeline(per_second: list[int]) -> Timeline:
    timeline = Timeline(0.5)
    for second, count in enumerate(per_second):
        timeline.add({str(2 * second): {"tasks": count // 2}})
        timeline.add({str(2 * second + 1): {"actors": count // 2}})
    return timeline


def test_the_rate_is_that_of_the_whole_slots_of_all_drivers() -> None:
    timeline = _timeline([10, 20, 30])
    timeline.add({"2": {"tasks": 4}})
    assert timeline.rate(1.0, 3.0) == (24 + 30) / 2
    assert timeline.rate(0.9, 2.1) == 24
    assert timeline.rate(1.1, 1.4) == 0
    assert timeline.kinds == Counter(tasks=34, actors=30)


def test_recovery_is_the_begin_of_the_first_whole_window_at_the_rate() -> None:
    timeline = _timeline([100] * 10 + [0] * 4 + [100] * 10)
    assert timeline.recovery_s(2.0, 24.0, 90) == 0
    assert timeline.recovery_s(10.0, 24.0, 100) == 4
    assert timeline.recovery_s(10.0, 18.5, 100) is None
    assert timeline.recovery_s(10.0, 24.0, 101) is None


def test_the_report_tells_what_was_asked_of_the_soak() -> None:
    report = Report(
        seed=7,
        timeline=_timeline([100] * 10 + [0] * 4 + [100] * 20),
        faults=[Fault("kill node", "m1", 10.0, 10.0), Fault("partition", "m2", 11.0, 13.0)],
        quiet=(0.0, 10.0), harm=(10.0, 20.0), calm=(20.0, 34.0),
        refused=Counter(), wrong=[], errors=[], lost=[],
        gaps={"driver0": {"any": 4.2, "tasks": 4.2}, "driver1": {"any": 1.0}},
    )  # fmt: skip
    assert report.baseline == 100
    assert report.recovered_s == 0
    assert report.longest_gap_s() == 4.2
    lines = str(report).splitlines()
    assert lines[0] == "soak, seed 7: 2 faults in 10 s"
    (node,) = [line.split() for line in lines if line.startswith("kill node")]
    assert node == ["kill", "node", "1", *["3.5", "s"] * 6], "90 % of the window are enough"


def test_lines_are_read_once_and_only_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    tail = Tail(path)
    assert tail.lines() == []
    path.write_text('{"a": 1}\n{"a"')
    assert tail.lines() == [{"a": 1}]
    assert tail.lines() == []
    with path.open("a") as file:
        file.write(": 2}\n" + json.dumps({"a": 3}) + "\n")
    assert tail.lines() == [{"a": 2}, {"a": 3}]
