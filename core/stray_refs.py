"""ObjectRefs made of bytes: of an object that this process knows, or of none.

A reference is counted from the moment it is made, so one that somebody wrote down as bytes keeps
nothing alive meanwhile. It is the object's while this process knows the object; else reading it
raises ReferenceLostError at once, also where the object lives on in another process.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from mray import current
from mray.exceptions import ReferenceLostError
from mray.ids import OBJECT_BYTES
from mray.object_ref import ObjectRef
from mray.ownership.entry import Entry
from mray.serialization.failures import error_envelope


class _Nowhere:
    """Where the finalizers of such references leave their notes: nobody reads them."""

    asleep = False

    def __init__(self) -> None:
        self.posts: deque[Any] = deque(maxlen=0)

    def wake(self) -> None:
        """Nobody sleeps."""


_NOWHERE = _Nowhere()


def fill(ref: ObjectRef[Any], object_id: object) -> None:
    """Make a fresh reference one with these bytes. Raises as ``ref_of``."""
    nobody = ref._entry = Entry(b"", None, _NOWHERE, 1)  # Its end has to be no trouble.
    known = ref_of(object_id)  # type: ignore[arg-type]  # It looks.
    # That one is counted, and this one takes its place.
    ref._entry, known._entry = known._entry, nobody


def ref_of(object_id: bytes) -> ObjectRef[Any]:
    """The reference with these bytes. TypeError for what is no bytes, ValueError for a length that
    is not 28."""
    if not isinstance(object_id, bytes):
        raise TypeError(f"an ObjectRef is made of bytes, not of {type(object_id)}")
    if len(object_id) != OBJECT_BYTES:
        raise ValueError(f"an ObjectRef has {OBJECT_BYTES} bytes, not {len(object_id)}")
    rt = current.runtime
    if rt is not None and not rt.closed:
        known = rt.references.entries.get(object_id)
        if known is not None:
            owner = known.owner if known.owner is not None else rt.address
            ref: ObjectRef[Any] = rt.ref_maker(owner)(object_id)
            return ref
    entry = Entry(object_id, None, _NOWHERE, local=1, name="made of bytes")
    reason = "it was made of bytes, and this process knows no object with this id"
    entry.data = error_envelope(ReferenceLostError(object_id.hex(), reason=reason))
    entry.ready = True
    return ObjectRef(entry)
