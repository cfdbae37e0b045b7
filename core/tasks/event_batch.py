"""What an owner tells the head of attempts that ended: the bytes of TaskEvents.batch.

Covers the layout, and turning a batch into views. The head keeps batches as they came and reads
them only when somebody asks, so a task costs it nothing but the bytes. Decides nothing.

Times in a record are the owner's monotonic seconds; ``wall_offset_s`` makes them clock times. A
part holds what one worker answered in one message at ``at``: its attempts ended one after the
other, so the end of each follows from the run times of those behind it. That is exact but for what
the worker did between two of them. Of calls of actors that ran beside each other only ``at`` is
known.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mray.wire.messages import TaskView

NORMAL_TASK = "NORMAL_TASK"
ACTOR_TASK = "ACTOR_TASK"
ACTOR_CREATION_TASK = "ACTOR_CREATION_TASK"

FINISHED = "FINISHED"
FAILED = "FAILED"

#: task id, template, attempt, created, arguments there, sent, run time in us, failed, parent, actor
Record = tuple[bytes, int, int, float, float, float, int, bool, bytes, bytes]


class Kind(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What attempts of one template share."""

    number: int
    name: str
    type: str
    resources: dict[str, int]


class Part(msgspec.Struct, array_like=True, frozen=True):
    """Attempts that ended at one worker, in order, as far as one message told."""

    worker_id: bytes
    node_id: bytes
    pid: int
    at: float
    records: list[Record]
    #: Position -> (type, message) of the failed ones.
    errors: dict[int, tuple[str, str]] = {}


class EventBatch(msgspec.Struct, array_like=True, frozen=True):
    """See the module."""

    owner_id: bytes
    job_id: bytes
    wall_offset_s: float
    kinds: list[Kind]
    parts: list[Part]


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(EventBatch).decode


def views_of(batch: bytes) -> Iterator[TaskView]:
    """The attempts in a batch, those that ended last first. msgspec.MsgspecError on junk."""
    told = _decode(batch)
    kinds = {kind.number: kind for kind in told.kinds}
    wall = told.wall_offset_s
    for part in reversed(told.parts):
        records = part.records
        one_by_one = _one_by_one(part)
        end = part.at
        for number in range(len(records) - 1, -1, -1):
            (task_id, template, attempt, created, ready, sent, run_us, failed, parent,
             actor_id) = records[number]  # fmt: skip
            kind = kinds.get(template)
            if kind is None:
                continue  # Of a sender that speaks another version: it said not what it is.
            begin = end - run_us / 1e6 if sent else 0.0
            error_type, message = part.errors.get(number, ("", "")) if failed else ("", "")
            yield TaskView(
                task_id, attempt, kind.name, kind.type, FAILED if failed else FINISHED,
                told.job_id, parent, actor_id, told.owner_id, part.worker_id, part.node_id,
                part.pid, kind.resources, _wall(created, wall), _wall(ready or created, wall),
                _wall(sent, wall), _wall(begin, wall), end + wall, error_type, message,
            )  # fmt: skip
            if one_by_one:
                end = begin


def _one_by_one(part: Part) -> bool:
    """Whether the attempts fit behind each other: else they ran side by side."""
    if len(part.records) < 2:
        return False
    first_sent = min(record[5] for record in part.records)
    return sum(record[6] for record in part.records) / 1e6 <= part.at - first_sent


def _wall(at: float, offset_s: float) -> float:
    return at + offset_s if at else 0.0
