"""Cuts a stream of bytes into lines for people: bounded, decoded, what is left out counted.

Holds back a line that has no end yet. Of a line longer than LINE_BYTES_MAX only the beginning is
kept, however long it gets.
"""

from __future__ import annotations

from typing import Final

LINE_BYTES_MAX: Final = 32 * 1024


class LineCutter:
    """One per stream. ``position`` is the offset of the first byte that was not yet fed."""

    __slots__ = ("_cut_bytes", "_held", "_line_at", "position")

    def __init__(self, position: int = 0) -> None:
        self.position = position
        #: The beginning of the unfinished line, and how much of it was left out.
        self._held = b""
        self._cut_bytes = 0
        self._line_at = position

    @property
    def holds(self) -> bool:
        """Whether a line is unfinished."""
        return bool(self._held) or self._cut_bytes > 0

    def feed(self, data: bytes) -> list[tuple[int, str]]:
        """The lines that ``data`` finishes, each with the offset of its first byte."""
        lines: list[tuple[int, str]] = []
        at = 0
        while True:
            newline = data.find(b"\n", at)
            if newline < 0:
                break
            self._hold(data[at:newline])
            lines.append(self._finish())
            at = newline + 1
            self._line_at = self.position + at
        self._hold(data[at:])
        self.position += len(data)
        return lines

    def flush(self) -> list[tuple[int, str]]:
        """The unfinished line, as a line."""
        if not self.holds:
            return []
        line = self._finish()
        self._line_at = self.position
        return [line]

    def skip(self, data: bytes) -> int:
        """Leave ``data`` out, and the unfinished line before it; returns how many lines that were.

        ``data`` ends with a newline, unless more of it is skipped next.
        """
        self._held = b""
        self._cut_bytes = 0
        self.position += len(data)
        self._line_at = self.position
        return data.count(b"\n")

    def _hold(self, data: bytes) -> None:
        room = LINE_BYTES_MAX - len(self._held)
        self._held += data[:room]
        self._cut_bytes += max(0, len(data) - room)

    def _finish(self) -> tuple[int, str]:
        text = self._held.decode("utf-8", "replace").rstrip("\r")
        if self._cut_bytes:
            text += f" [{self._cut_bytes:,} more bytes of this line left out]"
        self._held = b""
        self._cut_bytes = 0
        return self._line_at, text
