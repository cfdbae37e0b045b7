"""``mray.TaskID`` and its like: ids as values of a type of their own, for programs that want those.

Owns Ray's names, widths and methods. Inside mray ids are plain bytes (ids.py says why); these are
made of them where a user asks. Two are equal when they are of one type and have the same bytes.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar, Self

from mray.ids import ACTOR_BYTES, JOB_BYTES, NODE_BYTES, TASK_BYTES

GROUP_BYTES = 18


class BaseID:
    """An id of ``size()`` bytes. TypeError for what is no bytes, ValueError for another length."""

    __slots__ = ("_bytes",)
    _size: ClassVar[int] = NODE_BYTES

    def __init__(self, id: bytes) -> None:
        if not isinstance(id, bytes):
            raise TypeError(f"{type(self).__name__} is made of bytes, not of {type(id)}")
        if len(id) != self._size:
            raise ValueError(f"{type(self).__name__} has {self._size} bytes, not {len(id)}")
        self._bytes = id

    @classmethod
    def from_binary(cls, id_bytes: bytes) -> Self:
        """The same as the class itself."""
        return cls(id_bytes)

    @classmethod
    def from_hex(cls, hex_id: str | bytes) -> Self:
        """Of what ``hex()`` gave. ValueError for anything else."""
        text = hex_id.decode() if isinstance(hex_id, bytes) else hex_id
        return cls(bytes.fromhex(text))

    @classmethod
    def nil(cls) -> Self:
        """The id of nothing."""
        return cls(b"\xff" * cls._size)

    @classmethod
    def size(cls) -> int:
        """How many bytes it has."""
        return cls._size

    def binary(self) -> bytes:
        """Its bytes."""
        return self._bytes

    def hex(self) -> str:
        """Its bytes as hex digits."""
        return self._bytes.hex()

    def is_nil(self) -> bool:
        """Whether it is the id of nothing."""
        return self._bytes == b"\xff" * self._size

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._bytes == other._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._bytes.hex()})"

    def __reduce__(self) -> Any:
        return type(self), (self._bytes,)


class _Random(BaseID):
    __slots__ = ()

    @classmethod
    def from_random(cls) -> Self:
        """One that nobody has."""
        return cls(os.urandom(cls._size))


class _OfJob(BaseID):
    """Its last bytes are its job's."""

    __slots__ = ()

    @property
    def job_id(self) -> JobID:
        """The job it belongs to."""
        return JobID(self._bytes[-JOB_BYTES:])


class UniqueID(_Random):
    """Any id of 28 bytes."""

    __slots__ = ()


class NodeID(UniqueID):
    """A node's."""

    __slots__ = ()


class WorkerID(UniqueID):
    """A process's: a worker's or a driver's."""

    __slots__ = ()


class FunctionID(UniqueID):
    """A function's. mray itself names functions otherwise."""

    __slots__ = ()


class ActorClassID(UniqueID):
    """A class's. mray itself names classes otherwise."""

    __slots__ = ()


class JobID(BaseID):
    """A job's: a number, as Ray prints it."""

    __slots__ = ()
    _size = JOB_BYTES

    @classmethod
    def from_int(cls, value: int) -> Self:
        """Of the job's number."""
        return cls(value.to_bytes(JOB_BYTES, "little"))

    def int(self) -> int:
        """The job's number."""
        return int.from_bytes(self._bytes, "little")


class TaskID(BaseID):
    """A task's, or a put's."""

    __slots__ = ()
    _size = TASK_BYTES

    def job_id(self) -> JobID:
        """The job it belongs to."""
        return JobID(self._bytes[-JOB_BYTES:])


class ActorID(_OfJob, _Random):
    """An actor's."""

    __slots__ = ()
    _size = ACTOR_BYTES


class PlacementGroupID(_Random):
    """A placement group's."""

    __slots__ = ()
    _size = GROUP_BYTES


__all__ = [
    "ActorClassID",
    "ActorID",
    "BaseID",
    "FunctionID",
    "JobID",
    "NodeID",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
]
