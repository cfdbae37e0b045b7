"""How a command says that it did not work: one line, one exit code, no traceback."""

from __future__ import annotations

from typing import Final

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130


class Failure(Exception):
    """The command ends here. ``text`` is the line after "mray: ", ``code`` the exit code."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        super().__init__(text)
        self.text = text
        self.code = code


class WrongUsage(Failure):
    """What was typed cannot be meant: exit code 2."""

    def __init__(self, text: str) -> None:
        super().__init__(text, USAGE)
