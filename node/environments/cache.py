"""Which parts of environments are made, who uses them, which may go: the cache of a node.

Machine: events in, effects out; no clock of its own, no files. A part is made once, whoever wants
it, and kept while a job uses it; beyond the size it goes when the last job that used it is gone,
the one unused longest first. One that failed is not tried again for ``RETRY_S``.

    wanted -> making -> ready -> (unused, beyond the size) -> removed
                     -> failed -> (after RETRY_S, when wanted again) -> making
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from mray.machine import InvariantError
from mray.node.environments.parts import Part, Plan

#: How long the failure of a part is the answer to all who want it.
RETRY_S: Final = 10.0


class Make(msgspec.Struct, frozen=True):
    """Make a part; ``made`` or ``failed`` answers."""

    part: Part
    timeout_s: float | None


class Remove(msgspec.Struct, frozen=True):
    """Remove the directory of a part."""

    name: str


class Settled(msgspec.Struct, frozen=True):
    """An environment that somebody waits for can be had, or cannot: ``error``."""

    runtime_env: bytes
    error: str


Effect = Make | Remove | Settled


class _Entry:
    __slots__ = ("error", "failed_at", "part", "size", "state")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.state: Literal["making", "ready", "failed"] = "making"
        self.size = 0
        self.error = ""
        self.failed_at = 0.0


class Cache:
    """See the module. ``bytes_max``: what parts that nobody uses may take together."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        #: By name; ready ones in the order of their last use.
        self._entries: dict[str, _Entry] = {}
        #: Environments that were asked for and are in use.
        self._plans: dict[bytes, Plan] = {}
        self._users: dict[bytes, set[bytes]] = {}
        #: Whose outcome somebody waits for.
        self._waiting: dict[bytes, None] = {}

    def need(self, runtime_env: bytes, plan: Plan, job_id: bytes, now: float) -> list[Effect]:
        """A job wants to use the environment. Settled comes when it can, now or later."""
        self._plans[runtime_env] = plan
        self._users.setdefault(runtime_env, set()).add(job_id)
        self._waiting[runtime_env] = None
        effects: list[Effect] = []
        for part in plan.parts:
            entry = self._entries.get(part.name)
            again = entry is not None and entry.state == "failed"
            if again and entry is not None and now < entry.failed_at + RETRY_S:
                continue
            if entry is None or again:
                self._entries[part.name] = _Entry(part)
                effects.append(Make(part, plan.timeout_s))
            else:
                self._entries[part.name] = self._entries.pop(part.name)
        return effects + self._settle()

    def made(self, name: str, size: int) -> list[Effect]:
        """A part is there."""
        entry = self._entries.get(name)
        if entry is None or entry.state != "making":
            return []
        entry.state, entry.size = "ready", size
        return self._settle() + self._make_room()

    def failed(self, name: str, error: str, now: float) -> list[Effect]:
        """A part could not be made."""
        entry = self._entries.get(name)
        if entry is None or entry.state != "making":
            return []
        entry.state, entry.error, entry.failed_at = "failed", error, now
        return self._settle()

    def job_gone(self, job_id: bytes) -> list[Effect]:
        """Nothing of the job is left."""
        for runtime_env, users in list(self._users.items()):
            users.discard(job_id)
            if not users:
                del self._users[runtime_env], self._plans[runtime_env]
                self._waiting.pop(runtime_env, None)
        return self._make_room()

    def progress(self, runtime_env: bytes) -> str:
        """What an environment that is not settled waits for, for people."""
        plan = self._plans.get(runtime_env)
        parts = plan.parts if plan is not None else ()
        making = [p.describe() for p in parts if self._entries[p.name].state == "making"]
        return "; ".join(making)

    def _settle(self) -> list[Effect]:
        effects: list[Effect] = []
        for runtime_env in list(self._waiting):
            entries = [self._entries[part.name] for part in self._plans[runtime_env].parts]
            errors = [entry.error for entry in entries if entry.state == "failed"]
            if errors or all(entry.state == "ready" for entry in entries):
                del self._waiting[runtime_env]
                effects.append(Settled(runtime_env, "\n".join(errors)))
        return effects

    def _make_room(self) -> list[Effect]:
        used = {part.name for plan in self._plans.values() for part in plan.parts}
        unused = [
            name
            for name, entry in self._entries.items()
            if name not in used and entry.state != "making"
        ]
        total = sum(self._entries[name].size for name in unused)
        effects: list[Effect] = []
        for name in unused:
            if total <= self._bytes_max and self._entries[name].state == "ready":
                continue
            entry = self._entries.pop(name)
            total -= entry.size
            if entry.state == "ready":
                effects.append(Remove(name))
        return effects

    def check(self) -> None:
        """See mray.machine."""
        if set(self._plans) != set(self._users) or not set(self._waiting) <= set(self._plans):
            raise InvariantError("environments and their users differ")
        if not all(self._users.values()):
            raise InvariantError("an environment without a user is kept")
        for plan in self._plans.values():
            for part in plan.parts:
                if part.name not in self._entries:
                    raise InvariantError(f"{part.name} is in use and not there")
