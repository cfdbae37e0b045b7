"""Lets `mray stack` see what the threads of this process do, whatever they do.

On a signal that nobody else uses, Python's faulthandler writes all stacks into an anonymous file of
this process. It needs no thread of ours and no lock of the interpreter, so it also works in the
middle of a long computation in C. The node daemon reads the file (node/workers/stacks.py); it looks
first that both are in place, because the signal would end a process that does not expect it.
"""

from __future__ import annotations

import faulthandler
import fcntl
import os
from signal import SIGRTMIN

#: Real-time signals have no meaning of their own, and libraries leave these alone.
STACK_SIGNAL = int(SIGRTMIN) + 9
#: The file's name in /proc/<pid>/fd.
STACK_FILE = "mray-stack"

_file = -1


def answer_stack_signals() -> None:
    """Have the signal write all stacks, from now until this process ends. Does nothing twice."""
    global _file
    if _file >= 0:
        return
    _file = os.memfd_create(STACK_FILE, os.MFD_CLOEXEC)
    # The daemon empties the file before each signal: what is written goes to its end.
    fcntl.fcntl(_file, fcntl.F_SETFL, os.O_APPEND)
    faulthandler.register(STACK_SIGNAL, _file, all_threads=True, chain=False)
