"""What holds memory in a cluster: the answers of its nodes, joined by object.

Covers: the join and why each object is alive. Pure: no clock, no messages sent, nothing printed.
memory_selection.py sorts, filters and groups, memory_text.py renders, `mray memory` and
memory_summary() collect.

An object is known by three sides that are asked at slightly different moments: its owner, processes
that borrow it, and the store. Where they disagree, or one did not answer, the report says less and
never guesses: an object whose holders may be among the silent is not called a leak.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from mray.ownership import kinds as k
from mray.wire.messages import MemoryReport, ProcessReferences, ReferenceView

#: What a live Python reference, or something that needs one, looks like.
_LIVE: Final = (
    k.LOCAL_REFERENCE, k.ACTOR_HANDLE, k.USED_BY_PENDING_TASK, k.CAPTURED_IN_OBJECT, k.LINEAGE,
)  # fmt: skip


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A driver or worker."""

    process_id: str
    pid: int
    #: Driver or Worker, as in Ray.
    type: str
    node_id: str
    ip: str
    job_id: str
    title: str
    actor_id: str
    answered: bool

    @property
    def who(self) -> str:
        """The process in a sentence."""
        if self.actor_id:
            return f"actor {self.title.partition('.')[0]} {self.pid}"
        return f"{self.type.lower()} {self.pid}"


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """How one process holds one object. None: not known."""

    process: Process
    kinds: dict[str, int]
    is_owner: bool
    state: str
    reason: str
    size_bytes: int | None
    age_s: float | None
    call_site: str
    name: str
    in_store: bool
    borrowers: tuple[tuple[str, int], ...] = ()

    @property
    def kind(self) -> str:
        """The kind that names the row, as in Ray."""
        return next((kind for kind in k.KINDS if kind in self.kinds), "UNKNOWN")


class MemoryObject(msgspec.Struct, frozen=True, kw_only=True):
    """An object and everybody who holds it, the owner first."""

    object_id: str
    owner_id: str
    owner: Process | None
    name: str
    size_bytes: int | None
    #: pending, ready, error, or the store's: spilled and the like.
    state: str
    reason: str
    age_s: float | None
    call_site: str
    #: Nodes that have it in their store.
    stored_on: tuple[str, ...]
    references: tuple[Reference, ...]
    why: str
    is_leak: bool

    @property
    def kinds(self) -> dict[str, int]:
        """All kinds with their counts, over all processes."""
        counts: dict[str, int] = {}
        for kind in k.KINDS:
            count = sum(reference.kinds.get(kind, 0) for reference in self.references)
            if count:
                counts[kind] = count
        return counts

    @property
    def kind(self) -> str:
        """The first kind."""
        return next(iter(self.kinds), "UNKNOWN")

    @property
    def count(self) -> int:
        """References over all processes and kinds; who borrows is counted where it holds."""
        return sum(count for kind, count in self.kinds.items() if kind != k.BORROWED)


class NodeMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A node that answered, or why it did not."""

    node_id: str
    ip: str
    report: MemoryReport | None
    error: str = ""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The joined answers."""

    nodes: tuple[NodeMemory, ...]
    processes: tuple[Process, ...]
    objects: tuple[MemoryObject, ...]
    #: Objects held in each way, over all processes, also those that are not listed.
    kinds: dict[str, int]
    #: (call site, objects, bytes), also of those that are not listed; most bytes first.
    sites: tuple[tuple[str, int, int], ...]
    #: Objects of processes beyond the limit of the question.
    unlisted_count: int

    @property
    def silent(self) -> list[Process]:
        """Processes that did not answer in time."""
        return [process for process in self.processes if not process.answered]

    @property
    def unreachable(self) -> list[NodeMemory]:
        """Nodes that did not answer."""
        return [node for node in self.nodes if node.report is None]


# ------------------------------------------------------------------------------------- the join


def join(nodes: Sequence[NodeMemory]) -> Memory:
    """Put what nodes and processes told together, by object; the biggest first."""
    processes: dict[str, Process] = {}
    views: dict[str, list[tuple[Process, ReferenceView]]] = {}
    totals: dict[str, int] = {}
    stored: dict[str, list[tuple[str, Any]]] = {}
    sites: dict[str, tuple[int, int]] = {}
    unlisted = 0
    for node in nodes:
        if node.report is None:
            continue
        for told in node.report.processes:
            process = _process(told, node)
            processes[process.process_id] = process
            if told.views is None:
                continue
            unlisted += max(0, told.views.object_count - len(told.views.views))
            for kind, count in told.views.kinds.items():
                totals[kind] = totals.get(kind, 0) + count
            for site, count, size in told.views.sites:
                former = sites.get(site, (0, 0))
                sites[site] = former[0] + count, former[1] + size
            for view in told.views.views:
                views.setdefault(view.object_id.hex(), []).append((process, view))
        for copy in node.report.stored:
            stored.setdefault(copy.object_id.hex(), []).append((node.node_id, copy))
    all_answered = not unlisted and all(node.report is not None for node in nodes)
    objects = [
        _object(object_id, views.get(object_id, []), stored.get(object_id, []), processes,
                all_answered)
        for object_id in {**views, **stored}
    ]  # fmt: skip
    return Memory(
        nodes=tuple(nodes),
        processes=tuple(processes.values()),
        objects=tuple(sorted(objects, key=_by_size)),
        kinds={kind: totals[kind] for kind in k.KINDS if totals.get(kind)},
        sites=tuple(
            sorted(((s, n, size) for s, (n, size) in sites.items()), key=lambda s: (-s[2], -s[1]))
        ),
        unlisted_count=unlisted,
    )


def _by_size(found: MemoryObject) -> tuple[int, str]:
    return -(found.size_bytes if found.size_bytes is not None else -1), found.object_id


def _process(told: ProcessReferences, node: NodeMemory) -> Process:
    return Process(
        process_id=told.process_id.hex(),
        pid=told.pid,
        type="Driver" if told.kind == "driver" else "Worker",
        node_id=node.node_id,
        ip=node.ip,
        job_id=told.job_id.hex(),
        title=told.title,
        actor_id=told.actor_id.hex(),
        answered=told.views is not None,
    )


def _object(
    object_id: str,
    held: list[tuple[Process, ReferenceView]],
    stored: list[tuple[str, Any]],
    processes: dict[str, Process],
    all_answered: bool,
) -> MemoryObject:
    owner_id = next((view.owner_id.hex() for _, view in held if view.owner_id), "")
    if not owner_id and stored:
        owner_id = stored[0][1].owner_id.hex()
    is_actor = any(k.ACTOR_HANDLE in view.kinds for _, view in held)
    references = [_reference(process, view, is_actor) for process, view in held]
    listed = {reference.process.process_id for reference in references}
    for _, copy in stored:
        # A process that did not answer is known to read by what the store counts.
        for pinner, count in copy.pins:
            process = processes.get(pinner.hex())
            if process is not None and not process.answered and process.process_id not in listed:
                listed.add(process.process_id)
                references.append(_silent_reader(process, count))
    references.sort(key=lambda reference: (not reference.is_owner, reference.process.pid))
    mine = next((reference for reference in references if reference.is_owner), None)
    sizes = [copy.size_bytes for _, copy in stored]
    sizes += [r.size_bytes for r in references if r.size_bytes is not None]
    failed = any(reference.state == "error" for reference in references)
    state, reason = "error" if failed else "unknown", ""
    if mine is not None:
        state, reason = mine.state, mine.reason
    if stored:
        where = {copy.state for _, copy in stored}
        if where == {"spilled"}:
            state = "spilled"
        elif mine is None:
            state = "pending" if where == {"created"} else "ready"
    owner = processes.get(owner_id)
    unseen = [
        processes.get(borrower)
        for borrower, _ in (mine.borrowers if mine is not None else ())
        if borrower not in listed
    ]
    doubtful = (
        not all_answered
        or (owner is not None and not owner.answered)
        or any(process is None or not process.answered for process in unseen)
    )
    lives = any(kind in reference.kinds for reference in references for kind in _LIVE)
    ages = [reference.age_s for reference in references if reference.age_s is not None]
    return MemoryObject(
        object_id=object_id,
        owner_id=owner_id,
        owner=owner,
        name=mine.name if mine is not None else "",
        size_bytes=max(sizes, default=None),
        state=state,
        reason=reason,
        age_s=max(ages, default=None),
        call_site=mine.call_site if mine is not None else "",
        stored_on=tuple(node_id for node_id, _ in stored),
        references=tuple(references),
        why=_why(references, mine, unseen, owner, state, reason),
        is_leak=state != "pending" and not lives and not doubtful,
    )


def _reference(process: Process, view: ReferenceView, is_actor: bool) -> Reference:
    kinds = dict(view.kinds)
    if is_actor and k.LOCAL_REFERENCE in kinds:
        # A borrower cannot tell a handle from another reference; the owner can.
        kinds[k.ACTOR_HANDLE] = kinds.get(k.ACTOR_HANDLE, 0) + kinds.pop(k.LOCAL_REFERENCE)
    return Reference(
        process=process,
        kinds={kind: kinds[kind] for kind in k.KINDS if kinds.get(kind, 0) > 0},
        is_owner=view.owner_id.hex() == process.process_id,
        state=view.state,
        reason=view.reason,
        size_bytes=view.size_bytes if view.size_bytes >= 0 else None,
        age_s=view.age_s if view.age_s >= 0 else None,
        call_site=view.call_site,
        name=view.name,
        in_store=view.in_store,
        borrowers=tuple((process_id.hex(), count) for process_id, count in view.borrowers),
    )


def _silent_reader(process: Process, count: int) -> Reference:
    return Reference(
        process=process, kinds={k.PINNED_IN_MEMORY: count}, is_owner=False, state="ready",
        reason="", size_bytes=None, age_s=None, call_site="", name="", in_store=True,
    )  # fmt: skip


_PHRASES: Final[dict[str, Callable[[int, str], str]]] = {
    k.ACTOR_HANDLE: lambda n, who: f"{_count(n, 'handle')} in {who}",
    k.PINNED_IN_MEMORY: lambda n, who: f"read in place by {who}",
    k.USED_BY_PENDING_TASK: lambda n, who: f"needed by {_count(n, 'pending task')} of {who}",
    k.LOCAL_REFERENCE: lambda n, who: f"{_count(n, 'reference')} in {who}",
    k.CAPTURED_IN_OBJECT: lambda n, who: f"inside {_count(n, 'object')} of {who}",
    k.OUT_OF_BAND: lambda n, who: f"pickled out of band: kept until {who} ends",
    k.CLOSURE: lambda n, who: f"captured by a function of {who}: kept until its job ends",
    k.LINEAGE: lambda n, who: f"needed if {_count(n, 'finished task')} of {who} must run again",
}


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _why(
    references: list[Reference],
    mine: Reference | None,
    unseen: list[Process | None],
    owner: Process | None,
    state: str,
    reason: str,
) -> str:
    """Why the object is alive, in one line."""
    parts = [f"being made: {reason}" if reason else "being made"] if state == "pending" else []
    parts += [
        _PHRASES[kind](count, reference.process.who)
        for reference in references
        for kind, count in reference.kinds.items()
        if kind in _PHRASES
    ]
    for process in unseen:
        if process is None:
            parts.append("borrowed by a process that is not listed")
        else:
            silent = "" if process.answered else ", which did not answer"
            parts.append(f"borrowed by {process.who}{silent}")
    if not parts and mine is None:
        if owner is None:
            return "in the store; its owner is not listed"
        silent = "did not answer" if not owner.answered else "does not list it"
        return f"in the store; its owner, {owner.who}, {silent}"
    return "; ".join(parts) or "nothing holds it: it is about to be freed"
