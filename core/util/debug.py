"""``mray.util.debug``: saying things once.

Covers: log_once and its switches, per process. Ray's search for memory leaks is not here: it is
private there.
"""

from __future__ import annotations

import time
from typing import Final

_seen: Final[set[str]] = set()
#: Keys are made by programs, which may make ever new ones.
_SEEN_MAX: Final = 100_000
#: With periodic logging, all is forgotten when nothing was said for so long.
_PERIOD_S: Final = 60.0


class _Switches:
    is_off = False
    is_periodic = False
    said_at = 0.0


def log_once(key: str) -> bool:
    """Whether this is the first call with this ``key``: to say something once a process.

    With ``enable_periodic_logging`` all keys are forgotten a minute after the last that was new.
    """
    if _Switches.is_off:
        return False
    if key not in _seen:
        if len(_seen) >= _SEEN_MAX:
            _seen.clear()
        _seen.add(key)
        _Switches.said_at = time.monotonic()
        return True
    if _Switches.is_periodic and time.monotonic() - _Switches.said_at > _PERIOD_S:
        _seen.clear()
        _Switches.said_at = time.monotonic()
    return False


def disable_log_once_globally() -> None:
    """Have log_once say False in this process from now on."""
    _Switches.is_off = True


def enable_periodic_logging() -> None:
    """Have log_once say True again now and then."""
    _Switches.is_periodic = True


def reset_log_once(key: str | None = None) -> None:
    """Forget ``key``; None: all of them."""
    if key is None:
        _seen.clear()
    else:
        _seen.discard(key)


__all__ = ["disable_log_once_globally", "enable_periodic_logging", "log_once", "reset_log_once"]
