"""What an owner tells the head of attempts that ended: the bytes of TaskEvents.batch.

Covers the layout, and turning a batch into views. The head keeps batches as they came and reads
them only when somebody asks, so a task costs it nothing but the bytes. Decides nothing.

Times in a record are the owner's monotonic seconds; ``wall_offset_s`` makes them clock times. A
part holds what ended at one worker. Records with the same ``told`` came in one message: their
attempts ended one after the other, so the end of each follows from the run times of those behind
it. That is exact but for what the worker did between two of them. Of calls of actors that ran
beside each other only ``told`` is known.
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


class Record(msgspec.Struct, array_like=True, gc=False):
    """One attempt that ended. The collector does not know it: there may be many, and soon gone.

    ``ready``: 0.0 where the arguments were there when it was created.
    """

    task_id: bytes
    template: int
    attempt: int
    created: float
    ready: float
    sent: float
    run_us: int
    failed: bool
    parent: bytes
    actor_id: bytes
    #: When the owner learned of the end.
    told: float


class Kind(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What attempts of one template share."""

    number: int
    name: str
    type: str
    resources: dict[str, int]


class Part(msgspec.Struct, array_like=True, frozen=True):
    """Attempts that ended at one worker, in order."""

    worker_id: bytes
    node_id: bytes
    pid: int
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
    events = _decode(batch)
    kinds = {kind.number: kind for kind in events.kinds}
    wall = events.wall_offset_s
    for part in reversed(events.parts):
        records = part.records
        told_at, end, one_by_one = -1.0, 0.0, False
        for number in range(len(records) - 1, -1, -1):
            it = records[number]
            if it.told != told_at:
                told_at = end = it.told
                one_by_one = number > 0 and records[number - 1].told == told_at
                one_by_one = one_by_one and _one_by_one(records, number)
            kind = kinds.get(it.template)
            if kind is None:
                continue  # Of a sender that speaks another version: it said not what it is.
            begin = end - it.run_us / 1e6 if it.sent else 0.0
            error_type, message = part.errors.get(number, ("", "")) if it.failed else ("", "")
            yield TaskView(
                it.task_id, it.attempt, kind.name, kind.type, FAILED if it.failed else FINISHED,
                events.job_id, it.parent, it.actor_id, events.owner_id, part.worker_id,
                part.node_id, part.pid, kind.resources, _wall(it.created, wall),
                _wall(it.ready or it.created, wall), _wall(it.sent, wall), _wall(begin, wall),
                end + wall, error_type, message,
            )  # fmt: skip
            if one_by_one:
                end = begin


def _one_by_one(records: list[Record], last: int) -> bool:
    """Whether the attempts told with the last one fit behind each other: else they ran side by
    side."""
    told = first_sent = records[last].told
    run_us = 0
    while last >= 0 and records[last].told == told:
        run_us += records[last].run_us
        first_sent = min(first_sent, records[last].sent)
        last -= 1
    return run_us / 1e6 <= told - first_sent


def _wall(at: float, offset_s: float) -> float:
    return at + offset_s if at else 0.0
