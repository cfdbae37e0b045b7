"""What a worker is called, told to whoever shows it: `ps`, its node daemon, who reads its log.

Owns when the daemon is told. It reads the names of the last calls in the progress file, and needs
a message only for those that printed, once they are over: so that it knows of more than the file
holds. A message for each call would take a third of the speed of tasks that take turns.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mray.progress import Title, write_title
from mray.runtime import process_title
from mray.runtime.output import OutputFiles
from mray.wire.messages import SetWorkerTitle

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime


class Titles:
    """See the module. ``memory``: the mapped progress file. Called by executing threads."""

    def __init__(self, runtime: Runtime, memory: Any, output: OutputFiles) -> None:
        self._rt = runtime
        self._memory = memory
        self._output = output
        self._number = 0
        #: The present task's, and whether it has printed anything.
        self._title = Title()
        self._has_printed = False
        #: Under which name the lines of an actor are shown, "" for a worker of tasks.
        self._shown = ""

    def announce(self, name: str, retriable: bool, shown: str) -> None:
        """``name`` runs from here on. ``shown``: of an actor, in front of all its lines."""
        self._rt.title = name
        process_title.show(f"ray::{name}")
        if shown and shown == self._shown:
            write_title(self._memory, self._number, Title(name, retriable))
            return
        sys.stdout.flush()
        sys.stderr.flush()
        out, err = self._output.offsets()
        if shown:
            self._shown = shown
            write_title(self._memory, self._number, Title(name, retriable))
            self._tell(SetWorkerTitle(shown, out, err))
            self._rt.send_now()
            return
        if self._has_printed:
            self._number += 1
            self._has_printed = False
        self._title = Title(name, retriable, out, err)
        write_title(self._memory, self._number, self._title)

    def printed(self) -> None:
        """There is output of what runs, or of what it has left behind."""
        title = self._title
        if not self._has_printed and title.name:
            self._has_printed = True
            at = title.out_offset, title.err_offset
            self._tell(SetWorkerTitle(title.name, *at, self._number))

    def _tell(self, message: SetWorkerTitle) -> None:
        self._rt.post_to(self._rt.node.address, message)
