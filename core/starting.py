"""A start under way: daemons of a session that were spawned, until all of them have answered.

Covers: spawning ``python -m mray.node head|node``, handing over parameters, readiness, writing down
what came of it, undoing a start that fails. What the daemons are told is bootstrap.py's.

Parameters travel by a pipe on the daemon's standard input, as msgpack of DaemonParams: never on
the command line, where every user of the machine could read the token. Each daemon answers with
one line of JSON on a pipe of its own. Head and node start at the same time: the node is told where
the head will listen, and its connection waits there. So do several nodes, where whoever starts them
waits for none before all are spawned.
"""

from __future__ import annotations

import os
import select
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from mray.config import Resolved
from mray.daemon_params import DaemonParams
from mray.daemon_spawn import Spawned, StartError, spawn, wait_ready
from mray.process import start_time_of
from mray.session import NodeEntry, Session, SessionInfo
from mray.session_end import clean_stale, end_session
from mray.wire.messages import Address

#: How long a start that failed gives to what it had started already.
_UNDO_GRACE_S: Final = 2.0
#: How long daemons may take to be ready.
_READY_S: Final = 30.0


@dataclass(kw_only=True)
class Started:
    """A session whose daemons are ready. ``head.tcp`` is "" where the head has no port."""

    session: Session
    cluster_id: str
    head: Address
    #: The node daemon started, for a driver to register at; None without one.
    node: Address | None
    #: Of the daemons started: "head", "node".
    pids: dict[str, int]
    #: Of a head that was started: 1 for the first of its cluster.
    epoch: int = 0
    _spawned: list[Spawned] = field(default_factory=list, repr=False)

    @property
    def address(self) -> str:
        """What others pass to join: "host:port", or the session's directory without a port."""
        return self.head.tcp or self.session.path


@dataclass(kw_only=True)
class Starting:
    """Daemons that were spawned; ``finish()`` waits for them."""

    session: Session
    info: SessionInfo
    head: Address
    #: The node daemon among them.
    node: NodeEntry | None
    #: In the order of spawning; the head first.
    spawned: list[Spawned]
    #: What the first of them have answered.
    facts: list[dict[str, Any]]  # Any: JSON
    #: Whether the session has nothing but what is started here, and ends where that fails.
    whole: bool
    _started: Started | None = None

    @property
    def pids(self) -> dict[str, int]:
        """Of the daemons: "head", "node"."""
        return {one.kind: one.pid for one in self.spawned}

    @property
    def is_finished(self) -> bool:
        """Whether all are known to be ready."""
        return self._started is not None

    def has_answered(self) -> bool:
        """Whether finish() would not wait."""
        poller = select.poll()
        missing = self.spawned[len(self.facts) :]
        for one in missing:
            poller.register(one.answer_fd, select.POLLIN)
        return len(poller.poll(0)) == len(missing)

    def finish(self, timeout_s: float = _READY_S) -> Started:
        """Wait until all are ready, and write down what came of it; again gives the same.

        Raises StartError, and then nothing of them is left running.
        """
        if self._started is not None:
            return self._started
        try:
            facts = self.facts + wait_ready(self.spawned[len(self.facts) :], timeout_s)
        except BaseException as error:
            self.undo(str(error) or "interrupted")
            raise
        head, info, epoch = self.head, self.info, 0
        with_head = self.spawned[0].kind == "head"
        if with_head:
            head = msgspec.structs.replace(head, tcp=facts[0]["tcp"])
            epoch = facts[0].get("epoch", 1)
            self.session.write_info(msgspec.structs.replace(info, head_tcp=head.tcp))
        address = None
        if self.node is not None:
            node_id = bytes.fromhex(self.node.node_id)
            address = Address(node_id, node_id, ipc=self.node.ipc, tcp=facts[-1]["tcp"])
        elif info.nodes and with_head:
            node_id = bytes.fromhex(info.nodes[0].node_id)
            address = Address(node_id, node_id, ipc=info.nodes[0].ipc)
        self._started = Started(
            session=self.session,
            cluster_id=info.cluster_id,
            head=head,
            epoch=epoch,
            node=address,
            pids=self.pids,
            _spawned=self.spawned,
        )
        return self._started

    def undo(self, reason: str) -> None:
        """End what was spawned, and the session with it where it has nothing else."""
        for one in self.spawned:
            one.terminate()
        for one in self.spawned:
            one.reap(_UNDO_GRACE_S)
        if self.whole:
            end_session(self.session, force=True, reason=reason)


def begin(
    session: Session,
    resolved: Resolved,
    info: SessionInfo,
    params: DaemonParams,
    nodes: list[NodeEntry],
    with_head: bool,
    *,
    new: bool = True,
) -> Starting:
    """Spawn what is asked for; what fails is undone. Raises StartError.

    ``new``: the session has no head yet. A head whose storage may hold a cluster is waited for.
    """
    session.hold()
    # Before anything runs, so that whatever happens to us, `mray stop` can find it.
    try:
        session.write_info(info, new=with_head and new)
    except FileExistsError as error:
        text = f"the session {session.path} was begun by another start; make a new one"
        raise StartError("head", "RuntimeError", text) from error
    starting = Starting(
        session=session, info=info, head=params.head, node=nodes[0] if nodes else None,
        spawned=[], facts=[], whole=new and len(info.nodes) == len(nodes),
    )  # fmt: skip
    spawned = starting.spawned
    try:
        if with_head:
            spawned.append(spawn("head", params, session))
            params = msgspec.structs.replace(
                params, head_pid=spawned[0].pid, head_start_time=start_time_of(spawned[0].pid)
            )
            if params.storage.named:
                # It may hold a cluster: the head says who it is before anybody looks for it.
                starting.facts = wait_ready(spawned, _READY_S)
                info, params = _identified(info, params, starting.facts[0])
                starting.info, starting.head = info, params.head
        for entry in nodes:
            node_params = msgspec.structs.replace(
                params,
                process_id=bytes.fromhex(entry.node_id),
                ipc=entry.ipc,
                tcp_host=params.node.tcp_host,
                tcp_port=params.node.tcp_port,
            )
            spawned.append(spawn("node", node_params, session))
        # While they start, for it costs them nothing.
        clean_stale(
            os.path.dirname(os.path.dirname(session.path)),
            retention_s=resolved.config.node.session_retention_s,
            retention_count=resolved.config.node.session_retention_count,
        )
    except BaseException as error:
        starting.undo(str(error) or "interrupted")
        raise
    return starting


def _identified(
    info: SessionInfo, params: DaemonParams, facts: dict[str, Any]
) -> tuple[SessionInfo, DaemonParams]:
    """The ids that a head found in its storage, in place of those that were made for it."""
    head_id = bytes.fromhex(facts["head_id"])
    head = msgspec.structs.replace(params.head, process_id=head_id)
    info = msgspec.structs.replace(info, head_id=head_id.hex(), cluster_id=facts["cluster_id"])
    return info, msgspec.structs.replace(params, head=head, cluster_id=info.cluster_id)
