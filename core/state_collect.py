"""Asking a cluster for its tasks: who runs what, what waits where, what ended.

Covers the order of the questions and putting the answers together. The command line and programs
bring their own way to ask (``Asker``). Prints nothing.

First the workers say what runs; with that the owners can tell which of their tasks wait; last the
head tells what ended, which by then has all that ended before. So no task is missed; one that ended
in between is told twice and counted once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import nlargest
from typing import Final, Protocol, TypeVar

import msgspec

from mray.task_counts import added
from mray.task_filters import Filter
from mray.wire.messages import (
    CountTasks,
    FunctionPeak,
    GetPeaks,
    GetRunning,
    GetTaskEvents,
    GetTasks,
    Message,
    NodeView,
    Peaks,
    Running,
    TaskCount,
    TaskCounts,
    TaskView,
    TaskViews,
)

ReplyT = TypeVar("ReplyT", bound=Message)

#: How long processes may take to say what runs, and what waits. One that computes with the
#: interpreter's lock held answers neither: its tasks are told by their owner all the same.
_RUNNING_WAIT_S: Final = 0.5
_TASKS_WAIT_S: Final = 5.0
#: The head reads a hundred thousand records in less than two seconds.
_ANSWER_S: Final = 30.0

#: So many attempts make a timeline at most, the newest.
TIMELINE_MAX: Final = 100_000
_PEAKS_MAX: Final = 10_000

#: The tasks that workers run: (worker, [(task, microseconds since it began)]).
Runs = list[tuple[bytes, list[tuple[bytes, int]]]]


class Asker(Protocol):
    """A way to ask the processes of a cluster. Each call raises where there is no answer."""

    def nodes(self) -> Sequence[NodeView]:
        """The nodes of the cluster."""

    def ask_head(
        self, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """Ask the head."""

    def ask_node(
        self, node: NodeView, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """Ask a node that lives."""


class Tasks(msgspec.Struct, frozen=True):
    """What was found: the newest ``views`` of ``total`` that passed the filters."""

    total: int
    views: list[TaskView]
    #: Ended attempts of which nothing is kept any more: they may have passed too.
    forgotten: int
    #: Processes that did not answer: their waiting tasks are missing.
    silent: list[int]


class Counts(msgspec.Struct, frozen=True):
    """All attempts by function."""

    rows: list[TaskCount]
    forgotten: int
    silent: list[int]
    #: Function -> what is usual for its memory, of each node.
    peaks: list[FunctionPeak]


def tasks(asker: Asker, filters: Sequence[Filter], limit: int) -> Tasks:
    """Tasks of the whole cluster, the newest first."""
    wanted = list(filters)
    nodes = [view for view in asker.nodes() if view.state == "ALIVE"]
    runs = _running(asker, nodes)
    waiting = [
        asker.ask_node(
            node,
            lambda rid: GetTasks(rid, wanted, limit, runs, _TASKS_WAIT_S),
            TaskViews,
            _TASKS_WAIT_S + 5.0,
        )
        for node in nodes
    ]
    ended = asker.ask_head(lambda rid: GetTaskEvents(rid, wanted, limit), TaskViews, _ANSWER_S)
    views, doubles = _once([*ended.views, *(view for told in waiting for view in told.views)])
    total = ended.total + sum(told.total for told in waiting) - doubles
    silent = [pid for told in waiting for pid in told.silent]
    shown = _with_peaks(asker, nodes, nlargest(limit, views, key=_submitted))
    return Tasks(total, shown, ended.forgotten, silent)


def _with_peaks(asker: Asker, nodes: Iterable[NodeView], views: list[TaskView]) -> list[TaskView]:
    """The same with the most memory that was seen of each, which the nodes know. Of so many that
    nobody looks at each of them it is not asked."""
    if not views or len(views) > _PEAKS_MAX:
        return views
    ids = list({view.task_id for view in views})
    peaks: dict[tuple[bytes, int], int] = {}
    for node in nodes:
        for peak in asker.ask_node(node, lambda rid: GetPeaks(rid, ids), Peaks, 10.0).peaks:
            key = peak.task_id, peak.attempt
            peaks[key] = max(peaks.get(key, 0), peak.peak_bytes)
    return [
        msgspec.structs.replace(view, peak_bytes=peaks[view.task_id, view.attempt])
        if (view.task_id, view.attempt) in peaks
        else view
        for view in views
    ]


def counts(asker: Asker) -> Counts:
    """Tasks of the whole cluster, counted by function."""
    nodes = [view for view in asker.nodes() if view.state == "ALIVE"]
    runs = _running(asker, nodes)
    told = [
        asker.ask_node(
            node,
            lambda rid: CountTasks(rid, runs, _TASKS_WAIT_S),
            TaskCounts,
            _TASKS_WAIT_S + 5.0,
        )
        for node in nodes
    ]
    ended = asker.ask_head(CountTasks, TaskCounts, _ANSWER_S)
    rows = added([*ended.rows, *(row for answer in told for row in answer.rows)])
    silent = [pid for answer in told for pid in answer.silent]
    peaks = [
        peak
        for node in nodes
        for peak in asker.ask_node(node, lambda rid: GetPeaks(rid, []), Peaks, 10.0).functions
    ]
    return Counts(rows, ended.forgotten, silent, peaks)


def _running(asker: Asker, nodes: Iterable[NodeView]) -> Runs:
    return [
        row
        for node in nodes
        for row in asker.ask_node(
            node, lambda rid: GetRunning(rid, _RUNNING_WAIT_S), Running, _RUNNING_WAIT_S + 5.0
        ).workers
    ]


def _once(views: Iterable[TaskView]) -> tuple[list[TaskView], int]:
    """Each attempt once, as it was told first, and how many were told again."""
    found: dict[tuple[bytes, int], TaskView] = {}
    doubles = 0
    for view in views:
        key = view.task_id, view.attempt
        if key in found:
            doubles += 1
        else:
            found[key] = view
    return list(found.values()), doubles


def _submitted(view: TaskView) -> tuple[float, bytes, int]:
    return view.created_unix_s, view.task_id, view.attempt
