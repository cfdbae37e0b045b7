"""The head's storage in a Redis server: one hash a table, written by one script a batch.

The script compares the epoch and writes in one step, which Redis does for nobody else in between.
How well Redis keeps what it has confirmed is Redis's: with ``appendonly yes`` and ``appendfsync
everysec`` a crash of its machine loses up to a second; ``appendfsync always`` loses nothing. A
replica that takes over may lack what was confirmed last.
"""

from __future__ import annotations

from typing import Any, Final, cast

from mray.node.head.storage.store import (
    Fenced,
    StorageDamaged,
    StorageError,
    Tables,
    Writes,
)
from mray.storage_place import StoragePlace

#: The loop of the head stands still for so long at most.
_TIMEOUT_S: Final = 2.0
#: KEYS: epoch, tables, then one hash a write. ARGV: expected epoch ("" to take over), then for each
#: write the table's name, the key, "1" and the value or "0" and "".
_SCRIPT: Final = """
local stored = redis.call('GET', KEYS[1])
if ARGV[1] == '' then
  stored = redis.call('INCR', KEYS[1])
elseif stored ~= ARGV[1] then
  return stored or ''
end
for i = 3, #KEYS do
  local at = 2 + (i - 3) * 4
  redis.call('SADD', KEYS[2], ARGV[at])
  if ARGV[at + 2] == '1' then
    redis.call('HSET', KEYS[i], ARGV[at + 1], ARGV[at + 3])
  else
    redis.call('HDEL', KEYS[i], ARGV[at + 1])
  end
end
return tostring(stored)
"""


class RedisStorage:
    """See the module. StorageError where the server does not answer, or the library is missing."""

    def __init__(self, place: StoragePlace) -> None:
        try:
            import redis
        except ImportError as error:
            raise StorageError(
                "the head's storage in Redis needs the library redis: pip install 'mray[redis]'"
            ) from error
        self.text = place.text
        self._failures = (redis.RedisError, OSError)
        # Any: the stubs of this library know no difference between it and its asyncio twin.
        self._client: Any = redis.Redis.from_url(
            place.url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S,
            retry_on_timeout=False,
        )  # fmt: skip
        # In braces: a Redis Cluster keeps all of it in one place.
        self._prefix = f"mray:{{{place.namespace}}}:"
        self._script = self._client.register_script(_SCRIPT)
        self._epoch = 0
        try:
            self._client.ping()
        except self._failures as error:
            self.close()
            raise StorageError(
                f"the head's storage {self.text} does not answer: {error}"
            ) from error

    def load(self) -> Tables:
        """See Storage."""
        tables: Tables = {}
        try:
            for name in sorted(self._client.smembers(f"{self._prefix}tables")):
                found = self._client.hgetall(self._prefix + name.decode())
                tables[name.decode()] = cast(dict[bytes, bytes], found)
            epoch = self._client.get(f"{self._prefix}epoch")
        except self._failures as error:
            raise StorageError(f"the head's storage {self.text} cannot be read: {error}") from error
        if tables and epoch is None:
            raise StorageDamaged(
                f"the head's storage {self.text} has lost its epoch: some of its keys were removed."
                f" Restore it, or remove all keys that begin with {self._prefix} and start anew"
            )
        return tables

    def take_over(self, writes: Writes) -> int:
        """See Storage."""
        self._epoch = self._run(writes, "")
        return self._epoch

    def commit(self, writes: Writes) -> None:
        """See Storage."""
        self._run(writes, str(self._epoch))

    def _run(self, writes: Writes, epoch: str) -> int:
        keys = [f"{self._prefix}epoch", f"{self._prefix}tables"]
        arguments: list[str | bytes] = [epoch]
        for (table, key), value in writes.items():
            keys.append(self._prefix + table)
            arguments += [table, key, "0" if value is None else "1", value or b""]
        try:
            stored = self._script(keys=keys, args=arguments)
        except self._failures as error:
            raise StorageError(
                f"the head's storage {self.text} cannot be written: {error}"
            ) from error
        if not stored:
            raise StorageError(
                f"the head's storage {self.text} cannot be written: it was emptied while the head "
                f"runs (there is no {self._prefix}epoch any more); restore it, or start anew"
            )
        if epoch and stored.decode() != epoch:
            raise Fenced(self.text, int(epoch), int(stored))
        return int(stored)

    def close(self) -> None:
        """See Storage."""
        self._client.close()
