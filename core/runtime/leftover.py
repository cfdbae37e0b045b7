"""What the last wait() left over: a loop that takes one result after the other waits on that next.

Owns the list, and that it is not kept for long: it holds references. What a wait has found to be
distinct references is not looked at again, which takes longer than all else in such a loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mray.object_ref import ObjectRef
    from mray.runtime.runtime import Runtime

#: Objects are to be freed within a second of their last reference.
_KEPT_S: Final = 0.1


class Leftover:
    """See the module. Used by any thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._rt = runtime
        #: A list of nobody else's, or None.
        self._refs: list[ObjectRef[Any]] | None = None
        self._due = False

    def equals(self, refs: list[Any]) -> bool:
        """Whether a list is what was left over. It may contain anything."""
        try:
            return refs == self._refs
        except Exception:  # What users put there may compare as it likes; it is looked at next.
            return False

    def keep(self, refs: list[ObjectRef[Any]]) -> None:
        """These are distinct."""
        self._refs = refs[:]
        if not self._due:
            self._due = True
            self._rt.post(self._arm)

    def _arm(self) -> None:
        self._rt.pump.after(_KEPT_S, self._forget)

    def _forget(self) -> None:
        self._due = False
        self._refs = None
