"""Whom to end when a node is short of memory: an order over its workers, and why.

Pure: a snapshot in, a ranked list out; the order of the snapshot never matters. Covers the choice
and whether a task may be run again. Does not say when a kill is needed (monitor.py).

The order, as in Ray (``group_by_owner``):

1. workers that use more than their own declared ``memory`` (only with enforce_memory = kill)
2. idle workers that keep much memory, biggest first
3. retriable tasks and actors: of the owner with most of them; of two with as many, the owner whose
   earliest began later; of one owner the newest
4. what cannot be retried, newest first

``time`` forgets owners in 3 and takes the newest. Under both, a task that is its owner's last
retriable one here is not run again: killed and retried for ever would be a loop without an end.

Within a class a worker whose end frees next to nothing is passed over while another would free
more: the newest task may well be the smallest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from mray.units import format_bytes, format_count

PolicyName: TypeAlias = Literal["group_by_owner", "time"]
Kind: TypeAlias = Literal["task", "actor", "idle"]
Rule: TypeAlias = Literal["own_limit", "idle", "retriable", "not_retriable"]

#: What a declared ``memory`` may be exceeded by: the interpreter itself is in it.
_OWN_LIMIT_GRACE: Final = 1.1
#: The classes, first victims first.
_ORDER: Final[tuple[Rule, ...]] = ("own_limit", "idle", "retriable", "not_retriable")


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as the policy sees it."""

    worker_id: bytes
    pid: int
    kind: Kind
    #: Who asked for its work: the process whose task or actor it is. Empty for idle workers.
    owner_id: bytes = b""
    #: The task's or class's name; empty for idle workers.
    name: str = ""
    #: May be run again after its end: retries (restarts) are left or without limit.
    retriable: bool = False
    #: When its work began, monotonic seconds; for idle workers, since when they are.
    started_at: float = 0.0
    #: What its end gives back: memory of its process tree that it shares with nobody.
    private_bytes: int = 0
    #: The ``memory`` it declared; 0: none.
    requested_bytes: int = 0
    #: It was told of the pressure and saves what it can: not to be ended before, monotonic seconds.
    busy_until: float = 0.0


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says of the choice."""

    policy: PolicyName = "group_by_owner"
    #: Workers above their own declared memory go first.
    enforce_own_limit: bool = False
    #: From here on an idle worker is a victim.
    idle_bytes: int = 1 << 30
    #: A kill that frees less is pointless while another of its class frees more.
    min_kill_bytes: int = 0
    #: What a node may use at all: who needs more than that alone can never be run here.
    budget_bytes: int = 0


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One rank: who, by which rule, why, and whether its work may be run again."""

    candidate: Candidate
    rule: Rule
    why: str
    should_retry: bool
    #: Why it is retried or not.
    retry_reason: str


def exceeds_own_limit(candidate: Candidate) -> bool:
    """Whether a worker uses clearly more than it declared."""
    return 0 < candidate.requested_bytes * _OWN_LIMIT_GRACE < candidate.private_bytes


def rank(candidates: Iterable[Candidate], rules: Rules, now: float) -> list[Choice]:
    """Everybody who may be ended, in the order in which they would be.

    Each rank supposes that those before it are gone, so the list is what would happen if memory
    stayed short. Quadratic; for people. ``first`` is for the monitor.
    """
    left = sorted(candidates, key=_identity)
    choices = []
    while (choice := _first(left, rules, now)) is not None:
        choices.append(choice)
        left.remove(choice.candidate)
    return choices


def first(candidates: Iterable[Candidate], rules: Rules, now: float) -> Choice | None:
    """Who would be ended now; None when nobody may be."""
    return _first(sorted(candidates, key=_identity), rules, now)


def _first(left: Sequence[Candidate], rules: Rules, now: float) -> Choice | None:
    classes: dict[Rule, list[Candidate]] = {rule: [] for rule in _ORDER}
    for candidate in left:
        rule = _class_of(candidate, rules)
        if rule is not None:
            classes[rule].append(candidate)
    owners = _by_owner(c for c in left if c.retriable and c.kind != "idle")
    for rule in _ORDER:
        members = classes[rule]
        if members:
            return _pick(rule, members, owners, rules, now)
    return None


def _class_of(candidate: Candidate, rules: Rules) -> Rule | None:
    if candidate.kind == "idle":
        return "idle" if candidate.private_bytes >= max(1, rules.idle_bytes) else None
    if rules.enforce_own_limit and exceeds_own_limit(candidate):
        return "own_limit"
    return "retriable" if candidate.retriable else "not_retriable"


def _pick(
    rule: Rule,
    members: list[Candidate],
    owners: Mapping[bytes, list[Candidate]],
    rules: Rules,
    now: float,
) -> Choice:
    big = [c for c in members if c.private_bytes >= rules.min_kill_bytes]
    worth = big or members
    match rule:
        case "own_limit":
            victim = max(worth, key=_excess)
            why = (
                f"uses {format_bytes(victim.private_bytes)} of the "
                f"{format_bytes(victim.requested_bytes)} it declared"
            )
        case "idle":
            victim = max(worth, key=_size)
            why = f"is idle and keeps {format_bytes(victim.private_bytes)}"
        case "not_retriable":
            victim = max(worth, key=_newness)
            why = f"cannot be retried; the newest of {len(members)} such, {_age(victim, now)}"
        case "retriable" if rules.policy == "time":
            victim = max(worth, key=_newness)
            why = f"the newest of {len(members)} retriable ones, {_age(victim, now)}"
        case "retriable":
            owned = owners[max((c.owner_id for c in worth), key=lambda o: _claim(owners[o]))]
            victim = max((c for c in worth if c.owner_id == owned[0].owner_id), key=_newness)
            why = (
                f"its owner {victim.owner_id.hex()[:8]} has "
                f"{format_count(len(owned), 'retriable one', 'retriable ones')} here"
                + (", the most" if len(owners) > 1 else "")
                + f"; the newest of them, {_age(victim, now)}"
            )
    small_count = len(members) - len(big)
    if big and small_count and rule in ("retriable", "not_retriable"):
        why += f" (passed over {small_count} that would free next to nothing)"
    retry, reason = _verdict(rule, victim, len(owners.get(victim.owner_id, ())), rules)
    return Choice(candidate=victim, rule=rule, why=why, should_retry=retry, retry_reason=reason)


def _verdict(rule: Rule, victim: Candidate, owned_count: int, rules: Rules) -> tuple[bool, str]:
    if victim.kind == "idle":
        return False, "it ran nothing"
    if not victim.retriable:
        what = "max_restarts" if victim.kind == "actor" else "max_retries"
        return False, f"not retried: no {what} is left"
    if victim.kind == "actor":
        return True, "restarted within max_restarts and max_oom_restarts"
    if rule == "own_limit":
        return False, "not retried: it used more than the memory it declared"
    if owned_count <= 1:
        return False, "not retried: last task of its owner on this node"
    if 0 < rules.budget_bytes <= victim.private_bytes:
        return False, "not retried: alone it needs more than the node may use"
    return True, "retried: other tasks of its owner go on"


def _by_owner(candidates: Iterable[Candidate]) -> dict[bytes, list[Candidate]]:
    owners: dict[bytes, list[Candidate]] = {}
    for candidate in candidates:
        owners.setdefault(candidate.owner_id, []).append(candidate)
    return owners


def _claim(owned: Sequence[Candidate]) -> tuple[int, float, bytes]:
    """An owner's place among owners: most of them, then whose earliest began later."""
    return len(owned), min(c.started_at for c in owned), owned[0].owner_id


# Ties end in ids, so that equal times give one order whatever the snapshot's was.


def _newness(candidate: Candidate) -> tuple[float, int, bytes]:
    return candidate.started_at, candidate.pid, candidate.worker_id


def _size(candidate: Candidate) -> tuple[int, int, bytes]:
    return candidate.private_bytes, candidate.pid, candidate.worker_id


def _excess(candidate: Candidate) -> tuple[int, int, bytes]:
    excess = candidate.private_bytes - candidate.requested_bytes
    return excess, candidate.pid, candidate.worker_id


def _identity(candidate: Candidate) -> tuple[bytes, int]:
    return candidate.worker_id, candidate.pid


def _age(candidate: Candidate, now: float) -> str:
    return f"begun {max(0.0, now - candidate.started_at):.1f} s ago"
