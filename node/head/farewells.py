"""Hangs up on the dead, so that the head keeps nothing for processes that nobody speaks for.

What a process said last may come after the news of its end, which its node tells: it is hung up on
a while later. A node that counts as dead may live, cut off or stopped, and has to hear so when it
speaks again: its daemon keeps its connection for longer. Beyond that it finds out by itself, for
this head does not answer it, and ends as without a head. Who is dead is not decided here.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from mray.ids import is_on
from mray.rpc.pump import Pump

#: What a dead process may still be heard for.
LAST_WORDS_S: Final = 60.0
#: How long a node hears of its own end. It costs about 1 KiB, what it was sent before it counted as
#: dead, and a question each four seconds.
NODE_FORGOTTEN_S: Final = 3600.0


class Farewells:
    """See the module."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump

    def process_died(self, process_id: bytes) -> None:
        """A process has ended; once told or more often."""
        self._pump.after(LAST_WORDS_S, partial(self._pump.hang_up, process_id))

    def node_lost(self, node_id: bytes) -> None:
        """A node is gone, and all its processes with it, of which nobody else tells."""
        self._pump.after(LAST_WORDS_S, partial(self._hang_up_on, node_id))
        self._pump.after(NODE_FORGOTTEN_S, partial(self._pump.hang_up, node_id))

    def _hang_up_on(self, node_id: bytes) -> None:
        for process_id in self._pump.peers():
            if process_id != node_id and is_on(process_id, node_id):
                self._pump.hang_up(process_id)
