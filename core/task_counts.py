"""Counting tasks by function, for `mray summary tasks`. Pure.

Owners and the head count what they know; whoever asks adds the counts up. Run times are of attempts
that finished, and only the head knows those.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mray.wire.messages import TaskCount, TaskView

_FINISHED = "FINISHED"


class Counter:
    """Counts views."""

    def __init__(self) -> None:
        #: (name, type) -> state -> attempts
        self._states: dict[tuple[str, str], dict[str, int]] = {}
        self._resources: dict[tuple[str, str], dict[str, int]] = {}
        self._run_us: dict[tuple[str, str], list[int]] = {}

    def add(self, view: TaskView) -> None:
        """One attempt. Of those with the same name the first one's resources are told."""
        key = view.name, view.type
        states = self._states.get(key)
        if states is None:
            states = self._states[key] = {}
            self._resources[key] = view.resources
            self._run_us[key] = []
        states[view.state] = states.get(view.state, 0) + 1
        if view.state == _FINISHED and view.start_unix_s:
            self._run_us[key].append(int((view.end_unix_s - view.start_unix_s) * 1e6))

    def rows(self) -> list[TaskCount]:
        """What was counted, by name."""
        rows = []
        for key, states in sorted(self._states.items()):
            times = sorted(self._run_us[key])
            count = len(times)
            rows.append(
                TaskCount(
                    *key,
                    states,
                    self._resources[key],
                    sum(times) // count if count else 0,
                    times[(count - 1) // 2] if count else 0,
                    times[-1] if count else 0,
                )
            )
        return rows


def added(rows: Iterable[TaskCount]) -> list[TaskCount]:
    """One row for each function. Only one of those of a function may have run times."""
    found: dict[tuple[str, str], TaskCount] = {}
    for row in rows:
        key = row.name, row.type
        other = found.get(key)
        if other is None:
            found[key] = row
            continue
        states = dict(other.states)
        for state, count in row.states.items():
            states[state] = states.get(state, 0) + count
        timed = other if other.max_us >= row.max_us else row
        found[key] = msgspec.structs.replace(timed, states=states)
    return [found[key] for key in sorted(found)]
