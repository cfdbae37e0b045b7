"""Entry: one object as one process knows it, whether it owns the object or borrows it.

Owns the fields and what "kept" means. Changes nothing by itself: counts and values are
references.py's, registrations borrowers.py's and borrowing.py's.
"""

from __future__ import annotations

from typing import Any, Protocol

from mray.wire.messages import Address, Located


class Home(Protocol):
    """Where the finalizer of an ObjectRef leaves its note. See runtime/mailbox.py."""

    posts: Any
    #: The loop waits: leaving a note takes a ``wake``.
    asleep: bool

    def wake(self) -> None:
        """Have the notes read soon. Takes no lock."""


class Pins:
    """What keeps an object for as long as something bigger lives. Few entries have any."""

    __slots__ = ("captured", "lineage", "pinned")

    def __init__(self) -> None:
        #: Pickles by mray.cloudpickle in user code: kept until this process ends.
        self.pinned = 0
        #: Exported functions and classes that contain the reference: kept until the job ends.
        self.captured = 0
        #: Finished tasks that may be run again with it: see lineage.py for what that keeps.
        self.lineage = 0


class Entry:
    """One object as this process knows it."""

    __slots__ = (
        "born",
        "borrowers",
        "call_site",
        "data",
        "freed",
        "held",
        "home",
        "inside",
        "is_actor",
        "local",
        "located",
        "name",
        "nested",
        "object_id",
        "owner",
        "pins",
        "ready",
        "tokens",
        "waiters",
        "watchers",
        "watching",
    )

    def __init__(
        self,
        object_id: bytes,
        owner: Address | None,
        home: Home,
        local: int,
        name: str = "",
        call_site: Any = None,
        born: float = 0.0,
    ) -> None:
        self.object_id = object_id
        #: None: owned by this process.
        self.owner = owner
        self.home = home
        #: ObjectRefs in this process.
        self.local = local
        #: Arguments of tasks submitted here and not finished, values being handed over.
        self.held = 0
        #: Values in this process's table that contain the reference.
        self.inside = 0
        #: Kept for good, and why; None for almost every entry.
        self.pins: Pins | None = None
        #: The value can be had: ``data`` (envelope bytes) or ``located`` is set. Written last.
        self.ready = False
        self.data: bytes | None = None
        self.located: Located | None = None
        #: Waits of this process: objects with fire(entry); None when there are none.
        self.waiters: list[Any] | None = None
        #: Owner: processes to tell when ready.
        self.watchers: list[bytes] | None = None
        #: Borrower: the owner has been asked to tell us.
        self.watching = False
        #: Owner: registered borrowers and their tokens. Never an empty dict or set.
        self.borrowers: dict[bytes, set[int]] | None = None
        #: Borrower: tokens under which the owner knows us.
        self.tokens: list[int] | None = None
        #: Entries of the references inside the value, each counted in their ``inside``.
        self.nested: list[Entry] | None = None
        self.freed = False
        self.is_actor = False
        #: What makes the object, for people: a task's name, "put", an actor's class.
        self.name = name
        #: Where user code asked for it, as call_sites.capture() gives it; None: not recorded, or
        #: unpickled here.
        self.call_site = call_site
        #: Monotonic seconds when this process made or first received it; 0: not recorded.
        self.born = born

    @property
    def kept(self) -> bool:
        """Whether anything keeps the object alive."""
        return bool(self.local or self.held or self.inside or self.borrowers or self.pins)

    @property
    def pinned(self) -> int:
        """How often user code pickled the reference by itself with mray.cloudpickle."""
        return self.pins.pinned if self.pins is not None else 0

    @property
    def captured(self) -> int:
        """In how many exported functions and classes the reference is."""
        return self.pins.captured if self.pins is not None else 0
