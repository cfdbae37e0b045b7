"""Tasks for `mray list`, `get`, `summary` and `timeline`: asked for with their filters, and shown.

The filters go to where tasks are known, so what is printed of two million tasks costs what it
shows. What is left out is said on standard error.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mray.cli.cluster import Cluster
from mray.cli.failure import WrongUsage
from mray.cli.render import note
from mray.state_collect import Counts, ReplyT, Tasks, counts, tasks
from mray.state_facts import Facts, task_facts
from mray.task_filters import Filter, checked
from mray.units import format_bytes, format_count, format_duration
from mray.wire.messages import Message, NodeView

#: Digits of a task's id: the count of its maker comes first, then who that is.
TASK_ID_DIGITS: Final = 24
COLUMNS: Final = ("task_id", "name", "state", "att", "ran", "pid", "note")
NUMBERS: Final = ("att", "ran", "pid")


@dataclass
class ClusterAsker:
    """The command line's cluster as state_collect asks it. Failures are written for people."""

    cluster: Cluster

    def nodes(self) -> Sequence[NodeView]:
        """See Asker."""
        return self.cluster.nodes.nodes

    def ask_head(
        self, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """See Asker."""
        return self.cluster.ask_head(make, reply, timeout_s)

    def ask_node(
        self, node: NodeView, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """See Asker."""
        return self.cluster.ask_node(node, make, reply, timeout_s)


def find(cluster: Cluster, filters: Sequence[Filter], limit: int) -> Tasks:
    """The newest tasks that pass, with what cannot be told said aside. WrongUsage for a filter
    that there is not."""
    try:
        wanted = checked(filters)
    except ValueError as error:
        raise WrongUsage(f"--filter: {error}") from error
    found = tasks(ClusterAsker(cluster), wanted, limit)
    _say_missing(found.forgotten, found.silent)
    return found


def count(cluster: Cluster) -> Counts:
    """All tasks by function, with what cannot be told said aside."""
    found = counts(ClusterAsker(cluster))
    _say_missing(found.forgotten, found.silent)
    return found


def facts_of(found: Tasks, detail: bool = True) -> list[Facts]:
    """For JSON."""
    now = time.time()
    return [task_facts(view, now, detail) for view in found.views]


def row_of(facts: Facts) -> list[str]:
    """The cells of COLUMNS."""
    if facts["error_type"]:
        message = facts.get("error_message")
        text = f"{facts['error_type']}: {message}" if message else facts["error_type"]
    else:
        text = facts["waits_for"] or ""
    duration = facts["duration_s"]
    return [
        facts["task_id"][:TASK_ID_DIGITS],
        facts["name"],
        facts["state"],
        str(facts["attempt_number"]),
        format_duration(duration) if duration is not None else "-",
        str(facts["worker_pid"] or "-"),
        text or "-",
    ]


def peak(bytes_: int | None) -> str:
    """A peak in a table."""
    return format_bytes(bytes_) if bytes_ else "-"


def _say_missing(forgotten: int, silent: Sequence[int]) -> None:
    if forgotten:
        what = format_count(forgotten, "attempt", "attempts")
        note(
            f"{what} that ended longest ago are not kept any more (task_events_max_num_task_in_gcs)"
        )
    if silent:
        pids = ", ".join(map(str, silent))
        note(f"no answer in time from pid {pids}: what waits there is missing")
