"""``ray.experimental.internal_kv``: the cluster's key-value table, as libraries use it.

Keys of users are kept apart from mray's own. Values live in the head, so they should be small.
"""

from __future__ import annotations

from typing import Final

from mray import current
from mray.wire.messages import (
    Ack,
    KvDelete,
    KvGet,
    KvKeyList,
    KvKeys,
    KvPut,
    KvPutDone,
    KvValue,
)

#: Before the namespaces of users.
_PREFIX: Final = "user:"

#: Text is taken as UTF-8.
Text = str | bytes


def _internal_kv_initialized() -> bool:
    """Whether this process is connected."""
    return current.runtime is not None and not current.runtime.closed


def _internal_kv_get(key: Text, *, namespace: Text | None = None) -> bytes | None:
    """The value of a key, None where there is none."""
    rt = current.get()
    asked, place = _bytes(key), _place(namespace)
    return rt.ask(rt.head, lambda rid: KvGet(rid, place, asked), KvValue).value


def _internal_kv_exists(key: Text, *, namespace: Text | None = None) -> bool:
    """Whether there is such a key."""
    return _internal_kv_get(key, namespace=namespace) is not None


def _internal_kv_put(
    key: Text, value: Text, overwrite: bool = True, *, namespace: Text | None = None
) -> bool:
    """Set a key; without ``overwrite`` only where there is none. Returns whether there was one."""
    rt = current.get()
    asked, data, place = _bytes(key), _bytes(value), _place(namespace)
    done = rt.ask(rt.head, lambda rid: KvPut(rid, place, asked, data, overwrite), KvPutDone)
    return not done.added


def _internal_kv_del(
    key: Text, *, del_by_prefix: bool = False, namespace: Text | None = None
) -> int:
    """Delete a key, or all that begin with it. Returns how many there were."""
    rt = current.get()
    asked, place = _bytes(key), _place(namespace)
    found = _internal_kv_list(key, namespace=namespace)
    count = len(found) if del_by_prefix else int(asked in found)
    rt.ask(rt.head, lambda rid: KvDelete(rid, place, asked, del_by_prefix), Ack)
    return count


def _internal_kv_list(prefix: Text, *, namespace: Text | None = None) -> list[bytes]:
    """The keys that begin with ``prefix``."""
    rt = current.get()
    asked, place = _bytes(prefix), _place(namespace)
    return rt.ask(rt.head, lambda rid: KvKeys(rid, place, asked), KvKeyList).keys


def _bytes(text: Text) -> bytes:
    if isinstance(text, str):
        return text.encode()
    # As Ray raises it; programs have caught it so.
    assert isinstance(text, bytes), f"keys and values are str or bytes, not {type(text)}"
    return text


def _place(namespace: Text | None) -> str:
    return _PREFIX + ("" if namespace is None else _bytes(namespace).decode())


__all__ = [
    "_internal_kv_del",
    "_internal_kv_exists",
    "_internal_kv_get",
    "_internal_kv_initialized",
    "_internal_kv_list",
    "_internal_kv_put",
]
