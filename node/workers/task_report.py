"""What the processes of this node run, wait for and do: asked all at once, answered together.

Covers GetRunning, GetTasks and CountTasks. Decides nothing about tasks. Of a process that does not
answer in time the pid is told (asking.py).
"""

from __future__ import annotations

from heapq import nlargest
from typing import Any

from mray.node.workers.asking import Asking, OnAnswers
from mray.node.workers.peers import Peers
from mray.rpc.pump import Pump
from mray.task_counts import added
from mray.wire.messages import (
    CountTasks,
    GetRunning,
    GetTasks,
    Message,
    Running,
    TaskCount,
    TaskCounts,
    TaskView,
    TaskViews,
)


class NodeTaskReports:
    """See the module. Registers its handlers."""

    def __init__(self, pump: Pump, peers: Peers) -> None:
        self._pump = pump
        self._peers = peers
        pump.on(GetRunning, self._get_running)
        pump.on(GetTasks, self._get_tasks)
        pump.on(CountTasks, self._count_tasks)
        self._asking = Asking(pump)

    def _get_running(self, sender: bytes, message: GetRunning) -> None:
        """Ask all workers; those that do not answer are not in the answer."""

        def finish(answers: dict[bytes, Message], silent: list[int]) -> None:
            workers = [row for a in answers.values() if isinstance(a, Running) for row in a.workers]
            self._pump.send(sender, Running(message.rid, workers))

        self._ask(sender, message, finish, "worker")

    def _get_tasks(self, sender: bytes, message: GetTasks) -> None:
        """Ask drivers and workers; the newest of all of them."""

        def finish(answers: dict[bytes, Message], silent: list[int]) -> None:
            told = [a for a in answers.values() if isinstance(a, TaskViews)]
            views = nlargest(
                max(0, message.limit), (view for a in told for view in a.views), key=_submitted
            )
            total = sum(a.total for a in told)
            self._pump.send(sender, TaskViews(message.rid, total, views, 0, silent))

        self._ask(sender, message, finish, "driver", "worker")

    def _count_tasks(self, sender: bytes, message: CountTasks) -> None:
        """Ask drivers and workers; the sums."""

        def finish(answers: dict[bytes, Message], silent: list[int]) -> None:
            rows: list[TaskCount] = []
            for answer in answers.values():
                if isinstance(answer, TaskCounts):
                    rows += answer.rows
            self._pump.send(sender, TaskCounts(message.rid, added(rows), 0, silent))

        self._ask(sender, message, finish, "driver", "worker")

    def _ask(self, sender: bytes, message: Any, finish: OnAnswers, *kinds: str) -> None:
        """Hand the question itself to the processes of these kinds."""
        peers = [peer for peer in self._peers if peer.kind in kinds]
        self._asking.ask(sender, message.rid, peers, message, message.wait_s, finish)


def _submitted(view: TaskView) -> tuple[float, bytes]:
    return view.created_unix_s, view.task_id
