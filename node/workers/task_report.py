"""What the processes of this node run, wait for and do: asked all at once, answered together.

Covers GetRunning, GetTasks and CountTasks. Decides nothing about tasks. A process whose interpreter
is busy with a long computation answers late or never: its pid is told, and the others' answers are.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import nlargest
from typing import Any, Final

import msgspec

from mray.node.workers.peers import Peer, Peers
from mray.rpc.pump import Pump, RequestFailed
from mray.task_counts import added
from mray.wire.messages import (
    CountTasks,
    GetRunning,
    GetTasks,
    Message,
    Refused,
    Running,
    TaskCount,
    TaskCounts,
    TaskView,
    TaskViews,
)

_WAIT_MAX_S: Final = 30.0


class NodeTaskReports:
    """See the module. Registers its handlers."""

    def __init__(self, pump: Pump, peers: Peers) -> None:
        self._pump = pump
        self._peers = peers
        pump.on(GetRunning, self._get_running)
        pump.on(GetTasks, self._get_tasks)
        pump.on(CountTasks, self._count_tasks)
        #: Questions that are being answered; asked again they are not begun again.
        self._open: set[tuple[bytes, int]] = set()

    def _get_running(self, sender: bytes, message: GetRunning) -> None:
        """Ask all workers; those that do not answer are not in the answer."""

        def finish(answers: list[Message], silent: list[int]) -> None:
            workers = [row for a in answers if isinstance(a, Running) for row in a.workers]
            self._pump.send(sender, Running(message.rid, workers))

        self._ask_all(sender, message.rid, message, message.wait_s, finish, only="worker")

    def _get_tasks(self, sender: bytes, message: GetTasks) -> None:
        """Ask drivers and workers; the newest of all of them."""

        def finish(answers: list[Message], silent: list[int]) -> None:
            told = [a for a in answers if isinstance(a, TaskViews)]
            views = nlargest(
                max(0, message.limit), (view for a in told for view in a.views), key=_submitted
            )
            total = sum(a.total for a in told)
            self._pump.send(sender, TaskViews(message.rid, total, views, 0, silent))

        self._ask_all(sender, message.rid, message, message.wait_s, finish)

    def _count_tasks(self, sender: bytes, message: CountTasks) -> None:
        """Ask drivers and workers; the sums."""

        def finish(answers: list[Message], silent: list[int]) -> None:
            rows: list[TaskCount] = []
            for answer in answers:
                if isinstance(answer, TaskCounts):
                    rows += answer.rows
            self._pump.send(sender, TaskCounts(message.rid, added(rows), 0, silent))

        self._ask_all(sender, message.rid, message, message.wait_s, finish)

    def _ask_all(
        self,
        sender: bytes,
        rid: int,
        question: Any,  # Has a ``rid``; the type checker has no word for that.
        wait_s: float,
        finish: Callable[[list[Message], list[int]], None],
        only: str = "",
    ) -> None:
        """``finish`` gets all answers, and the pids of those that gave none."""
        key = sender, rid
        if key in self._open:
            return
        self._open.add(key)
        kinds = (only,) if only else ("driver", "worker")
        peers = [peer for peer in self._peers if peer.kind in kinds]
        answers: dict[bytes, Message] = {}
        silent: list[int] = []
        wait_s = max(0.0, min(wait_s, _WAIT_MAX_S))
        until = self._pump.clock() + wait_s

        def arrived(peer: Peer, reply: Message) -> None:
            answers[peer.process_id] = reply
            # Of one that has ended it is known sooner; nothing waits there.
            if isinstance(reply, (RequestFailed, Refused)) and self._pump.clock() >= until:
                silent.append(peer.pid)
            if len(answers) == len(peers):
                end()

        def end() -> None:
            self._open.discard(key)
            finish(list(answers.values()), silent)

        if not peers:
            end()
        for peer in peers:
            self._pump.request(
                peer.process_id,
                lambda asked: _renumbered(question, asked),
                lambda reply, peer=peer: arrived(peer, reply),  # type: ignore[misc]
                wait_s,
            )


def _renumbered(question: Any, rid: int) -> Message:
    made: Message = msgspec.structs.replace(question, rid=rid)
    return made


def _submitted(view: TaskView) -> tuple[float, bytes]:
    return view.created_unix_s, view.task_id
