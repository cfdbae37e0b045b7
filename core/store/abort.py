"""Reasons of AbortObject that the node acts on. Others are for people."""

from __future__ import annotations

#: The system had no pages for the writer's range: the node gives its free pages back.
NO_SPACE = "no space"
