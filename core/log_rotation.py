"""Puts a new file in the place of a full log: path becomes path.1, that path.2, and so on.

Owns the names, for every log of workers, daemons and jobs. Whoever writes the log decides when, and
puts the new file under its descriptor.
"""

from __future__ import annotations

import os

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def open_log_file(path: str) -> int:
    """The descriptor of the file at ``path``, for appending. OSError."""
    return os.open(path, _FLAGS, 0o600)


def begin_log_file(path: str, backup_count: int) -> int:
    """The descriptor of a new file at ``path``, for appending; ``backup_count`` older ones stay.

    OSError where none can be made, for want of room or of a descriptor: nothing has changed then.
    Else each try would move what is there by one, until it is gone.
    """
    made = f"{path}.0"
    fresh = os.open(made, _FLAGS | os.O_TRUNC, 0o600)
    try:
        for number in range(backup_count, 0, -1):
            older = f"{path}.{number - 1}" if number > 1 else path
            if os.path.exists(older):
                os.replace(older, f"{path}.{number}")
        os.replace(made, path)
    except OSError:
        os.close(fresh)
        raise
    return fresh
