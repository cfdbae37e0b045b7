"""What `ps`, `top` and `pgrep` show of a worker: ``ray::`` and what it runs.

Owns the name of the main thread and the words of the command line, which the kernel reads from our
own memory: a title is written over them, cut to their length. Writing /proc/self/comm instead would
cost a hundred times as much, and it changes with the tasks.
"""

from __future__ import annotations

import ctypes
from typing import Final

_PR_SET_NAME: Final = 15
#: Of /proc/self/stat, behind the command's name: where the words begin and end.
_ARG_START: Final = 45

_libc = ctypes.CDLL(None)


def _find_words() -> tuple[int, int]:
    """Where the command line is in our memory, and its size; 0 where the kernel does not say."""
    try:
        with open("/proc/self/stat") as file:
            facts = file.read().rpartition(")")[2].split()
    except OSError:
        return 0, 0
    begin, end = int(facts[_ARG_START]), int(facts[_ARG_START + 1])
    return begin, max(0, end - begin)


#: The same in every fork.
_begin, _size = _find_words()


def show(text: str) -> None:
    """Show ``text`` from now on."""
    data = text.encode("utf-8", "replace")
    _libc.prctl(_PR_SET_NAME, data[:15], 0, 0, 0)
    if _begin and _size > 1:
        # The last byte stays zero, or the kernel takes what follows for more of it.
        words = data[: _size - 1]
        ctypes.memset(_begin, 0, _size)
        ctypes.memmove(_begin, words, len(words))
