"""``mray.util.iter``: iterators whose items are made by actors, a shard each.

A ParallelIterator is a plan: actors, and for each of them what is done to its items, there. Nothing
runs before it is gathered into a LocalIterator. Every gathering has a token, by which an actor
tells its iterations apart: a plan can be gathered again, also while another gathering runs.

The actors, and how they are asked, are iter_shards.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from typing import Any

from mray import api
from mray.actor import ActorHandle
from mray.util.iter_shards import (
    ParallelIteratorWorker,
    Partition,
    Shard,
    ShardActor,
    Transform,
    batched,
    combined,
    filtered,
    flattened,
    mapped,
    shuffled,
)

__all__ = [
    "LocalIterator",
    "ParallelIterator",
    "ParallelIteratorWorker",
    "from_actors",
    "from_items",
    "from_iterators",
    "from_range",
]

#: See call_sites.py.
CALLS_FOR_USERS = True


def from_items(items: Sequence[Any], num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """Items dealt out to the shards in turn; ``repeat``: for ever."""
    shards = [items[number::num_shards] for number in range(num_shards)]
    kind = type(items[0]).__name__ if items else "None"
    name = f"from_items[{kind}, {len(items)}, shards={num_shards}{', repeat=True' * repeat}]"
    return from_iterators(shards, repeat, name)


def from_range(n: int, num_shards: int = 2, repeat: bool = False) -> ParallelIterator:
    """The numbers below ``n``: a stretch for each shard, the last has the rest."""
    size = n // num_shards
    ends = [*(size * number for number in range(num_shards)), n]
    shards = [range(first, end) for first, end in pairwise(ends)]
    name = f"from_range[{n}, shards={num_shards}{', repeat=True' * repeat}]"
    return from_iterators(shards, repeat, name)


def from_iterators(
    generators: Sequence[Iterable[Any] | Callable[[], Iterable[Any]]],
    repeat: bool = False,
    name: str | None = None,
) -> ParallelIterator:
    """A shard for each iterable, or for each function that makes one in its actor."""
    name = name or f"from_iterators[shards={len(generators)}{', repeat=True' * repeat}]"
    return from_actors([ShardActor.remote(made, repeat) for made in generators], name)


def from_actors(actors: Sequence[ActorHandle], name: str | None = None) -> ParallelIterator:
    """A shard for each actor; their classes inherit from ParallelIteratorWorker."""
    shards = [Shard(actor, ()) for actor in actors]
    return ParallelIterator(shards, name or f"from_actors[shards={len(shards)}]")


class _Transforms:
    """What both kinds of iterators do to their items."""

    name: str

    def transform(self, fn: Transform) -> Any:
        """What ``fn`` makes of the iterator over the items."""
        return self._with(fn, ".transform()")

    def for_each(
        self, fn: Callable[[Any], Any], max_concurrency: int = 1, resources: Any = None
    ) -> Any:
        """``fn(item)`` for each item."""
        if max_concurrency != 1 or resources is not None:
            raise ValueError(
                "for_each(max_concurrency=..., resources=...) is not supported by this version of "
                "mray: use map_unordered() or more shards"
            )
        return self._with(partial(mapped, fn), ".for_each()")

    def filter(self, fn: Callable[[Any], bool]) -> Any:
        """The items for which ``fn(item)`` is true."""
        return self._with(partial(filtered, fn), ".filter()")

    def batch(self, n: int) -> Any:
        """Lists of ``n`` items; the last may be shorter."""
        if n < 1:
            raise ValueError(f"a batch has one item or more, not {n}")
        return self._with(partial(batched, n), f".batch({n})")

    def flatten(self) -> Any:
        """The items of the items."""
        return self._with(flattened, ".flatten()")

    def combine(self, fn: Callable[[Any], Iterable[Any]]) -> Any:
        """The items of ``fn(item)`` for each item."""
        return self._with(partial(combined, fn), ".combine()")

    def _with(self, fn: Transform, what: str) -> Any:
        raise NotImplementedError


class ParallelIterator(_Transforms):
    """Items of several shards, each made by its actor."""

    def __init__(self, shards: Sequence[Shard], name: str) -> None:
        self._shards = list(shards)
        self.name = name

    def __iter__(self) -> Iterator[Any]:
        raise TypeError("a ParallelIterator is read by gather_sync() or gather_async()")

    def __repr__(self) -> str:
        return f"ParallelIterator[{self.name}]"

    def _with(self, fn: Transform, what: str) -> ParallelIterator:
        return ParallelIterator([shard.then(fn) for shard in self._shards], self.name + what)

    def local_shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> ParallelIterator:
        """Each shard's items in an order drawn from a buffer of that size."""
        what = f".local_shuffle(shuffle_buffer_size={shuffle_buffer_size}, seed={seed})"
        made: ParallelIterator = self._with(partial(shuffled, shuffle_buffer_size, seed), what)
        return made

    def repartition(self, num_partitions: int, batch_ms: int = 0) -> ParallelIterator:
        """As many other shards: each takes the next item of ours when it needs one.

        ``batch_ms``: takes all that a shard makes in that time.
        """
        source = Partition(self._shards, batch_ms)
        shards = [Shard(ShardActor.remote(source, False), ()) for _ in range(num_partitions)]
        return ParallelIterator(shards, f"{self.name}.repartition[num_partitions={num_partitions}]")

    def union(self, other: ParallelIterator) -> ParallelIterator:
        """The shards of both."""
        if not isinstance(other, ParallelIterator):
            raise TypeError(f"union() takes a ParallelIterator, not {type(other).__name__}")
        return ParallelIterator(self._shards + other._shards, f"ParallelUnion[{self}, {other}]")

    def select_shards(self, shards_to_keep: Sequence[int]) -> ParallelIterator:
        """Some of the shards, by their numbers."""
        kept = [self._shards[number] for number in shards_to_keep]
        return ParallelIterator(kept, f"{self.name}.select_shards({len(kept)} total)")

    def num_shards(self) -> int:
        """How many shards there are."""
        return len(self._shards)

    def shards(self) -> list[LocalIterator]:
        """An iterator over each shard."""
        return [self.get_shard(number) for number in range(len(self._shards))]

    def get_shard(self, shard_index: int, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """An iterator over one shard; see gather_async(), whose order within a shard holds."""
        one = ParallelIterator([self._shards[shard_index]], self.name)
        made = one.gather_async(batch_ms, num_async)
        made.name = f"{self.name}.shard[{shard_index}]"
        return made

    def gather_sync(self) -> LocalIterator:
        """One item of each shard in turn."""
        return LocalIterator(self._rounds, f"{self}.gather_sync()", flattened)

    def batch_across_shards(self) -> LocalIterator:
        """Lists of one item of each shard that has any left."""
        return LocalIterator(self._rounds, f"{self}.batch_across_shards()")

    def gather_async(self, batch_ms: int = 0, num_async: int = 1) -> LocalIterator:
        """Items as they come, in order only within a shard.

        ``batch_ms``: ask for all that a shard makes in that time at once. ``num_async``: questions
        under way to each shard.
        """
        if num_async < 1:
            raise ValueError(f"num_async must be 1 or more, not {num_async}")
        if batch_ms < 0:
            raise ValueError(f"batch_ms must be 0 or more, not {batch_ms}")
        return LocalIterator(
            partial(self._as_they_come, batch_ms, num_async), f"{self}.gather_async()"
        )

    def take(self, n: int) -> list[Any]:
        """The first items of gather_sync()."""
        return self.gather_sync().take(n)

    def show(self, n: int = 20) -> None:
        """Print the first items of gather_sync()."""
        self.gather_sync().show(n)

    def _rounds(self) -> Iterator[list[Any]]:
        token, left = os.urandom(8), self._shards
        while left:
            answers = api.get([shard.ask(token, 0) for shard in left])
            items = [item for some, _ in answers for item in some]
            left = [shard for shard, (_, more) in zip(left, answers, strict=True) if more]
            if items:
                yield items

    def _as_they_come(self, batch_ms: int, num_async: int) -> Iterator[Any]:
        token = os.urandom(8)
        #: Questions under way -> shard. Answers of one actor come in the order of the questions.
        asked = {
            shard.ask(token, batch_ms): shard for _ in range(num_async) for shard in self._shards
        }
        while asked:
            [ready], _ = api.wait(list(asked), num_returns=1)
            shard = asked.pop(ready)
            items, more = api.get(ready)
            if more:
                asked[shard.ask(token, batch_ms)] = shard
            yield from items


class LocalIterator(_Transforms):
    """Items in this process. Going on where it was left when it is iterated over again."""

    def __init__(self, make: Callable[[], Iterator[Any]], name: str, *then: Transform) -> None:
        self._make = make
        self._then = then
        self._made: Iterator[Any] | None = None
        self.name = name

    def __iter__(self) -> Iterator[Any]:
        if self._made is None:
            items: Iterable[Any] = self._make()
            for fn in self._then:
                items = fn(items)
            self._made = iter(items)
        return self._made

    def __next__(self) -> Any:
        return next(iter(self))

    def __repr__(self) -> str:
        return f"LocalIterator[{self.name}]"

    def _with(self, fn: Transform, what: str) -> LocalIterator:
        return LocalIterator(self.__iter__, self.name + what, fn)

    def shuffle(self, shuffle_buffer_size: int, seed: int | None = None) -> LocalIterator:
        """Items in an order drawn from a buffer of that size."""
        return self._with(partial(shuffled, shuffle_buffer_size, seed), ".shuffle()")

    def union(self, *others: LocalIterator) -> LocalIterator:
        """Items of all of them, one of each in turn."""
        return LocalIterator(
            partial(_in_turn, (self, *others)), f"LocalUnion[{self}, {', '.join(map(str, others))}]"
        )

    def take(self, n: int) -> list[Any]:
        """The next ``n`` items, or as many as there are."""
        return list(islice(self, n))

    def show(self, n: int = 20) -> None:
        """Print the next items."""
        for item in self.take(n):
            print(item)


def _in_turn(sources: Iterable[Iterable[Any]]) -> Iterator[Any]:
    left = [iter(source) for source in sources]
    while left:
        for source in list(left):
            try:
                item = next(source)
            except StopIteration:
                left.remove(source)
                continue
            yield item
