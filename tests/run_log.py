"""A file in which tasks note that they ran: counts runs over processes and their deaths."""

from __future__ import annotations

import os
from pathlib import Path


class Log:
    """Pickled with the tasks that write to it."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def note(self, what: str) -> int:
        """One more run; the count so far."""
        with open(self.path, "a") as file:
            file.write(what + "\n")
        return self.count(what)

    def count(self, what: str) -> int:
        """How often that was noted."""
        if not os.path.exists(self.path):
            return 0
        with open(self.path) as file:
            return file.read().split("\n").count(what)
