"""The kinds of reference, by the names that users meet: Ray's where Ray has the kind.

Owns the words and how an entry's counts read in them. The counts are references.py's.
"""

from __future__ import annotations

from typing import Final

from mray.ownership.entry import Entry

#: ObjectRefs in the process.
LOCAL_REFERENCE: Final = "LOCAL_REFERENCE"
#: A value that was read in place: numpy arrays and the like still lie over the store.
PINNED_IN_MEMORY: Final = "PINNED_IN_MEMORY"
#: Arguments of tasks that are not finished, handles of calls under way.
USED_BY_PENDING_TASK: Final = "USED_BY_PENDING_TASK"
#: References inside values that live.
CAPTURED_IN_OBJECT: Final = "CAPTURED_IN_OBJECT"
#: Handles of an actor.
ACTOR_HANDLE: Final = "ACTOR_HANDLE"
#: Pickled by user code with mray.cloudpickle: stays until that process ends.
OUT_OF_BAND: Final = "OUT_OF_BAND"
#: Captured by an exported function or class: stays until the job ends.
CLOSURE: Final = "CLOSURE"
#: Arguments of finished tasks that may run again.
LINEAGE: Final = "LINEAGE"
#: At the owner: other processes hold it.
BORROWED: Final = "BORROWED"

#: Where an object is held in several ways, the first of these names the row, as in Ray.
KINDS: Final = (
    ACTOR_HANDLE, PINNED_IN_MEMORY, USED_BY_PENDING_TASK, LOCAL_REFERENCE, CAPTURED_IN_OBJECT,
    OUT_OF_BAND, CLOSURE, BORROWED, LINEAGE,
)  # fmt: skip


def kinds_of(entry: Entry) -> dict[str, int]:
    """In which ways, and how often, the process of ``entry`` holds it; no zeros."""
    if entry.is_actor:
        counts = {ACTOR_HANDLE: entry.local, USED_BY_PENDING_TASK: entry.held}
    else:
        counts = {USED_BY_PENDING_TASK: entry.held, LOCAL_REFERENCE: entry.local}
    counts[CAPTURED_IN_OBJECT] = entry.inside
    counts[OUT_OF_BAND] = entry.pinned
    counts[CLOSURE] = entry.captured
    counts[LINEAGE] = entry.pins.lineage if entry.pins is not None else 0
    counts[BORROWED] = len(entry.borrowers or ())
    return {kind: count for kind, count in counts.items() if count > 0}
