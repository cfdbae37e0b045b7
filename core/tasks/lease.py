"""A worker lent to an owner, and the tasks that any of the same workers can run.

Values of dispatch.py, which decides over them.
"""

from __future__ import annotations

from collections import deque

from mray.placement import group_in
from mray.tasks.asked import HOME, Asked
from mray.tasks.task import Task
from mray.wire.messages import Address

#: Task numbers begin at ``lease_id << _SEQ_BITS``: lease ids of a node only grow.
_SEQ_BITS = 32


class Lease:
    """A worker lent to us."""

    __slots__ = (
        "barren",
        "blocked",
        "draining",
        "idle_since",
        "inflight",
        "known",
        "lease_id",
        "leaving",
        "node",
        "out",
        "pid",
        "progress_at",
        "sclass",
        "seq",
        "steal_at",
        "steal_seq",
        "stealing",
        "stuck",
        "worker",
    )

    def __init__(
        self, lease_id: int, worker: Address, pid: int, sclass: SchedulingClass, node: bytes = HOME
    ) -> None:
        #: Unique at the node that lends the worker.
        self.lease_id = lease_id
        self.node = node
        self.worker = worker
        self.pid = pid
        self.sclass = sclass
        #: Pushed and not answered, in push order.
        self.inflight: dict[bytes, Task] = {}
        #: Templates the worker has been told.
        self.known: set[int] = set()
        self.seq = lease_id << _SEQ_BITS
        #: Tasks to be sent now; each is in inflight already.
        self.out: list[Task] = []
        self.blocked = False
        #: Gets nothing more; returned when empty.
        self.draining = False
        #: The worker exits when it has run what it began; not among the class's leases any more.
        self.leaving = False
        #: A Steal is not answered yet. The lease is not returned meanwhile: the message could find
        #: the worker at work for somebody else.
        self.stealing = False
        #: ``seq`` when it was last asked: of what was sent since, its answer says nothing.
        self.steal_seq = 0
        #: When that was.
        self.steal_at = 0.0
        #: It had nothing to hand back, and nothing has changed since.
        self.barren = False
        #: No progress for STUCK_S with tasks waiting: told in the demand.
        self.stuck = False
        self.idle_since = 0.0
        #: Of the last reply, or of the first push onto an idle worker.
        self.progress_at = 0.0


class SchedulingClass:
    """Tasks that any of the same leases can run."""

    __slots__ = (
        "aimed", "asked", "class_id", "exclusive", "job_id", "leases", "placed", "queue", "refused",
        "resources", "runtime_env", "spread", "where",
    )  # fmt: skip

    def __init__(
        self, class_id: int, resources: dict[str, int], job_id: bytes, runtime_env: bytes,
        exclusive: bool = False, where: bytes = b"",
    ) -> None:  # fmt: skip
        self.class_id = class_id
        self.resources = resources
        self.job_id = job_id
        self.runtime_env = runtime_env
        self.exclusive = exclusive  # Its tasks want a node to themselves.
        #: mray.placement.Where as msgpack.
        self.where = where
        #: In a placement group, or with conditions on the node.
        self.placed = bool(where) or group_in(resources) is not None
        #: Tasks go over nodes in turn: a lease is given back after few, so that the next can be
        #: elsewhere.
        self.spread = False
        #: Whether it was looked at which nodes alone may serve it.
        self.aimed = False
        self.queue: deque[Task] = deque()
        self.leases: list[Lease] = []
        #: What the node daemons believe we want.
        self.asked = Asked()
        #: No more workers can be had: not asked for again while one of ours takes tasks.
        self.refused = False

    def open_leases(self) -> list[Lease]:
        """Those that take tasks."""
        return [lease for lease in self.leases if not lease.blocked and not lease.draining]
