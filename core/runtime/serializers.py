"""Serializers registered for a whole job: from the process that registers to all others.

Owns the dialogue; the table itself is serialization/custom.py's. Each state of a job's table is
stored in the head's key-value table under the job and a version that grows by one; a version is
written once, so of two processes that register at the same time one is told to build upon the
other's. Owners say in PushTasks (and ActorSpec) which version they know; a worker that is behind
fetches it before it runs what came with it. A worker that registers tells its driver before it goes
on. While nobody registers, all this is a comparison a task.

An entry that a process cannot load (its class is not importable there) is left out with a warning:
that process has no instance of the class either.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import cloudpickle
import msgspec

from mray.exceptions import RayError
from mray.job_keys import SERIALIZERS
from mray.serialization import custom
from mray.serialization.context import collector
from mray.serialization.custom import Registration
from mray.serialization.inspection import unpicklable_error
from mray.wire.messages import (
    Ack,
    Address,
    KvGet,
    KvPut,
    KvPutDone,
    KvValue,
    Message,
    SerializersChanged,
)

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.runtime")

_FETCH_WAIT_S = 20.0

#: What was registered while this process was not connected: for each job that it starts.
_before_init: dict[type, Registration] = {}


class SerializersPart:
    """The job's serializers as one process knows them."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        #: Of the table in use here. Sent along with tasks.
        self.version = 0
        #: The highest version heard of; above ``version`` where it is not fetched yet.
        self.wanted = 0
        #: In a worker: whom to tell of what is registered here.
        self.driver: Address | None = None
        self._lock = threading.Lock()
        #: References captured by the functions registered here: kept as long as the process.
        self._captured: list[Any] = []
        runtime.pump.on(SerializersChanged, self._told)

    def begin(self) -> None:
        """A driver is connected: its job begins with what was registered before."""
        custom.set_job_table(_before_init)
        if _before_init:
            with self._lock:
                self._publish(_before_init)

    def end(self) -> None:
        """A driver is disconnected: its job's serializers are over."""
        custom.set_job_table(_before_init)

    def change(self, cls: type, registration: Registration | None) -> None:
        """Register a class for the job, None to deregister it. Blocks for the head's answer."""
        with self._lock:
            while True:
                table = _changed(custom.job_table(), cls, registration)
                if table is None or self._publish(table):
                    return

    def catch_up(self) -> None:
        """Fetch the table that an owner's tasks came with. In the thread that runs the task.

        Raises RayError when the head does not have it.
        """
        with self._lock:
            if self.wanted > self.version:
                self._fetch(self.wanted)

    def _publish(self, table: Mapping[type, Registration]) -> bool:
        """Make a table the job's; False if another process was first, whose table is here now."""
        version = self.version + 1
        data = self._packed(table)
        done = self.rt.ask(
            self.rt.head,
            lambda rid: KvPut(rid, SERIALIZERS, self._key(version), data, overwrite=False),
            KvPutDone,
        )
        if not done.added:
            self._fetch(version)
            return False
        custom.set_job_table(table)
        self.version = version
        if self.driver is not None:
            # No answer: the driver is gone, as it may be for a detached actor.
            self.rt.ask_any(self.driver, lambda rid: SerializersChanged(rid, version), 10.0)
        return True

    def _packed(self, table: Mapping[type, Registration]) -> bytes:
        return msgspec.msgpack.encode(
            [(cls.__qualname__, _pickled(cls, *entry, self._captured)) for cls, entry in
             table.items()]
        )  # fmt: skip

    def _fetch(self, version: int) -> None:
        answer = self.rt.ask(
            self.rt.head,
            lambda rid: KvGet(rid, SERIALIZERS, self._key(version), _FETCH_WAIT_S),
            KvValue,
            _FETCH_WAIT_S + 10.0,
        )
        if answer.value is None:
            raise RayError(
                f"version {version} of the job's serializers is not at the head: who registered "
                "them has ended"
            )
        self._take(version, answer.value)

    def _told(self, sender: bytes, message: SerializersChanged) -> None:
        """In the driver's loop."""

        def fetched(reply: Message) -> None:
            if isinstance(reply, KvValue) and reply.value is not None:
                self._take(message.version, reply.value)
            self.rt.pump.send(sender, Ack(message.rid))

        key = self._key(message.version)
        self.rt.head_link.ask(lambda rid: KvGet(rid, SERIALIZERS, key), fetched, 8.0)

    def _take(self, version: int, packed: bytes) -> None:
        if version <= self.version:
            return
        table: dict[type, Registration] = {}
        for name, data in msgspec.msgpack.decode(packed):
            try:
                cls, serializer, deserializer = pickle.loads(data)
            except Exception as error:  # whatever importing the user's module raises
                log.warning("the serializer of %s cannot be loaded here: %r", name, error)
            else:
                table[cls] = Registration(serializer, deserializer)
        custom.set_job_table(table)
        self.version = version

    def _key(self, version: int) -> bytes:
        return self.rt.job_id + version.to_bytes(8, "big")


def change(runtime: Runtime | None, cls: type, registration: Registration | None) -> None:
    """Register a class for the job of this process, or for its jobs to come."""
    if runtime is not None and not runtime.closed:
        if registration is None:
            _before_init.pop(cls, None)
        runtime.serializers.change(cls, registration)
        return
    if registration is not None:
        _pickled(cls, *registration, [])  # what cannot travel is refused now and not at init()
    table = _changed(_before_init, cls, registration)
    if table is not None:
        _before_init.clear()
        _before_init.update(table)
        custom.set_job_table(table)


def _changed(
    table: Mapping[type, Registration], cls: type, registration: Registration | None
) -> dict[type, Registration] | None:
    """``table`` with an entry set or removed; None where that changes nothing."""
    if table.get(cls) == registration:
        return None
    changed = dict(table)
    if registration is None:
        del changed[cls]
    else:
        changed[cls] = registration
    return changed


def _pickled(cls: type, serializer: Any, deserializer: Any, captured: list[Any]) -> bytes:
    value = (cls, serializer, deserializer)
    outer, collector.refs = collector.refs, []
    try:
        data: bytes = cloudpickle.dumps(value, protocol=5)
        captured += collector.refs
    except Exception as error:
        what = f"the registration of a serializer for {cls.__qualname__}"
        raise unpicklable_error(value, what, error) from error
    finally:
        collector.refs = outer
    return data
