"""Why a lost value cannot be had again, as the error that its readers get.

Owns the classes and texts of the reasons that ownership/lineage.py and rebuilding.py name.
"""

from __future__ import annotations

from mray.exceptions import (
    ObjectLostError,
    ObjectReconstructionFailedError,
    ObjectReconstructionFailedLineageEvictedError,
    ObjectReconstructionFailedMaxAttemptsExceededError,
    RayError,
)
from mray.ownership import lineage, rebuilding
from mray.ownership.entry import Entry

_WHY = {
    lineage.RETRIES_DISABLED: "Its task may not run again: its max_retries (of an actor's method: "
    "max_task_retries) is 0",
    lineage.MAX_ATTEMPTS: "Its task has run as often as it may: raise max_retries (of an actor's "
    "method: max_task_retries)",
    lineage.EVICTED: "The description of its task was dropped to save memory: raise "
    "max_lineage_bytes",
    lineage.CANCELLED: "Its task was cancelled, so it does not run again",
    rebuilding.UNKNOWN: "Nothing is known any more of the task that made it",
    rebuilding.NOT_MADE: "Its task ran again and did not make it: it yielded fewer items",
}
_CLASSES = {
    lineage.MAX_ATTEMPTS: ObjectReconstructionFailedMaxAttemptsExceededError,
    lineage.EVICTED: ObjectReconstructionFailedLineageEvictedError,
}


def hopeless(entry: Entry, why: str, loss: str) -> RayError:
    """The error of an object that cannot be had again."""
    ref, name = entry.object_id.hex(), entry.name
    loss = loss or "its value was let go when only tasks that may run again needed it"
    if why == rebuilding.PUT:
        text = f"{loss}. It was made by put(), and only results of tasks can be made again"
        return ObjectLostError(ref, task_name=name, reason=text)
    text = f"{loss}. {_WHY[why]}"
    kind = _CLASSES.get(why, ObjectReconstructionFailedError)
    return kind(ref, why, text, task_name=name)
