"""How many files and connections a daemon may have open: as many as the system lets it.

A worker costs its node daemon about four descriptors and the head one. The usual soft limit of 1024
would end a daemon in the middle of its work, for libzmq cannot go on without one.
"""

from __future__ import annotations

import resource
from typing import Final

#: What Ray's daemons ask for. More only makes programs slow that close "all" descriptors.
WANTED: Final = 65_536
#: A daemon by itself has about 60; the rest is for a few dozen workers.
NEEDED: Final = 256


def raise_limit(wanted: int = WANTED) -> int:
    """Raise the soft limit towards the hard one; returns what holds now.

    OSError where that is less than a daemon needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    most = wanted if hard == unlimited else min(wanted, hard)
    if soft != unlimited and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    if soft != unlimited and soft < NEEDED:
        raise OSError(
            f"a daemon may open {soft} files here and needs {NEEDED} at least, "
            f"and four more for each worker: raise the hard limit (`ulimit -Hn {WANTED}`)"
        )
    return soft
