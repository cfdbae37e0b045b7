"""Arguments that the next task may want again, kept readable for a moment after the last.

Owns which buffers outlive their task and for how long. Does not own pins: a kept buffer is one more
reference to what store/client.py pins. Without this, a loop over one big argument asks the node
daemon to pin and unpin it for every call, which takes longer than the call.

Bounded by time alone: what is freed meanwhile leaves the store a tenth of a second later, and what
is to be spilled waits as long.
"""

from __future__ import annotations

from collections.abc import Callable

LINGER_S = 0.1

After = Callable[[float, Callable[[], None]], object]


class Lingering:
    """The kept buffers of a worker. ``keep`` is for executing threads, the rest for the loop.

    ``post`` runs a call in the loop, ``after`` runs one there once, so many seconds later.
    """

    def __init__(self, post: Callable[[Callable[[], None]], None], after: After) -> None:
        self._post = post
        self._after = after
        self._kept: dict[bytes, memoryview] = {}
        #: Those used since the last look.
        self._used: dict[bytes, None] = {}
        self._armed = False

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, object_id: bytes, view: memoryview) -> None:
        """Have the object stay readable until it was not used for LINGER_S (to twice that)."""
        self._used[object_id] = None
        self._kept[object_id] = view
        if not self._armed:
            self._armed = True
            self._post(self._arm)

    def _arm(self) -> None:
        self._after(LINGER_S, self._look)

    def _look(self) -> None:
        used, self._used = self._used, {}
        for object_id in list(self._kept):
            if object_id not in used:
                self._kept.pop(object_id, None)
        if self._kept:
            self._arm()
            return
        self._armed = False
        if self._kept:
            # A thread kept something since, and may have seen that no look was due any more.
            self._armed = True
            self._arm()
