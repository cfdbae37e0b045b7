"""What all questions of mray.util.state share: time limits, filters, what is missing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from mray.exceptions import RayError
from mray.state_ask import asker
from mray.state_collect import Asker, ReplyT
from mray.state_records import StateSchema
from mray.task_filters import OPERATORS, equal
from mray.wire.messages import Message, NodeView

RecordT = TypeVar("RecordT", bound=StateSchema)
Filters = Sequence[tuple[str, str, str | bool | int | float]] | None


class RayStateApiException(RayError):
    """The state of the cluster could not be told, or not all of it."""


@contextmanager
def asking(address: str | None, timeout: float) -> Generator[Asker, None, None]:
    """A way to ask, each question answered within ``timeout`` seconds."""
    with asker(address) as ask:
        yield _Bounded(ask, float(timeout))


class _Bounded:
    """An asker whose questions take no longer than it was told."""

    def __init__(self, ask: Asker, timeout_s: float) -> None:
        self._ask = ask
        self._timeout_s = timeout_s

    def nodes(self) -> Sequence[NodeView]:
        """See Asker."""
        return self._ask.nodes()

    def ask_head(
        self, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """See Asker."""
        return self._ask.ask_head(make, reply, min(timeout_s, self._timeout_s))

    def ask_node(
        self, node: NodeView, make: Callable[[int], Message], reply: type[ReplyT], timeout_s: float
    ) -> ReplyT:
        """See Asker."""
        return self._ask.ask_node(node, make, reply, min(timeout_s, self._timeout_s))


def living(ask: Asker) -> list[NodeView]:
    return [view for view in ask.nodes() if view.state == "ALIVE"]


def node_of(ask: Asker, node_id: str | None, node_ip: str | None) -> NodeView:
    alive = living(ask)
    for view in alive:
        if node_id and view.node.node_id.hex() == node_id:
            return view
        if node_ip and not node_id and view.node.ip == node_ip:
            return view
        if not (node_id or node_ip) and view.node.is_head:
            return view
    raise ValueError(f"no living node is {node_id or node_ip or 'the head'}")


def tell_missing(silent: Sequence[int], forgotten: int, raises: bool, explains: bool) -> None:
    if silent and raises:
        pids = ", ".join(map(str, silent))
        raise RayStateApiException(
            f"no answer in time from pid {pids}: what waits there is missing; "
            "pass raise_on_missing_output=False to get the rest"
        )
    if explains:
        for count, what in (
            (len(silent), "processes did not answer in time"),
            (forgotten, "attempts that ended longest ago are not kept any more"),
        ):
            if count:
                print(f"{count:,} {what}", file=sys.stderr)


def chosen(kind: type[RecordT], found: list[RecordT], filters: Filters) -> list[RecordT]:
    for key, operator, wanted in filters or ():
        if key not in kind.columns():
            known = ", ".join(sorted(kind.columns()))
            raise ValueError(f"there is no {key!r}; there are {known}")
        if operator not in OPERATORS:
            raise ValueError(f"{operator!r} is neither = nor !=")
        found = [
            state
            for state in found
            if equal(key, str(state[key]), str(wanted)) == (operator == "=")
        ]
    return found


def one(found: list[RecordT], key: str, id: str) -> RecordT | None:
    return next((state for state in found if state[key] == id), None)
