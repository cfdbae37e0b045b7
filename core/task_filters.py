"""Filters of tasks: which keys there are, and whether a task passes. Pure.

The same code runs where tasks are known (owners, the head) and where people ask, so nothing is sent
that was not asked for. Names of keys are Ray's; those of mray's command line beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from mray.wire.messages import TaskView

#: (key, "=" or "!=", value)
Filter = tuple[str, str, str]

OPERATORS: Final = ("=", "!=")

#: Key -> the value it compares with, as text. Ids are hex.
KEYS: Final[dict[str, Callable[[TaskView], str]]] = {
    "task_id": lambda view: view.task_id.hex(),
    "attempt": lambda view: str(view.attempt),
    "attempt_number": lambda view: str(view.attempt),
    "name": lambda view: view.name,
    "func_or_class_name": lambda view: view.name,
    "state": lambda view: view.state,
    "type": lambda view: view.type,
    "job_id": lambda view: view.job_id.hex(),
    "actor_id": lambda view: view.actor_id.hex(),
    "parent_task_id": lambda view: parent_of(view).hex(),
    "owner_id": lambda view: view.owner_id.hex(),
    "worker_id": lambda view: view.worker_id.hex(),
    "node_id": lambda view: view.node_id.hex(),
    "pid": lambda view: str(view.pid),
    "worker_pid": lambda view: str(view.pid),
    "error_type": lambda view: view.error_type,
}
#: An id of this many digits may be the beginning of one.
_PREFIX_MIN: Final = 6


def checked(filters: Sequence[Filter]) -> list[Filter]:
    """The filters, if all can be used. ValueError names the one that cannot."""
    for key, operator, _ in filters:
        if key not in KEYS:
            raise ValueError(f"there is no {key!r}; there are {', '.join(KEYS)}")
        if operator not in OPERATORS:
            raise ValueError(f"{operator!r} is neither = nor !=")
    return [(key, operator, str(value)) for key, operator, value in filters]


def passes(view: TaskView, filters: Sequence[Filter]) -> bool:
    """Whether a task passes all filters: case does not matter, ids match by prefix of 6+. A key
    that is not known here (of another version) lets nothing pass."""
    for key, operator, value in filters:
        read = KEYS.get(key)
        if read is None or (equal(key, read(view), value)) != (operator == "="):
            return False
    return True


def equal(key: str, there: str, wanted: str) -> bool:
    """Whether a value is the one that a filter names."""
    there, wanted = there.lower(), wanted.lower()
    if key.endswith("_id") and len(wanted) >= _PREFIX_MIN:
        return there.startswith(wanted)
    return there == wanted


def parent_of(view: TaskView) -> bytes:
    """The task that submitted it. A driver has none: Ray's id for it, which tells the job."""
    return view.parent_id or b"\xff" * 20 + view.job_id
