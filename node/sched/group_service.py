"""The head's orders about bundles of placement groups, handed to the leases.

The shell of bundles.py. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mray.node.sched.effects import Effect
from mray.node.sched.leases import Leases
from mray.wire.messages import CommitBundles, Message, ReserveBundles, ReturnBundles


class GroupService:
    """``act`` carries out effects, after which the leases are settled."""

    def __init__(self, leases: Leases, act: Callable[[list[Effect]], None]) -> None:
        self._leases = leases
        self._act = act
        self.handlers: dict[type[Message], Callable[[bytes, Any], None]] = {
            ReserveBundles: self._reserve,
            CommitBundles: self._commit,
            ReturnBundles: self._return,
        }

    def _reserve(self, sender: bytes, message: ReserveBundles) -> None:
        self._act(self._leases.reserve_bundles(message))

    def _commit(self, sender: bytes, message: CommitBundles) -> None:
        self._leases.bundles.commit(message.group_id, message.attempt)
        self._act([])

    def _return(self, sender: bytes, message: ReturnBundles) -> None:
        self._act(self._leases.return_bundles(message))
