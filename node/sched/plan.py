"""Which workers would find work now: what one round of scheduling asks of the pool.

Owns the bound on task workers. Lives for one round; resources are not its business.
"""

from __future__ import annotations

from mray.node.sched.lines import Line
from mray.node.workers.pool import Key, Pool, PoolEffect


def workers_max(cpus: int, soft_limit: int) -> int:
    """Task workers from which on only recursion gets more; a higher soft limit raises it."""
    return max(16 * cpus + 64, soft_limit)


class StartPlan:
    """Fresh for each round."""

    def __init__(self, pool: Pool, task_workers_max: int) -> None:
        #: Workers that would find work, those on their way included.
        self.wanted: dict[Key, int] = {}
        self._pool = pool
        self._max = task_workers_max
        self._task_workers = pool.count("starting", "idle", "leased")
        self._starting = pool.count("starting")
        self._counted: dict[Key, int] = {}
        self._refused: Key | None = None

    @property
    def crowded(self) -> bool:
        """Whether only recursion is given more task workers."""
        return self._task_workers >= self._max

    def start(self, line: Line, owner_is_blocked: bool, now: float) -> bool:
        """Count on one more worker for this line. False: none can come now."""
        key = line.key
        if not self._pool.may_start(key, now):
            # The pool starts one when it may again; nothing is kept free for it until then.
            self.wanted.setdefault(key, 1)
            return False
        planned = self.wanted.get(key, 0)
        on_their_way = self._counted.get(key)
        if on_their_way is None:
            on_their_way = self._counted[key] = self._pool.starting(key)
        if planned >= on_their_way:
            if line.class_id is not None:
                if self.crowded and (not owner_is_blocked or self._starting):
                    self._refused = key
                    return False
                self._task_workers += 1
            self._starting += 1
        self.wanted[key] = planned + 1
        return True

    def make_room(self) -> list[PoolEffect]:
        """End an idle worker of another kind where the bound left no room for a wanted one."""
        if self._refused is None or self._pool.count("draining"):
            return []
        return self._pool.make_room(1, self._refused)
