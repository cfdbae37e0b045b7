"""ObjectRef: an object's id and who owns it.

Reports its own end and its pickling; decides nothing. The finalizer appends to a queue and takes
no lock: it may run in any thread, inside any other code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mray import current
from mray.call_sites import describe
from mray.id_types import JobID, TaskID
from mray.ids import NIL_OBJECT, OBJECT_BYTES, TASK_BYTES
from mray.serialization.context import collector
from mray.wire.messages import Address

if TYPE_CHECKING:
    import asyncio
    import concurrent.futures

    from mray.ownership.references import Entry

T = TypeVar("T")


class ObjectRef(Generic[T]):
    """A reference to an object that a task makes or ``put`` stored. Awaitable.

    ``ObjectRef(binary)`` is ``ObjectRef.from_binary(binary)``.
    """

    __slots__ = ("__weakref__", "_entry")

    def __init__(self, entry: Entry | bytes) -> None:
        self._entry: Entry = entry  # type: ignore[assignment]
        # Users give bytes. Looking at the type would cost each birth more than this does.
        try:
            entry.home  # type: ignore[union-attr]  # noqa: B018
        except AttributeError:
            from mray.stray_refs import fill

            fill(self, entry)

    def __del__(self) -> None:
        entry = self._entry
        home = entry.home
        home.posts.append(entry)
        if home.asleep:
            home.wake()

    @classmethod
    def from_binary(cls, id: bytes) -> ObjectRef[Any]:
        """The reference with this id: see stray_refs.py. TypeError and ValueError as there."""
        from mray.stray_refs import ref_of

        return ref_of(id)

    @classmethod
    def from_random(cls) -> ObjectRef[Any]:
        """A reference to an object that nobody has."""
        return cls.from_binary(os.urandom(OBJECT_BYTES))

    @classmethod
    def nil(cls) -> ObjectRef[Any]:
        """The reference to nothing."""
        return cls.from_binary(NIL_OBJECT)

    @classmethod
    def size(cls) -> int:
        """How many bytes an id has."""
        return OBJECT_BYTES

    def call_site(self) -> str:
        """The line of code where the reference was made; "" where it was not recorded."""
        return describe(self._entry.call_site)

    def binary(self) -> bytes:
        """The id as 28 bytes."""
        return self._entry.object_id

    def hex(self) -> str:
        """The id as 56 hex digits."""
        return self._entry.object_id.hex()

    def is_nil(self) -> bool:
        """Whether this is the id of nothing."""
        return self._entry.object_id == NIL_OBJECT

    def task_id(self) -> TaskID:
        """The id of the task (or put) that makes the object."""
        return TaskID(self._entry.object_id[:TASK_BYTES])

    def job_id(self) -> JobID:
        """The id of the job whose process owns the object."""
        return self.task_id().job_id()

    def __hash__(self) -> int:
        return hash(self._entry.object_id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ObjectRef):
            return self._entry.object_id == other._entry.object_id
        return NotImplemented

    def __repr__(self) -> str:
        return f"ObjectRef({self._entry.object_id.hex()})"

    def __reduce__(self) -> Any:
        entry = self._entry
        refs = collector.refs
        if refs is None:
            current.get().pickled_out_of_band(entry)
        else:
            refs.append(self)
        return maker_of(owner_tuple(entry)), (entry.object_id,)

    def __copy__(self) -> ObjectRef[T]:
        return self

    def __deepcopy__(self, memo: Any) -> ObjectRef[T]:
        return self

    def future(self) -> concurrent.futures.Future[T]:
        """A concurrent future of the value."""
        return current.get().future(self)

    def as_future(self, _internal: bool = False) -> asyncio.Future[T]:
        """An asyncio future of the value, on the running loop."""
        import asyncio

        return asyncio.wrap_future(self.future())

    def __await__(self) -> Generator[Any, None, T]:
        return self.as_future().__await__()

    def __iter__(self) -> Any:
        raise TypeError(f"{self!r} is a reference, not its value: call get() on it first")


def owner_tuple(entry: Entry) -> Address:
    """The owner's address of an entry, also when that is this process."""
    if entry.owner is not None:
        return entry.owner
    runtime = current.get()
    if entry.home is not runtime.mailbox:
        from mray.former import refuse_to_lend

        refuse_to_lend(entry, runtime)
    return runtime.address


class RefMaker:
    """Stands, in a pickle, for what makes the references of one owner: written once a pickle,
    however many references follow. Nobody calls this one; unpickled it is ``ref_maker``'s."""

    __slots__ = ("owner",)

    def __init__(self, owner: Address) -> None:
        self.owner = owner

    def __reduce__(self) -> Any:
        return ref_maker, (self.owner,)

    def __call__(self, object_id: bytes) -> ObjectRef[Any]:
        """Picklers insist on a callable."""
        return ref_maker(self.owner)(object_id)


#: By owner's process. What is pickled again and again shall be one object.
_makers: dict[bytes, RefMaker] = {}
_MAKERS_MAX = 1000


def maker_of(owner: Address) -> RefMaker:
    """The one RefMaker of an owner."""
    maker = _makers.get(owner.process_id)
    if maker is None:
        if len(_makers) >= _MAKERS_MAX:
            _makers.clear()
        maker = _makers[owner.process_id] = RefMaker(owner)
    return maker


def ref_maker(owner: Address) -> Callable[[bytes], ObjectRef[Any]]:
    """Makes references of an owner's objects while they are unpickled: this process becomes (or
    already is) a borrower, or is the owner."""
    maker: Callable[[bytes], ObjectRef[Any]] = (current.runtime or current.get()).ref_maker(owner)
    return maker
