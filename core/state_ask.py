"""Ways to ask a cluster for its state: through this process's runtime, or by an address.

Both keep to ``mray.state_collect.Asker``. The command line brings a third, whose failures are
written for people.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mray import config, current, session
from mray.auth import TokenError, load_token
from mray.exceptions import AuthenticationError, RpcError
from mray.rpc.client import AskError, Client
from mray.rpc.door import Keys
from mray.state_collect import Asker, ReplyT
from mray.wire.messages import GetNodes, Message, Nodes, NodeView

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime


class RuntimeAsker:
    """The cluster that this process is connected to. Raises RpcError, RaySystemError."""

    def __init__(self, runtime: Runtime) -> None:
        self._rt = runtime

    def nodes(self) -> Sequence[NodeView]:
        """See Asker."""
        return self._rt.ask(self._rt.head, GetNodes, Nodes).nodes

    def ask_head(
        self, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """See Asker."""
        return self._rt.ask(self._rt.head, make, reply, timeout_s)

    def ask_node(
        self, node: NodeView, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """See Asker."""
        return self._rt.ask(node.node.address, make, reply, timeout_s)


class ClientAsker:
    """Another cluster, through a client. Raises RpcError, AuthenticationError."""

    def __init__(self, client: Client, head: bytes) -> None:
        self._client = client
        self._head = head

    def nodes(self) -> Sequence[NodeView]:
        """See Asker."""
        return self.ask_head(GetNodes, Nodes, 5.0).nodes

    def ask_head(
        self, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """See Asker."""
        try:
            return self._client.ask(self._head, make, reply, timeout_s)
        except AskError as error:
            if error.kind == "AuthenticationError":
                raise AuthenticationError(f"the head: {error.text}") from error
            raise RpcError(f"the head: {error.text}") from error

    def ask_node(
        self, node: NodeView, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """See Asker."""
        try:
            return self._client.ask(node.node.address, make, reply, timeout_s)
        except (AskError, ValueError) as error:
            raise RpcError(f"node {node.node.node_id.hex()[:8]}: {error}") from error


@contextmanager
def asker(address: str | None) -> Iterator[Asker]:
    """The cluster at ``address``; None: the one this process is connected to, else the one that
    ``init()`` would find.

    Raises ConnectionError where there is none or it does not answer, ValueError for a bad address.
    """
    if address is None and current.runtime is not None and not current.runtime.closed:
        yield RuntimeAsker(current.runtime)
        return
    resolved = config.load({}, os.environ)
    target = session.resolve_address(address, os.environ, tmpdir=resolved.config.node.tmpdir)
    if target.kind == "local":
        raise ConnectionError(f"{target.why}: there is no running cluster to ask")
    keys = None
    try:
        keys = Keys.from_token(load_token(resolved))
    except TokenError as error:
        if target.kind == "tcp":
            raise ConnectionError(str(error)) from error
    known = target.session.info().nodes if target.session is not None else []
    with Client(keys, bytes.fromhex(known[0].node_id) if known else b"") as client:
        found = ClientAsker(client, client.reach(target.endpoint))
        try:
            found.nodes()
        except RpcError as error:
            raise ConnectionError(f"{target.endpoint}: {error}") from error
        yield found
