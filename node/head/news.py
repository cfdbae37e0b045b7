"""What the head tells every node of the others: what has changed since it said so last.

Machine, a part of membership.py. In batches, at most every 100 ms, and only where there is more
than one node.
"""

from __future__ import annotations

from typing import Final

from mray.wire.messages import ClusterNews, Heartbeat, NodeNews

NEWS_EVERY_S: Final = 0.1


class News:
    """See the module. Times are monotonic seconds."""

    def __init__(self) -> None:
        #: As the nodes know it, and what they do not know yet.
        self._told: dict[bytes, NodeNews] = {}
        self._changed: dict[bytes, NodeNews] = {}
        self._told_at = float("-inf")

    def heard(self, beat: Heartbeat) -> None:
        """A node has told of itself."""
        news = NodeNews(
            beat.node_id,
            beat.available,
            waiting=sum(count for _, count in beat.pending),
            store_used_bytes=beat.store_used_bytes,
            draining=beat.draining,
        )
        if self._told.get(beat.node_id) != news:
            self._changed[beat.node_id] = news
        else:
            self._changed.pop(beat.node_id, None)

    def joined(self) -> None:
        """A node is new (or new to us), and knows nothing of the others."""
        self._changed = {**self._told, **self._changed}

    def gone(self, node_id: bytes) -> None:
        """A node is dead."""
        self._told.pop(node_id, None)
        self._changed.pop(node_id, None)

    def deadline(self) -> float | None:
        """When take() has something."""
        return self._told_at + NEWS_EVERY_S if self._changed else None

    def take(self, node_count: int, now: float) -> ClusterNews | None:
        """What to send to all nodes now."""
        due = self.deadline()
        if due is None or due > now:
            return None
        changed, self._changed = self._changed, {}
        self._told.update(changed)
        self._told_at = now
        return ClusterNews(list(changed.values())) if node_count > 1 else None
