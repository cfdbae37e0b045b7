"""Identifiers: fixed-width byte strings, one static type each.

Owns widths, making and printing of ids. Widths and hex forms are Ray's, because users paste them
into `mray logs` and compare them in scripts: job 4 bytes, actor 16, task 24, object 28, node,
worker (any process) 28. At run time they are plain ``bytes`` (the hot path makes a million of
them); ``NewType`` keeps them apart for the type checker.

An object id is the id of the task that makes it plus a 4-byte little-endian index; index 0 marks a
``put``. A task id is an 8-byte count, the 12-byte unique part of its maker, and the job.
"""

from __future__ import annotations

import itertools
import os
from typing import NewType

JobId = NewType("JobId", bytes)
NodeId = NewType("NodeId", bytes)
#: Any mray process: head, node daemon, worker, driver or command line. Fresh for each life of a
#: process, so a message for a former life can never reach the present one.
ProcessId = NewType("ProcessId", bytes)
ActorId = NewType("ActorId", bytes)
TaskId = NewType("TaskId", bytes)
ObjectId = NewType("ObjectId", bytes)

JOB_BYTES = 4
ACTOR_BYTES = 16
TASK_BYTES = 24
OBJECT_BYTES = 28
NODE_BYTES = 28
PROCESS_BYTES = 28

NIL_JOB = JobId(b"\xff" * JOB_BYTES)
NIL_ACTOR = ActorId(b"\xff" * ACTOR_BYTES)
NIL_OBJECT = ObjectId(b"\xff" * OBJECT_BYTES)


#: How many last bytes a process's id has in common with its node's id.
_NODE_TAIL = 8
_HEAD = b"\x68"


def new_process_id(node_id: bytes = b"") -> ProcessId:
    """A fresh id of a process on a node, b"" for one that belongs to none.

    Its first byte is never 0: ZeroMQ keeps such routing ids for itself. Its last bytes are the
    node's, so that whoever meets the id anywhere knows what the death of a node means to it.
    """
    tail = node_id[-_NODE_TAIL:] or os.urandom(_NODE_TAIL)
    return ProcessId(b"\x6d" + os.urandom(PROCESS_BYTES - 1 - _NODE_TAIL) + tail)


def new_node_id() -> NodeId:
    """A fresh node id; the node daemon's process id is the same bytes."""
    return NodeId(new_process_id())


def new_head_id() -> ProcessId:
    """A fresh id for a head, which is on no node: its first byte tells it from all others."""
    return ProcessId(_HEAD + os.urandom(PROCESS_BYTES - 1))


def is_head(process_id: bytes) -> bool:
    """Whether it is the id of a head."""
    return process_id.startswith(_HEAD)


def is_on(process_id: bytes, node_id: bytes) -> bool:
    """Whether a process lives (or lived) on this node, or is its daemon."""
    return process_id[-_NODE_TAIL:] == node_id[-_NODE_TAIL:]


def new_namespace() -> str:
    """The namespace of a driver that names none: nobody else's."""
    return os.urandom(16).hex()


def job_id(number: int) -> JobId:
    """The id of the ``number``-th job of a cluster, as Ray prints it (``01000000``)."""
    return JobId(number.to_bytes(JOB_BYTES, "little"))


def object_id(task: TaskId, index: int) -> ObjectId:
    """The id of return ``index`` (from 1) of a task; 0 is the object of a ``put``."""
    return ObjectId(task + index.to_bytes(4, "little"))


def task_of(object: ObjectId) -> TaskId:
    """The task (or put) that makes an object."""
    return TaskId(object[:TASK_BYTES])


def actor_id(unique: bytes, job: JobId) -> ActorId:
    """An actor id from 12 unique bytes and its job."""
    return ActorId(unique + job)


class IdMaker:
    """Makes the task, object and actor ids of one process: a count, never a random draw per id."""

    __slots__ = ("_next", "_suffix", "_unique")

    def __init__(self, unique: bytes, job: JobId) -> None:
        if len(unique) != 12:
            raise ValueError(f"an id maker needs 12 unique bytes, got {len(unique)}")
        self._unique = unique
        self._suffix = unique + job
        # One C call: threads make ids at the same time.
        self._next = itertools.count(1).__next__

    def task(self) -> TaskId:
        """The next task id."""
        return TaskId(self._next().to_bytes(8, "little") + self._suffix)

    def put(self) -> ObjectId:
        """The next id of a put object."""
        return ObjectId(self._next().to_bytes(8, "little") + self._suffix + b"\0\0\0\0")

    def actor(self) -> ActorId:
        """The next actor id: unique because the count is folded into the maker's unique bytes."""
        low = (int.from_bytes(self._unique[:8], "little") + self._next()) & (2**64 - 1)
        return ActorId(low.to_bytes(8, "little") + self._unique[8:] + self._suffix[12:])
