"""What a node of this machine has left that died: its store in memory, and what it had spilled.

Covers: where that lies, by what the node had told of itself, and when to look for it. Removes only
what nobody uses: directories whose lock can be taken (directory.py), and at a URL those whose
owner's process is known to be dead (remote.py). So it does no harm that each living node of the
machine looks, nor where a node that was given up for dead runs on.

A session that has its directory elsewhere is another machine's, which cleans up itself. Where no
other node of the machine lives, the next start there removes it all.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import partial
from typing import Final

from mray.config.sections import Config
from mray.node.objects import remote
from mray.node.objects.directory import clear, directory_name
from mray.node.objects.places import spill_places
from mray.rpc.pump import Pump
from mray.session_files import SHM_DIR
from mray.wire.messages import NodeInfo

log = logging.getLogger("mray.node")

#: How long after a node's end is looked, and looked again: what it had is in use until its process,
#: which may have stood still, has ended.
LOOKS_S: Final = (2.0, 10.0, 60.0)


class Remains:
    """See the module."""

    def __init__(self, pump: Pump, config: Config) -> None:
        self._pump = pump
        self._config = config

    def node_gone(self, info: NodeInfo) -> None:
        """A node of the cluster is dead."""
        if os.path.isdir(info.session_dir):
            self._look_later(info, 0)

    def _look_later(self, info: NodeInfo, look: int) -> None:
        if look < len(LOOKS_S):
            self._pump.after(LOOKS_S[look], partial(self._look, info, look))

    def _look(self, info: NodeInfo, look: int) -> None:
        # Of its own: to remove much may take long, and a storage elsewhere may not answer.
        threading.Thread(
            target=self._work, args=(info, look), name="mray-remains", daemon=True
        ).start()

    def _work(self, info: NodeInfo, look: int) -> None:
        if not remove(info, self._config):
            self._pump.call_soon(lambda: self._look_later(info, look + 1))


def remove(info: NodeInfo, config: Config, shm: str = SHM_DIR) -> bool:
    """Remove what a dead node has left in the places that ``config`` names; whether nothing of it
    is left there."""
    session, node = os.path.basename(info.session_dir), info.node_id.hex()
    all_gone = True
    for place in (shm, *spill_places(config, f"{info.session_dir}/spill")):
        local = place.removeprefix("file://")
        try:
            if "://" in local:
                gone = remote.clear(local, session, node)
            else:
                path = os.path.join(local, directory_name(session, node))
                gone = clear(path) or not os.path.lexists(path)
        except Exception as error:
            # fsspec's plug-ins raise what they like, and a disk may fail: the next look may do.
            log.warning("what node %s has left in %s stays there: %s", node[:8], place, error)
            gone = False
        all_gone = all_gone and gone
    return all_gone
