"""Tasks go where their arguments are.

Of a task with at least a mebibyte of arguments in object stores, most of it on one other node, the
leases are asked under a class of its own that prefers that node (node/sched/elsewhere.py). Without
room there it runs anywhere, and the arguments are fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from mray.placement import Where
from mray.tasks.task import Task, Template

if TYPE_CHECKING:
    from mray.runtime.tasks import TasksPart

#: Less than this is fetched sooner than a lease elsewhere is had.
_WORTH_BYTES: Final = 1 << 20
#: Variants of templates that are kept; the oldest goes.
_VARIANTS_MAX: Final = 10_000


class Locality:
    """Owns the variants of templates, by template and node."""

    def __init__(self, part: TasksPart) -> None:
        self._part = part
        self._variants: dict[tuple[int, bytes], Template] = {}

    def consider(self, task: Task) -> None:
        """Let a task whose arguments are all there prefer the node that has most of them."""
        sizes: dict[bytes, int] = {}
        for entry in task.deps:
            located = entry.located
            if located is not None:
                sizes[located.node_id] = sizes.get(located.node_id, 0) + located.size_bytes
        if not sizes:
            return
        node_id = max(sizes, key=sizes.__getitem__)
        size = sizes[node_id]
        if (
            node_id == self._part.rt.node.node_id
            or size < _WORTH_BYTES
            or 2 * size <= sum(sizes.values())
            or node_id in self._part.rt.dead_nodes
        ):
            return
        former = task.template
        sclass = self._part.dispatcher.classes[former.class_id]
        if sclass.placed or sclass.exclusive:
            return
        at = (former.number, node_id)
        variant = self._variants.get(at)
        if variant is None:
            class_id = self._part.class_of(
                sclass.resources, sclass.job_id, sclass.runtime_env,
                where=msgspec.msgpack.encode(Where(prefer=node_id)),
            )  # fmt: skip
            variant = Template(former.wire, class_id, former.max_retries, former.target_us)
            variant.recorded = former.recorded
            self._variants[at] = variant
            if len(self._variants) > _VARIANTS_MAX:
                del self._variants[next(iter(self._variants))]
        task.template = variant
