"""What happened in a run with faults, and the checks that it must pass.

Actors and tasks write a line for each call that they begin and end into one file (``Calls.FORMAT``,
appended by single writes, so that the file is in order); callers keep what was acknowledged. From
both: I7 (no acknowledged call is missing, at-most-once calls ran at most once, the order of each
caller is kept), I8 (two incarnations of an actor never overlap), I10 (no task ran more often than
it may).
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

#: The source of what programs of a test define to write such a file; ``LOG`` is its path.
WRITER = '''
import os, time
def note(what, actor, number, caller=0):
    """begin or end of a call, or birth of an actor."""
    line = f"{what} {actor} {os.getpid()} {caller} {number} {time.monotonic_ns()}\\n"
    file = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)
'''


@dataclass(frozen=True)
class Call:
    """A line: ``what`` is born, begin or end."""

    what: str
    actor: str
    pid: int
    caller: int
    number: int
    at_ns: int


def read(path: Path) -> list[Call]:
    """All lines, in the order in which they were written."""
    calls = []
    for line in path.read_text().splitlines():
        what, actor, pid, caller, number, at_ns = line.split()
        calls.append(Call(what, actor, int(pid), int(caller), int(number), int(at_ns)))
    return calls


def check_acknowledged(calls: list[Call], acknowledged: set[tuple[str, int, int]]) -> None:
    """Each (actor, caller, number) that was acknowledged has ended somewhere."""
    ended = {(call.actor, call.caller, call.number) for call in calls if call.what == "end"}
    missing = sorted(acknowledged - ended)
    assert not missing, f"acknowledged and never run: {missing[:10]}"


def check_at_most_once(calls: list[Call]) -> None:
    """No call was begun twice."""
    check_attempts(calls, 1)


def check_attempts(calls: list[Call], most: int) -> None:
    """No call was begun more than ``most`` times."""
    begun: dict[tuple[str, int, int], int] = defaultdict(int)
    for call in calls:
        if call.what == "begin":
            begun[call.actor, call.caller, call.number] += 1
    wrong = {key: count for key, count in begun.items() if count > most}
    assert not wrong, f"begun more than {most} times: {dict(list(wrong.items())[:10])}"


def check_order(calls: list[Call]) -> None:
    """Within one incarnation, the calls of one caller begin in the order of their numbers."""
    last: dict[tuple[str, int, int], int] = {}
    for call in calls:
        if call.what == "begin":
            key = call.actor, call.pid, call.caller
            before = last.get(key, -1)
            assert call.number > before, f"{key}: {call.number} began after {before}"
            last[key] = call.number


def check_incarnations(calls: list[Call]) -> None:
    """The lives of one actor, from birth to last line, do not overlap."""
    lives: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    overlaps = []
    for call in calls:
        spans = lives[call.actor]
        if not spans or spans[-1][0] != call.pid:
            if any(pid == call.pid for pid, _, _ in spans):
                late_ms = (call.at_ns - spans[-1][1]) / 1e6
                overlaps.append(
                    f"{call.actor}: pid {call.pid} did {call.what} {call.number} {late_ms:.0f} ms "
                    f"after pid {spans[-1][0]} had begun"
                )
            else:
                spans.append((call.pid, call.at_ns, call.at_ns))
        else:
            spans[-1] = (call.pid, spans[-1][1], call.at_ns)
    assert not overlaps, "\n".join(overlaps[:10])


def check_work(path: Path, acknowledged: set[tuple[str, int, int]]) -> None:
    """All that holds of actors that may be restarted and whose calls may be repeated."""
    lines = read(path)
    check_acknowledged(lines, acknowledged)
    check_incarnations(lines)
    check_order(lines)


class History:
    """What was done to a cluster and when, for people: written when a run fails."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.lines: list[str] = []

    def add(self, what: str, **facts: object) -> None:
        """Safe from any thread: an append."""
        at = round(time.monotonic() - self._began, 3)
        self.lines.append(json.dumps({"at_s": at, "what": what, **facts}))

    def __str__(self) -> str:
        return "\n".join(self.lines)
