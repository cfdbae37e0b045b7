"""How long the head waits before it starts an actor again, and what it says of that.

Decides nothing else: who may restart, and when the wait is over, is actors.py's.
"""

from __future__ import annotations

from typing import Final

from mray.node.head.actor_records import Actor
from mray.node.head.causes import describe, for_memory
from mray.wire.messages import DeathCause

#: Starts in a row that never got alive are spaced out 0, 0.25, 0.5, 1 … s, up to this.
_RESTART_MAX_S: Final = 30.0
#: After an end for want of memory 1, 2, 4 … s pass, up to this.
_MEMORY_MAX_S: Final = 60.0
#: After the death of a node, so that all callers have heard of it before the next life begins. The
#: node may be cut off or stopped, its workers alive: what a caller sent to one before it heard is
#: answered, and without the pause that could be after the next life had begun.
LAST_CALLS_S: Final = 0.5


def pause_of(actor: Actor, cause: DeathCause) -> tuple[float, str]:
    """Seconds until an actor that ended of ``cause`` starts again, and why; (0, "") for at once.
    Its counts are those with this end."""
    if for_memory(cause):
        pause_s = min(2.0 ** min(actor.memory_count - 1, 10), _MEMORY_MAX_S)
        return pause_s, f"it ended for want of memory; it is started again after {pause_s:g} s"
    if actor.fruitless_count > 1:
        # Not 2.0 ** count: that number has no room after 1,024 of them.
        pause_s = min(2.0 ** min(actor.fruitless_count - 4, 10), _RESTART_MAX_S)
        return pause_s, (
            f"{actor.fruitless_count} starts in a row failed ({describe(cause)}); "
            f"the next is tried after {pause_s:g} s"
        )
    if cause.kind == "node_died":
        return LAST_CALLS_S, f"its node is gone; it is started again after {LAST_CALLS_S:g} s"
    return 0.0, ""
