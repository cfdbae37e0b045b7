"""What a head begins with: the storage, taken over, and what is in it.

Before anything else of the head: who it is, as others know it, stands in the storage.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from mray.daemon_params import DaemonParams
from mray.node.head import actor_records, group_records, job_records, kv, membership
from mray.node.head.actors import ActorTable
from mray.node.head.events import Effect, NodeLost
from mray.node.head.jobs import JobTable
from mray.node.head.kv import KeyValues
from mray.node.head.membership import Membership
from mray.node.head.placement_groups import GroupTable
from mray.node.head.storage.store import (
    CLUSTER_ID,
    CONFIG,
    HEAD_ID,
    META,
    Storage,
    StorageDamaged,
    Tables,
    Writes,
    open_storage,
)
from mray.wire.messages import DeathCause


@dataclass
class Inheritance:
    """``storage`` is None for a head in memory. ``epoch``: this head's."""

    storage: Storage | None = None
    tables: Tables = field(default_factory=dict)
    epoch: int = 1

    @property
    def begun_anew(self) -> bool:
        """Whether there was a head of this cluster before."""
        return self.epoch > 1


def take_over(params: DaemonParams) -> tuple[DaemonParams, Inheritance]:
    """Open the storage and become the cluster's head. StorageError where that cannot be.

    The parameters come back with the ids and the configuration of the cluster that is stored.
    """
    storage = open_storage(params.storage)
    if storage is None:
        return params, Inheritance()
    try:
        tables = storage.load()
        meta = tables.get(META, {})
        _check(params, storage.text, meta)
        if meta:
            head_id = meta[HEAD_ID]
            head = msgspec.structs.replace(params.head, process_id=head_id)
            params = msgspec.structs.replace(
                params, process_id=head_id, head=head, config=meta[CONFIG],
                cluster_id=meta[CLUSTER_ID].decode(),
            )  # fmt: skip
        first: Writes = {
            (META, CLUSTER_ID): params.cluster_id.encode(),
            (META, HEAD_ID): params.process_id,
            (META, CONFIG): params.config,
        }
        return params, Inheritance(storage, tables, storage.take_over({} if meta else first))
    except BaseException:
        storage.close()
        raise


def _check(params: DaemonParams, text: str, meta: dict[bytes, bytes]) -> None:
    if params.resume and meta.get(CLUSTER_ID, b"").decode() != params.cluster_id:
        found = meta.get(CLUSTER_ID, b"").decode()[:12]
        raise StorageDamaged(
            f"the head's storage {text} holds {f'cluster {found}' if found else 'nothing'}, and "
            f"the nodes that run belong to cluster {params.cluster_id[:12]}: they cannot be taken "
            "back. Restore the storage, or `mray stop` and start anew"
        )
    if meta and not {HEAD_ID, CONFIG} <= meta.keys():
        raise StorageDamaged(f"the head's storage {text} does not say whose it is")


class Machines(Protocol):
    """Those of a head that outlive it."""

    membership: Membership
    jobs: JobTable
    actors: ActorTable
    groups: GroupTable
    keys: KeyValues


def restore(head: Machines, tables: Tables, now: float) -> list[Effect]:
    """Give new machines what is stored; the effects are what they have to tell each other.

    Nodes that are not in the table of nodes are gone: the cluster was ended in order since.
    """
    nodes = tables.get(membership.TABLE, {})
    head.membership.restore(nodes, now)
    head.keys.restore(tables.get(kv.TABLE, {}))
    head.jobs.restore(tables.get(job_records.DRIVERS, {}), tables.get(job_records.SUBMISSIONS, {}))
    head.actors.restore(tables.get(actor_records.STATES, {}), tables.get(actor_records.SPECS, {}))
    effects = head.groups.restore(tables.get(group_records.TABLE, {}), now)
    mentioned = head.jobs.nodes() | head.actors.nodes() | head.groups.nodes()
    for node_id in sorted(mentioned - nodes.keys()):
        text = "its node ended with the cluster, before this head began"
        effects.append(NodeLost(node_id, DeathCause("node_died", text, node_id=node_id)))
    return effects


def nodes_removed(members: Membership) -> dict[tuple[str, bytes], bytes | None]:
    """The rows to write when the cluster ends in order: a later one expects none of its nodes."""
    return {(membership.TABLE, node_id): None for node_id in members.rows()}
