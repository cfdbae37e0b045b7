"""Users' serializers for classes they cannot change.

Owns the table that picklers consult; mray.util.serialization is its public face. An entry matches
the exact class, never its subclasses: that is what a dispatch table does. The deserializer travels
inside the pickle, so the reader needs no registration.

Entries are this process's own (local, as in Ray) or the job's; of two for one class the own one
holds. The job's table is replaced as a whole: runtime/serializers.py brings it from process to
process, and knows when.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Reducer = Callable[[Any], tuple[Any, ...]]


class Registration(NamedTuple):
    """How instances of a class become something that can be pickled, and instances again."""

    serializer: Callable[[Any], Any]
    deserializer: Callable[[Any], Any]

    def reducer(self) -> Reducer:
        """The same as a dispatch table wants it."""
        serializer, deserializer = self

        def reduce(value: Any) -> tuple[Any, ...]:
            return deserializer, (serializer(value),)

        return reduce


#: class -> reducer: what holds. Read by every pickler while it dumps; empty in most processes.
reducers: dict[type, Reducer] = {}
_local: dict[type, Registration] = {}
_job: dict[type, Registration] = {}


def set_local(cls: type, registration: Registration) -> None:
    """Register a class in this process, from now on."""
    _local[cls] = registration
    reducers[cls] = registration.reducer()


def drop_local(cls: type) -> None:
    """Forget this process's own entry of ``cls``; nothing happens if there is none."""
    if _local.pop(cls, None) is not None:
        _settle(cls)


def job_table() -> dict[type, Registration]:
    """A copy of the job's table as this process knows it."""
    return dict(_job)


def set_job_table(table: Mapping[type, Registration]) -> None:
    """Take ``table`` in place of the job's table so far."""
    changed = {*_job, *table}
    _job.clear()
    _job.update(table)
    for cls in changed:
        if cls not in _local:
            _settle(cls)


def _settle(cls: type) -> None:
    registration = _local.get(cls) or _job.get(cls)
    if registration is None:
        reducers.pop(cls, None)
    else:
        reducers[cls] = registration.reducer()


def merged_table() -> dict[Any, Any]:
    """copyreg's table with the users' entries over it, for a plain C pickler.

    Merged at each use (300 ns): copyreg may grow any time, and a ChainMap costs a Python call per
    pickled object.
    """
    return {**copyreg.dispatch_table, **reducers}
