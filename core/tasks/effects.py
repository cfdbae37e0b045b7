"""What dispatching on the owner's side wants done."""

from __future__ import annotations

import msgspec

from mray.tasks.asked import HOME
from mray.tasks.oom_retries import OutOfMemory
from mray.tasks.task import Task
from mray.wire.messages import Address, DeathCause


class Demand(msgspec.Struct, frozen=True):
    """Tell a node daemon how many more leases the class wants."""

    class_id: int
    count: int
    node: bytes = HOME


class ReturnLease(msgspec.Struct, frozen=True):
    """Give the lease back. ``freed``: what is free on another node then, for the own node to know;
    {} where that did not name it."""

    lease_id: int
    reuse: bool
    node: bytes = HOME
    freed: dict[str, int] = {}


class Steal(msgspec.Struct, frozen=True):
    """Ask the worker for unstarted tasks."""

    worker: Address
    count: int


class Fail(msgspec.Struct, frozen=True):
    """The task is over without a reply: no retry is left, or none can help."""

    task: Task
    #: worker_died, or the kind of LeaseRefused.
    kind: str
    text: str
    cause: DeathCause | None = None


class Cancelled(msgspec.Struct, frozen=True):
    """The task was cancelled, and no worker runs it: it is over."""

    task: Task


Effect = Demand | ReturnLease | Steal | Fail | OutOfMemory | Cancelled
