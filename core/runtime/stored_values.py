"""Reading values that lie in a store, also when they are not there any more.

Owns the second try: a reader that does not find a value has its owner look for it, and waits for
the owner's word. What the owner does then is recovering.py's; which other nodes may have the value
is fetching.py's.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from mray.exceptions import ObjectLostError
from mray.former import refuse_former
from mray.serialization.envelope import NONE

if TYPE_CHECKING:
    from mray.ownership.entry import Entry
    from mray.runtime.runtime import Runtime
    from mray.store.ahead import ReadAhead
    from mray.wire.messages import Located, RefInfo

#: A value is looked for so often: each time its owner has said that it is there, or made it again.
_READS_MAX = 20


class StoredValues:
    """See the module. For threads other than the loop's."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime

    def read(
        self, entry: Entry, located: Located, ahead: ReadAhead | None, deadline: float | None
    ) -> bytes | memoryview:
        """The bytes of a ready entry's value; an error in its place is returned as it is.

        Raises GetTimeoutError when the value turns out to be lost and is not made again until
        ``deadline`` (monotonic seconds), ObjectLostError when it is missed again and again.
        """
        object_id, store = entry.object_id, self.rt.store
        if ahead is None:
            self.rt.fetching.look_there(object_id, entry.owner, located)
        view = store.get(object_id) if ahead is None else ahead.view(object_id)
        reads = 1
        while view is None:
            refuse_former((entry,), self.rt)
            reason = (
                store.why_missing(object_id)
                or f"it is not in the store of node {self.rt.node.node_id.hex()[:8]} any more"
            )
            if reads == _READS_MAX:
                raise ObjectLostError(object_id.hex(), task_name=entry.name, reason=reason)
            self._await_again(entry, reason, deadline)
            again = entry.located
            if entry.data is not None:
                return entry.data
            if again is not None:
                self.rt.fetching.look_there(object_id, entry.owner, again)
            view = store.get(object_id)
            reads += 1
        return view

    def _await_again(self, entry: Entry, reason: str, deadline: float | None) -> None:
        """Have the owner look for a value that is not in the store, and wait for its word."""
        self.rt.post(lambda: self.rt.recovering.report(entry, reason))
        left = None if deadline is None else max(0.0, deadline - monotonic())
        self.rt.objects.wait_for([entry], left)

    def read_again(self, ref: RefInfo, located: Located | None, reason: str) -> bytes | memoryview:
        """The value of an argument that is not in the store: once its owner has found it, or made
        it again. Raises ObjectLostError when that does not help; an error in the place of the
        value is returned as it is."""
        rt = self.rt
        entry = rt.borrowing.entry_for(ref.object_id, ref.owner)

        def begin() -> None:
            self.rt.references.hold(entry)
            if not entry.ready and not entry.watching and located is not None:
                self.rt.references.fill(entry, None, located)
            rt.recovering.report(entry, reason)

        rt.post(begin)
        try:
            self.rt.objects.wait_for([entry], None)
            place = entry.located
            if entry.data is not None:
                return entry.data
            return NONE if place is None else self.read(entry, place, None, None)
        finally:
            rt.post(lambda: self.rt.references.release(entry))
