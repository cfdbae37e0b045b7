"""What this process holds, as views for `mray memory`.

Owns reading the table of references for a report, in slices, so that a million entries hold up
neither the loop nor the tasks. Changes nothing.

A slice is read while other threads make new entries; the snapshot is of the entries that were there
when it was asked for, each as it is when its slice comes.
"""

from __future__ import annotations

import sys
from heapq import nlargest
from typing import TYPE_CHECKING

from mray.call_sites import CallSite, describe
from mray.ownership.entry import Entry
from mray.ownership.kinds import LOCAL_REFERENCE, PINNED_IN_MEMORY, kinds_of
from mray.serialization.envelope import NONE, is_error
from mray.wire.messages import GetReferences, ReferenceView, ReferenceViews

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

#: About 10 ms of the loop's time.
_SLICE = 10_000
_SITES_MAX = 50
#: Explaining why something pends looks through queues: so many are explained.
_EXPLAINED_MAX = 100


class ReferenceReports:
    """Answers GetReferences."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        runtime.pump.on(GetReferences, self._get_references)

    def _get_references(self, sender: bytes, message: GetReferences) -> None:
        survey = Survey(self.rt, message.limit)

        def go_on() -> None:
            if survey.step():
                self.rt.pump.send(sender, survey.views(message.rid))
            else:
                self.rt.pump.call_soon(go_on)

        go_on()


class Survey:
    """One look at the table: ``step()`` until it is True, then ``views()``."""

    def __init__(self, runtime: Runtime, limit: int) -> None:
        self._rt = runtime
        self._limit = max(0, limit)
        #: In place are values too whose entries are gone.
        self._in_place = runtime.store.in_place()
        self._entries = list(runtime.references.entries.values())
        self._next = 0
        self._count = 0
        self._kinds: dict[str, int] = {}
        #: By code and position: the site, objects, bytes.
        self._sites: dict[tuple[int, int], tuple[CallSite, int, int]] = {}
        #: (size, -birth, number): the biggest so far and no more than twice too many.
        self._biggest: list[tuple[int, float, int]] = []
        #: What is not bigger is not among them.
        self._floor = -2
        #: Objects that are a LOCAL_REFERENCE and nothing else.
        self._local_only = 0

    def step(self) -> bool:
        """Read a slice; whether that was the last."""
        part = self._entries[self._next : self._next + _SLICE]
        found = self._biggest
        floor = self._floor
        for number, entry in enumerate(part, self._next):
            if entry.freed:
                continue
            self._count += 1
            data = entry.data
            size = len(data) if data is not None else size_of(entry)
            if entry.local and not (
                entry.is_actor or entry.held or entry.inside or entry.pins or entry.borrowers
            ):
                self._local_only += 1  # As almost all are.
            else:
                for kind in kinds_of(entry):
                    self._kinds[kind] = self._kinds.get(kind, 0) + 1
            site = entry.call_site
            if site is not None:
                key = id(site[0]), site[1]
                _, objects, total = self._sites.get(key, (site, 0, 0))
                self._sites[key] = site, objects + 1, total + max(size, 0)
            if size > floor:
                found.append((size, -entry.born, number))
        if len(found) > 2 * self._limit:
            self._biggest = nlargest(self._limit, found)
            # Later ones are younger: of the same size the older are shown.
            self._floor = self._biggest[-1][0] if self._limit else sys.maxsize
        self._next += _SLICE
        return self._next >= len(self._entries)

    def views(self, rid: int) -> ReferenceViews:
        """The answer."""
        now = self._rt.pump.clock()
        in_place = dict(self._in_place)
        views = []
        explained = 0
        for _, _, number in nlargest(self._limit, self._biggest):
            entry = self._entries[number]
            reason = ""
            if not entry.ready and entry.owner is None and explained < _EXPLAINED_MAX:
                explained += 1
                reason = self._rt.objects.reason(entry)
            views.append(self._view(entry, reason, now, entry.object_id in in_place))
        known = self._rt.references.entries
        strays = [(oid, size) for oid, size in in_place.items() if oid not in known]
        for object_id, size in nlargest(self._limit, strays, key=lambda stray: stray[1]):
            views.append(
                ReferenceView(
                    object_id, b"", "", size, "ready", "", True, {PINNED_IN_MEMORY: 1}, [], -1.0, ""
                )
            )
        kinds = dict(self._kinds)
        if self._local_only:
            kinds[LOCAL_REFERENCE] = kinds.get(LOCAL_REFERENCE, 0) + self._local_only
        if in_place:
            kinds[PINNED_IN_MEMORY] = len(in_place)
        sites = nlargest(
            _SITES_MAX,
            ((describe(site), count, size) for site, count, size in self._sites.values()),
            key=lambda row: (row[2], row[1]),
        )
        return ReferenceViews(rid, self._rt.title, self._count + len(strays), views, kinds, sites)

    def _view(self, entry: Entry, reason: str, now: float, in_place: bool) -> ReferenceView:
        rt = self._rt
        kinds = kinds_of(entry)
        if in_place:
            kinds[PINNED_IN_MEMORY] = 1
        state = "pending" if entry.owner is None else "unread"
        if entry.ready:
            state = "error" if entry.data is not None and is_error(entry.data) else "ready"
        owner = rt.process_id if entry.owner is None else entry.owner.process_id
        size = size_of(entry)
        if state == "error" and entry.owner is not None:
            size = -1  # The bytes of what went wrong here, not of the object.
        return ReferenceView(
            entry.object_id,
            owner,
            entry.name,
            size,
            state,
            reason,
            entry.located is not None,
            kinds,
            [(process_id, len(tokens)) for process_id, tokens in (entry.borrowers or {}).items()],
            max(0.0, now - entry.born) if entry.born else -1.0,
            describe(entry.call_site),
        )


def size_of(entry: Entry) -> int:
    """The bytes of an object's value, -1 where this process does not know."""
    if entry.data is not None:
        return len(entry.data)
    if entry.located is not None:
        return entry.located.size_bytes
    return len(NONE) if entry.ready and not entry.is_actor else -1
