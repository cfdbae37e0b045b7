"""The jobs whose workers this node has: what workers of each need to know, and the end of each.

Covers: asking the head about a job once somebody wants its workers, forgetting it once nothing of
it is left here, remembering ended ones for the detached actors that outlive them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from mray.node.environments.service import Environments
from mray.node.logs.tailer import Tailer
from mray.node.sched.head_link import HeadLink
from mray.node.sched.leases import Effect, Leases
from mray.rpc.pump import Pump
from mray.wire import messages as m

log = logging.getLogger("mray.node")

#: How long the head may take to answer. It answers from memory.
_HEAD_TIMEOUT_S: Final = 10.0
_OVER_MAX: Final = 1000


class JobBook:
    """See the module. ``act(effects)`` carries out what the leases want done."""

    def __init__(
        self, pump: Pump, head: HeadLink, leases: Leases, environments: Environments,
        tailer: Tailer, act: Callable[[list[Effect]], None],
    ) -> None:  # fmt: skip
        self._pump = pump
        self._head = head
        self._leases = leases
        self._environments = environments
        self._tailer = tailer
        self._act = act
        self._jobs: dict[bytes, m.JobInfo] = {}
        #: Jobs that the head is being asked about.
        self._asked: dict[bytes, None] = {}
        #: Jobs that have ended; of some, detached actors live on here.
        self._over: dict[bytes, m.JobInfo] = {}
        #: Jobs of which a detached actor comes here that was elsewhere before.
        self._for_detached: set[bytes] = set()
        #: No more is asked: the node ends.
        self.closed = False

    def known(self) -> list[bytes]:
        """The jobs that have not ended, as far as this node was told."""
        return [job_id for job_id in self._jobs if job_id not in self._over]

    def get(self, job_id: bytes) -> m.JobInfo | None:
        """What the head told of a job."""
        return self._jobs.get(job_id)

    def __getitem__(self, job_id: bytes) -> m.JobInfo:
        return self._jobs[job_id]

    def need(self, job_id: bytes) -> None:
        """Ask the head about a job whose workers are wanted."""
        if job_id in self._jobs or job_id in self._asked:
            return
        self._asked[job_id] = None
        self._head.ask(
            lambda rid: m.GetJobInfo(rid, job_id),
            lambda reply: self._told(job_id, reply),
            _HEAD_TIMEOUT_S,
        )

    def _told(self, job_id: bytes, reply: m.Message) -> None:
        del self._asked[job_id]
        if not isinstance(reply, m.JobInfoReply):
            log.warning("the head did not tell about job %s: %s", job_id.hex(), reply)
            if not self.closed and self._leases.job_in_use(job_id):
                self.need(job_id)
            return
        for_detached = job_id in self._for_detached
        self._for_detached.discard(job_id)
        if reply.job is None or (reply.over and not for_detached):
            text = f"job {job_id.hex()} is over, or was never there"
            self._act(self._leases.job_unknown(job_id, text))
        else:
            self._jobs[job_id] = reply.job
            if reply.over:
                self._over[job_id] = reply.job
            self._leases.pool.job_known(job_id, over=reply.over)
            self._act([])

    def over(self, job_id: bytes) -> None:
        """The job has ended: its workers do too."""
        self._environments.job_over(job_id)
        if job_id in self._jobs:
            self._over[job_id] = self._jobs[job_id]
            self._tailer.remove_job(job_id)
            self._act(self._leases.job_over(job_id, self._pump.clock()))
        self._forget(job_id)

    def worker_gone(self, job_id: bytes) -> None:
        """A worker of the job has ended: of an ended job it may have been the last."""
        if job_id in self._over:
            self._forget(job_id)

    def _forget(self, job_id: bytes) -> None:
        """Once nothing of a job that is over is left here."""
        if not self._leases.job_in_use(job_id):
            self._leases.pool.job_forgotten(job_id)
            self._environments.job_gone(job_id)
            self._jobs.pop(job_id, None)
            ended = [j for j in self._over if j not in self._jobs]
            for oldest in ended[: max(0, len(ended) - _OVER_MAX)]:
                del self._over[oldest]

    def recall(self, job_id: bytes) -> None:
        """A detached actor is started (again) after the end of its job, which we remember."""
        if job_id in self._jobs:
            return
        if job_id in self._over:
            self._jobs[job_id] = self._over[job_id]
            self._leases.pool.job_known(job_id, over=True)
        else:
            self._for_detached.add(job_id)
