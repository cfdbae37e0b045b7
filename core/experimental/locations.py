"""Where objects are: ``get_object_locations`` and ``get_local_object_locations``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mray import current
from mray.api import wait
from mray.exceptions import RayError
from mray.object_ref import ObjectRef
from mray.wire.messages import (
    Address,
    GetNodes,
    GetStoreStats,
    LocateObjects,
    Nodes,
    ObjectsLocated,
    StoreStats,
)

#: How long an owner elsewhere may take to say whether its object is there.
_OWNER_S: Final = 0.2
_STORE_S: Final = 5.0


def get_object_locations(
    obj_refs: Sequence[ObjectRef[Any]], timeout_ms: int = -1
) -> dict[ObjectRef[Any], dict[str, Any]]:
    """For each reference: ``node_ids`` (hex; of nodes whose store has the value), ``object_size``
    in bytes (None while it is not there), ``did_spill`` (it is on disk).

    A small result lives in its owner and in no store. ``timeout_ms``: how long to wait for owners
    elsewhere and for stores; -1 stands for a few seconds. What is not known by then is told as it
    was known here.
    """
    rt = current.get()
    refs = list(obj_refs)
    limit_s = None if timeout_ms < 0 else timeout_ms / 1000
    unknown = [ref for ref in refs if ref._entry.owner is not None and not ref._entry.ready]
    if unknown:
        # Has their owners tell, now or when they are there.
        wait_s = _OWNER_S if limit_s is None else min(_OWNER_S, limit_s)
        wait(list(dict.fromkeys(unknown)), num_returns=len(set(unknown)), timeout=wait_s)
    told = get_local_object_locations(refs)
    _ask_owners(told, limit_s)
    holders = {node_id for facts in told.values() for node_id in facts["node_ids"]}
    on_disk: set[bytes] = set()
    if any(ref._entry.located is not None for ref in refs):
        store_s = _STORE_S if limit_s is None else min(_STORE_S, limit_s)
        try:
            for view in rt.ask(rt.head, GetNodes, Nodes).nodes:
                if view.state == "ALIVE" and view.node.node_id.hex() in holders:
                    stats = rt.ask(
                        view.node.address, lambda rid: GetStoreStats(rid, True), StoreStats, store_s
                    )
                    on_disk |= {row[0] for row in stats.objects if row[2] == "spilled"}
        except RayError:
            return told  # A node that does not answer: what was known here stays true.
    for ref, facts in told.items():
        facts["did_spill"] = ref.binary() in on_disk
    return told


def _ask_owners(told: dict[ObjectRef[Any], dict[str, Any]], limit_s: float | None) -> None:
    """Only its owner knows all nodes that have a value."""
    rt = current.get()
    theirs: dict[bytes, tuple[Address, list[ObjectRef[Any]]]] = {}
    for ref in told:
        owner = ref._entry.owner
        if owner is not None and ref._entry.located is not None:
            theirs.setdefault(owner.process_id, (owner, []))[1].append(ref)
    for owner, refs in theirs.values():
        ids = [ref.binary() for ref in refs]
        answer = rt.ask_any(
            owner,
            lambda rid, ids=ids: LocateObjects(rid, ids),  # type: ignore[misc]
            _STORE_S if limit_s is None else min(_STORE_S, limit_s),
        )
        if isinstance(answer, ObjectsLocated):
            for ref, nodes in zip(refs, answer.nodes, strict=True):
                told[ref]["node_ids"] = [node_id.hex() for node_id in nodes]


def get_local_object_locations(
    obj_refs: Sequence[ObjectRef[Any]],
) -> dict[ObjectRef[Any], dict[str, Any]]:
    """The same as this process knows it, without asking anybody: ``did_spill`` is False."""
    rt = current.get()
    found = {}
    for ref in obj_refs:
        entry = ref._entry
        node_ids: list[str] = []
        size: int | None = None
        if entry.ready:
            located, data = entry.located, entry.data
            if located is not None:
                copies = rt.recovering.locations.copies.get(ref.binary(), ())
                node_ids = [node_id.hex() for node_id in (located.node_id, *list(copies))]
                size = located.size_bytes
            elif data is not None:
                size = len(data)
                if entry.name == "put" and entry.owner is None:
                    node_ids = [rt.node.node_id.hex()]
        found[ref] = {"node_ids": node_ids, "object_size": size, "did_spill": False}
    return found


__all__ = ["get_local_object_locations", "get_object_locations"]
