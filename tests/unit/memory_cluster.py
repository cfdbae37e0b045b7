"""A made-up cluster for tests of memory reports: one node, a driver and workers."""

from __future__ import annotations

from typing import Any

from mray.memory_report import Memory, NodeMemory, join
from mray.wire.messages import (
    MemoryReport,
    ProcessReferences,
    ReferenceView,
    ReferenceViews,
    StoredView,
    StoreStats,
)

MIB = 1 << 20
NODE = b"\x6d" + b"\x11" * 27
DRIVER = b"\x6d" + b"\xd0" * 27
WORKER = b"\x6d" + b"\xe1" * 27
ACTOR = b"\x6d" + b"\xe2" * 27
JOB = b"\x01\0\0\0"


def object_id(number: int, owner: bytes = DRIVER) -> bytes:
    return number.to_bytes(8, "little") + owner[1:13] + JOB + b"\0\0\0\0"


def view(number: int, kinds: dict[str, int], owner: bytes = DRIVER, **facts: Any) -> ReferenceView:
    """What a process says of object ``number``."""
    known = {
        "name": "put", "size_bytes": -1, "state": "ready", "reason": "", "in_store": False,
        "borrowers": [], "age_s": 60.0, "call_site": "",
    }  # fmt: skip
    known.update(facts)
    return ReferenceView(
        object_id(number, owner), owner, known["name"], known["size_bytes"], known["state"],
        known["reason"], known["in_store"], kinds, known["borrowers"], known["age_s"],
        known["call_site"],
    )  # fmt: skip


def told(
    process_id: bytes, pid: int, views: list[ReferenceView] | None, title: str = "", more: int = 0
) -> ProcessReferences:
    """A process's answer; None: it did not answer. ``more``: objects it did not list."""
    kinds: dict[str, int] = {}
    for one in views or ():
        for kind in one.kinds:
            kinds[kind] = kinds.get(kind, 0) + 1
    answer = None
    if views is not None:
        sites = [("/a/job.py:9", len(views) + more, 10 * (len(views) + more))] if more else []
        answer = ReferenceViews(1, title, len(views) + more, views, kinds, sites)
    kind = "driver" if process_id == DRIVER else "worker"
    actor_id = b"\xac" * 16 if process_id == ACTOR else b""
    return ProcessReferences(process_id, pid, kind, JOB, title, actor_id, answer)


def stored(
    number: int, size: int, pins: dict[bytes, int] | None = None, **facts: Any
) -> StoredView:
    """An object in the store."""
    owner = facts.get("owner", DRIVER)
    state = facts.get("state", "sealed")
    return StoredView(object_id(number, owner), owner, size, state, list((pins or {}).items()))


def report(*processes: ProcessReferences, store: list[StoredView] | None = None) -> MemoryReport:
    """What the node says."""
    copies = store or []
    used = sum(copy.size_bytes for copy in copies)
    stats = StoreStats(1, 100 * MIB, used, 0, len(copies))
    return MemoryReport(1, stats, copies, list(processes))


def node(answer: MemoryReport | str) -> NodeMemory:
    """The node, or why it did not answer."""
    if isinstance(answer, str):
        return NodeMemory(node_id=NODE.hex(), ip="10.0.0.1", report=None, error=answer)
    return NodeMemory(node_id=NODE.hex(), ip="10.0.0.1", report=answer)


def memory(*processes: ProcessReferences, store: list[StoredView] | None = None) -> Memory:
    """The joined report of the one node."""
    return join([node(report(*processes, store=store))])
