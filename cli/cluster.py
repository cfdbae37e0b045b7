"""A running cluster, as commands see it: found by address, asked with deadlines.

Covers: finding, connecting, and saying in one line why that did not work. Decides nothing and
prints nothing. Everything that can go wrong ends as Failure.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from mray.auth import TokenError, load_token
from mray.cli.failure import FAILED, USAGE, Failure
from mray.cli.head_away import refuse_if_away
from mray.cli.settings import settings
from mray.config import Resolved
from mray.rpc.client import AskError, Client
from mray.rpc.door import Keys
from mray.session import NoClusterError, Target, resolve_address
from mray.wire.messages import (
    ActorList,
    ActorState,
    Address,
    GetJobs,
    GetNodes,
    GetPlacementGroups,
    JobDetails,
    Jobs,
    ListActors,
    Message,
    Nodes,
    NodeView,
    PlacementGroups,
    PlacementGroupState,
)

ReplyT = TypeVar("ReplyT", bound=Message)

#: Together with the start of the interpreter, and the door's linger of a second, below the five
#: seconds in which an unreachable cluster is to be named as such.
_FIRST_ANSWER_S = 2.5
_CONNECT_TIMEOUT_S = 3.0


class Asker(Protocol):
    """What is needed of mray.rpc.client.Client."""

    def ask(
        self,
        peer: bytes | Address,
        make: Callable[[int], Message],
        reply: type[ReplyT],
        timeout_s: float = 5.0,
    ) -> ReplyT:
        """One question, one answer, or AskError."""

    def close(self) -> None:
        """No more questions."""


@dataclass(kw_only=True)
class Cluster:
    """A cluster that answered. Use as a context manager."""

    client: Asker
    #: The name to ask the head by.
    head: bytes
    target: Target
    #: What the head said of its nodes when we connected.
    nodes: Nodes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.client.close()

    @property
    def address(self) -> str:
        """What to call the cluster: "host:port", or its session directory without a port."""
        if self.nodes.head.tcp:
            return self.nodes.head.tcp
        if self.target.session is not None:
            return self.target.session.path
        return self.target.endpoint

    def ask_head(
        self, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float = 5.0
    ) -> ReplyT:
        """Ask the head; Failure where it refuses or is silent."""
        return self._ask(self.head, "the head", make, reply, timeout_s)

    def ask_node(
        self,
        node: NodeView,
        make: Callable[[int], Message],
        reply: type[ReplyT],
        timeout_s: float = 5.0,
    ) -> ReplyT:
        """Ask a node daemon; Failure where it refuses or is silent."""
        name = f"node {node.node.ip} ({node.node.node_id.hex()[:12]})"
        if node.state != "ALIVE":
            raise Failure(f"{name} is {node.state}: it cannot be asked any more")
        return self._ask(node.node.address, name, make, reply, timeout_s)

    def _ask(
        self,
        peer: bytes | Address,
        name: str,
        make: Callable[[int], Message],
        reply: type[ReplyT],
        timeout_s: float,
    ) -> ReplyT:
        try:
            return self.client.ask(peer, make, reply, timeout_s)
        except AskError as error:
            if error.kind == "RpcError":
                raise Failure(f"{name} does not answer: {error.text}") from error
            raise RefusedBy(name, error.kind, error.text) from error
        except ValueError as error:
            raise Failure(f"{name} cannot be reached: {error}") from error

    def jobs(self, prefix: str = "") -> list[JobDetails]:
        """Jobs whose submission id or job id begins with ``prefix``."""
        return self.ask_head(lambda rid: GetJobs(rid, prefix), Jobs).jobs

    def actors(self) -> list[ActorState]:
        """All actors that the head knows."""
        return self.ask_head(ListActors, ActorList).actors

    def groups(self) -> list[PlacementGroupState]:
        """All placement groups that the head knows, the oldest first."""
        return self.ask_head(GetPlacementGroups, PlacementGroups).groups

    def node_of(self, node_id: bytes) -> NodeView:
        """The node with this id, asked anew. Failure where the head knows none."""
        for node in self.ask_head(GetNodes, Nodes).nodes:
            if node.node.node_id == node_id:
                return node
        raise Failure(f"the head knows no node {node_id.hex()[:12]}")


class RefusedBy(Failure):
    """A process refused a request. ``kind`` is an exception's name, ``reason`` its text."""

    def __init__(self, name: str, kind: str, reason: str) -> None:
        super().__init__(reason or f"{name} refused: {kind}")
        self.kind = kind
        self.reason = reason


class NoCluster(Failure):
    """No address was given and no cluster of the user runs on this machine."""


def connect(address: str | None, resolved: Resolved | None = None) -> Cluster:
    """The cluster at ``address`` (None: the environment's, else the one of this machine).

    Failure within 5 seconds where there is none, or it does not answer, or the token is wrong.
    """
    resolved = resolved or settings()
    target = find(address, resolved)
    if target.kind == "local":
        raise Failure(f"{target.why}: `local` is no running cluster; leave the address out")
    if target.session is not None:
        refuse_if_away(target.session)
    keys = _keys(resolved, needed=target.kind == "tcp")
    if target.endpoint.startswith("tcp://"):
        knock(target.endpoint, target.why)
    node_id = b""
    if target.session is not None:
        nodes = target.session.info().nodes
        node_id = bytes.fromhex(nodes[0].node_id) if nodes else b""
    client = Client(keys, node_id)
    try:
        head = client.reach(target.endpoint)
        found = client.ask(head, GetNodes, Nodes, _FIRST_ANSWER_S)
    except AskError as error:
        client.close()
        raise Failure(_silence(target, error)) from error
    except BaseException:
        client.close()
        raise
    return Cluster(client=client, head=head, target=target, nodes=found)


def find(address: str | None, resolved: Resolved) -> Target:
    """What ``address`` means, without talking to anybody. Failure where it means nothing."""
    try:
        setting = resolved.settings["address"]
        # Variables are resolve_address()'s business, which says by which one it went.
        named = address or (setting.value if setting.source.kind == "file" else None)
        # "local" in the environment speaks to init(), of a program under `mray run`: whoever calls
        # a command there means the cluster that the program has started.
        environ = {name: value for name, value in os.environ.items() if value.strip() != "local"}
        return resolve_address(named, environ, tmpdir=resolved.config.node.tmpdir)
    except NoClusterError as error:
        raise NoCluster(str(error)) from error
    except ConnectionError as error:
        raise Failure(str(error)) from error
    except ValueError as error:
        raise Failure(str(error), USAGE if address else FAILED) from error
    except OSError as error:
        raise Failure(f"sessions cannot be looked up: {error}") from error


def _keys(resolved: Resolved, *, needed: bool) -> Keys | None:
    try:
        return Keys.from_token(load_token(resolved))
    except TokenError as error:
        if needed:
            raise Failure(str(error)) from error
        return None


def knock(endpoint: str, why: str) -> None:
    """Find out quickly, and exactly, that nobody listens: ZeroMQ would try again and again.

    ``why``: where the address came from. Failure where nobody does.
    """
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise Failure(
            f"no cluster can be reached at {host}:{port} ({why}): {reason.lower()}"
        ) from error


def _silence(target: Target, error: AskError) -> str:
    where = target.endpoint.partition("://")[2]
    if error.kind == "AuthenticationError":
        return (
            f"the head at {where} refuses the cluster token of this user ({target.why}): "
            "set RAY_AUTH_TOKEN to the one that `mray get-auth-token` prints on its machine"
        )
    if error.kind != "RpcError":
        return f"the head at {where} refused: {error.text}"
    if target.kind == "tcp":
        return (
            f"something listens at {where} but does not answer as an mray head ({target.why}): "
            "is it mray's port?"
        )
    return (
        f"the head at {where} does not answer ({target.why}); "
        "`mray logs gcs` shows its log, `mray stop` ends the session"
    )
