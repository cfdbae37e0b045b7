"""The cluster's key-value table: namespaces of byte keys, and readers who wait for a key.

Covers: put, get (also for a key to come), delete, listing, and the cap on what it may hold. Values
are opaque. Functions and classes of jobs live here until nothing of the job does, and the
configuration for nodes that join.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

import msgspec

from mray.job_keys import OF_JOBS
from mray.machine import InvariantError
from mray.node.head.events import Effect, From, JobOver, Persist, Send, Tick
from mray.units import format_bytes
from mray.wire.messages import (
    Ack,
    KvDelete,
    KvGet,
    KvKeyList,
    KvKeys,
    KvPut,
    KvPutDone,
    KvValue,
    Refused,
)

#: What all keys and values together may take in the head's memory.
KV_BYTES_MAX: Final = 512 * 1024 * 1024
#: So many puts are known again when their reply was lost.
_ADDED_MAX: Final = 1000
#: Its table in the head's storage: the key is (namespace, key) as msgpack.
TABLE: Final = "kv"
_SLOT: Final = msgspec.msgpack.Decoder(tuple[str, bytes])


class _Waiter(msgspec.Struct, frozen=True):
    reader: bytes
    rid: int
    slot: tuple[str, bytes]


class KeyValues:
    """The table. See the module. ``kept``: what changes is to be persisted."""

    def __init__(self, bytes_max: int = KV_BYTES_MAX, *, kept: bool = False) -> None:
        self._bytes_max = bytes_max
        self._kept = kept
        self._bytes_used = 0
        self._values: dict[str, dict[bytes, bytes]] = {}
        #: Number -> reader of a key that is not there. Numbers grow with time of arrival.
        self._waiters: dict[int, _Waiter] = {}
        self._waiting_for: dict[tuple[str, bytes], list[int]] = {}
        #: (moment, number); entries of waiters that were served meanwhile are skipped.
        self._deadlines: list[tuple[float, int]] = []
        self._number = 0
        #: The last puts that added a key, by its hash: asked again, they hear so again.
        self._added: dict[tuple[bytes, int, str, bytes], None] = {}

    def handle(self, event: From | Tick | JobOver, now: float) -> list[Effect]:
        """Answer one message, or the readers whose time is over; drop what was a job's."""
        if isinstance(event, Tick):
            return self._expire(now)
        if isinstance(event, JobOver):
            return [row for place in OF_JOBS for row in self._drop(place, event.job_id, True)]
        match event.message:
            case KvPut():
                return self._put(event.sender, event.message)
            case KvGet():
                return self._get(event.sender, event.message, now)
            case KvDelete():
                return self._delete(event.sender, event.message)
            case KvKeys(rid, namespace, prefix):
                table = self._values.get(namespace, {})
                keys = sorted(key for key in table if key.startswith(prefix))
                return [Send(event.sender, KvKeyList(rid, keys))]
            case message:
                raise TypeError(f"no message for the key-value table: {type(message).__name__}")

    def put(self, namespace: str, key: bytes, value: bytes) -> None:
        """Put a value of the head's own, before anybody asks."""
        self._store(namespace, key, value)

    def deadline(self) -> float | None:
        """When the first reader has waited long enough."""
        while self._deadlines and self._deadlines[0][1] not in self._waiters:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def _put(self, sender: bytes, put: KvPut) -> list[Effect]:
        table = self._values.get(put.namespace, {})
        old = table.get(put.key)
        asked = (sender, put.rid, put.namespace, blake2b(put.key, digest_size=16).digest())
        if asked in self._added:
            return [Send(sender, KvPutDone(put.rid, added=True))]
        if old is not None and not put.overwrite:
            return [Send(sender, KvPutDone(put.rid, added=False))]
        grown = len(put.value) - len(old) if old is not None else len(put.key) + len(put.value)
        if grown > 0 and self._bytes_used + grown > self._bytes_max:
            text = (
                f"the cluster's key-value table is full: {format_bytes(self._bytes_used)} of "
                f"{format_bytes(self._bytes_max)} are taken and {format_bytes(len(put.value))} "
                f"were to be added in namespace {put.namespace!r}; functions and classes live "
                "there, so look for big values captured in closures: put() those"
            )
            return [Send(sender, Refused(put.rid, "MemoryError", text))]
        if old is None:
            self._added[asked] = None
            if len(self._added) > _ADDED_MAX:
                del self._added[next(iter(self._added))]
        self._store(put.namespace, put.key, put.value)
        effects: list[Effect] = [Send(sender, KvPutDone(put.rid, added=old is None))]
        if self._kept:
            effects.append(Persist(TABLE, _row_key(put.namespace, put.key), put.value))
        for number in self._waiting_for.pop((put.namespace, put.key), []):
            waiter = self._waiters.pop(number)
            effects.append(Send(waiter.reader, KvValue(waiter.rid, put.value)))
        return effects

    def _store(self, namespace: str, key: bytes, value: bytes) -> None:
        table = self._values.setdefault(namespace, {})
        old = table.get(key)
        self._bytes_used += len(value) - len(old) if old is not None else len(key) + len(value)
        table[key] = value

    def _get(self, sender: bytes, get: KvGet, now: float) -> list[Effect]:
        value = self._values.get(get.namespace, {}).get(get.key)
        if value is not None or get.wait_s <= 0:
            return [Send(sender, KvValue(get.rid, value))]
        slot = (get.namespace, get.key)
        self._number += 1
        self._waiters[self._number] = _Waiter(sender, get.rid, slot)
        self._waiting_for.setdefault(slot, []).append(self._number)
        heapq.heappush(self._deadlines, (now + get.wait_s, self._number))
        return []

    def _expire(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, number = heapq.heappop(self._deadlines)
            waiter = self._waiters.pop(number, None)
            if waiter is not None:
                waiting = self._waiting_for[waiter.slot]
                waiting.remove(number)
                if not waiting:
                    del self._waiting_for[waiter.slot]
                effects.append(Send(waiter.reader, KvValue(waiter.rid, None)))
        return effects

    def _delete(self, sender: bytes, delete: KvDelete) -> list[Effect]:
        rows = self._drop(delete.namespace, delete.key, delete.prefix)
        return [*rows, Send(sender, Ack(delete.rid))]

    def _drop(self, namespace: str, key: bytes, is_prefix: bool) -> list[Persist]:
        table = self._values.get(namespace, {})
        if is_prefix:
            keys = [each for each in table if each.startswith(key)]
        else:
            keys = [key] if key in table else []
        for each in keys:
            self._bytes_used -= len(each) + len(table.pop(each))
        if not table:
            self._values.pop(namespace, None)
        rows = [Persist(TABLE, _row_key(namespace, each), None) for each in keys]
        return rows if self._kept else []

    # -- what outlives the head

    def restore(self, rows: Mapping[bytes, bytes]) -> None:
        """Take in what was stored, before anything else."""
        for key, value in rows.items():
            self._store(*_SLOT.decode(key), value)

    def rows(self) -> dict[bytes, bytes]:
        """What should be stored now, for check()s of the storage."""
        return {
            _row_key(namespace, key): value
            for namespace, table in self._values.items()
            for key, value in table.items()
        }

    def check(self) -> None:
        """See mray.machine."""
        used = sum(len(k) + len(v) for table in self._values.values() for k, v in table.items())
        if used != self._bytes_used:
            raise InvariantError(f"{self._bytes_used} bytes counted, {used} there")
        listed = sorted(n for numbers in self._waiting_for.values() for n in numbers)
        if listed != sorted(self._waiters):
            raise InvariantError("waiters and their slots differ")
        if not set(self._waiters) <= {number for _, number in self._deadlines}:
            raise InvariantError("a waiter has no deadline")
        for namespace, key in self._waiting_for:
            if key in self._values.get(namespace, {}):
                raise InvariantError(f"readers wait for {key!r}, which is there")


def _row_key(namespace: str, key: bytes) -> bytes:
    return msgspec.msgpack.encode((namespace, key))
