"""What a death for want of memory carries: the facts of OutOfMemoryError, made by the node.

Values only. They travel as msgpack in ``DeathCause.oom``, which heads and nodes pass on unread.
"""

from __future__ import annotations

import msgspec


class OomVictim(msgspec.Struct, frozen=True, kw_only=True):
    """The worker that was ended. Bytes and seconds."""

    #: task, actor or idle.
    kind: str
    name: str
    pid: int
    #: Of its whole process tree, shared with nobody, when it was ended.
    used_bytes: int
    #: The most that was seen of this run.
    peak_bytes: int = 0
    #: The ``memory`` it declared; 0: none.
    requested_bytes: int = 0
    runtime_s: float = 0.0
    retriable: bool = False


class OomProcess(msgspec.Struct, frozen=True, kw_only=True):
    """One of the biggest processes of mray on the node at that moment."""

    pid: int
    name: str
    used_bytes: int


class OomFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Why a worker was ended for want of memory, in numbers.

    ``kind``: node_memory (the node was above its threshold), task_limit (it was above its own
    declared memory), kernel (the kernel's out-of-memory killer was first).
    """

    kind: str
    node_id: str
    used_bytes: int
    limit_bytes: int
    threshold_bytes: int
    victim: OomVictim
    #: The rule that chose it, and its words.
    rule: str = ""
    why: str = ""
    should_retry: bool = True
    retry_reason: str = ""
    top: tuple[OomProcess, ...] = ()
    store_used_bytes: int = 0
    store_capacity_bytes: int = 0
    #: The node's ``memory`` resource: no task can ask for more.
    memory_resource_bytes: int = 0

    def to_bytes(self) -> bytes:
        """For ``DeathCause.oom``."""
        return msgspec.msgpack.encode(self)

    @staticmethod
    def from_bytes(data: bytes) -> OomFacts:
        """The reverse. Raises msgspec.MsgspecError on junk."""
        return msgspec.msgpack.decode(data, type=OomFacts)


class OomAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """One run of a task that ended for want of memory."""

    number: int
    peak_bytes: int
    requested_bytes: int
    runtime_s: float
