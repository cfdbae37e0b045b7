"""The actors behind mray.util.iter, what they do to their items, and how they are asked.

An actor is asked for items by the token of a gathering and with all transforms, so that it needs
no word before the first question, and whoever asks first opens the iteration.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final, NamedTuple

from mray import api
from mray.actor import ActorHandle
from mray.decorator import remote
from mray.object_ref import ObjectRef

#: See call_sites.py.
CALLS_FOR_USERS = True

Transform = Callable[[Iterable[Any]], Iterable[Any]]
#: Items, and whether there may be more.
Answer = tuple[list[Any], bool]
#: Gatherings whose iterations an actor keeps, the newest: nobody says when one is given up.
_GATHERINGS_MAX: Final = 100


class ParallelIteratorWorker:
    """Base of the actors whose items a ParallelIterator reads.

    ``item_generator``: an iterable, or a function that makes one. ``repeat``: begin again at its
    end, for ever.
    """

    def __init__(self, item_generator: Any, repeat: bool) -> None:
        self.item_generator = item_generator
        self.repeat = repeat
        #: Token of a gathering -> its iteration.
        self._iterations: dict[bytes, Iterator[Any]] = {}

    def par_iter_next_batch(
        self, token: bytes, transforms: tuple[Transform, ...], batch_ms: int
    ) -> Answer:
        """The next item, and those that come within ``batch_ms`` of now."""
        items = self._iterations.get(token)
        if items is None:
            items = self._iterations[token] = self._opened(token, transforms)
            while len(self._iterations) > _GATHERINGS_MAX:
                del self._iterations[next(iter(self._iterations))]
        end_at = time.monotonic() + batch_ms / 1000
        batch: list[Any] = []
        for item in items:
            batch.append(item)
            if time.monotonic() >= end_at:
                return batch, True
        self._iterations[token] = iter(())
        return batch, False

    def _opened(self, token: bytes, transforms: tuple[Transform, ...]) -> Iterator[Any]:
        items: Iterable[Any] = self._source(token)
        for fn in transforms:
            items = fn(items)
        return iter(items)

    def _source(self, token: bytes) -> Iterator[Any]:
        while True:
            made = self.item_generator
            if isinstance(made, Partition):
                yield from made.items(token)
            else:
                yield from made() if callable(made) else made
            if not self.repeat:
                return


ShardActor = remote(ParallelIteratorWorker)


class Shard(NamedTuple):
    """An actor, and what it does to its items."""

    actor: ActorHandle
    transforms: tuple[Transform, ...]

    def then(self, fn: Transform) -> Shard:
        """The same with one more transform."""
        return Shard(self.actor, (*self.transforms, fn))

    def ask(self, token: bytes, batch_ms: int) -> ObjectRef[Answer]:
        """Ask for items; see par_iter_next_batch."""
        answer: ObjectRef[Answer] = self.actor.par_iter_next_batch.remote(
            token, self.transforms, batch_ms
        )
        return answer


class Partition(NamedTuple):
    """A source of items for several actors, which take them from the same shards."""

    shards: list[Shard]
    batch_ms: int

    def items(self, token: bytes) -> Iterator[Any]:
        """The items that nobody else has taken in this gathering."""
        asked = {shard.ask(token, self.batch_ms): shard for shard in self.shards}
        while asked:
            [ready], _ = api.wait(list(asked), num_returns=1)
            shard = asked.pop(ready)
            items, more = api.get(ready)
            yield from items
            if more:
                asked[shard.ask(token, self.batch_ms)] = shard


def mapped(fn: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """``fn(item)`` for each item."""
    return map(fn, items)


def filtered(fn: Callable[[Any], bool], items: Iterable[Any]) -> Iterator[Any]:
    """The items for which ``fn(item)`` is true."""
    return filter(fn, items)


def batched(n: int, items: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of ``n`` items."""
    rest = iter(items)
    return iter(lambda: list(islice(rest, n)), [])


def flattened(items: Iterable[Any]) -> Iterator[Any]:
    """The items of the items."""
    return chain.from_iterable(items)


def combined(fn: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
    """The items of ``fn(item)`` for each item."""
    return chain.from_iterable(map(fn, items))


def shuffled(buffer_size: int, seed: int | None, items: Iterable[Any]) -> Iterator[Any]:
    """Items drawn at random from the next ``buffer_size``."""
    draw = random.Random(seed)
    buffer: list[Any] = []
    for item in items:
        buffer.append(item)
        if len(buffer) >= buffer_size:
            yield buffer.pop(draw.randrange(len(buffer)))
    draw.shuffle(buffer)
    yield from buffer
