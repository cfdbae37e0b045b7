"""Map, shuffle and reduce: how often each remainder occurs among square numbers."""

import collections
import itertools

import ray

MAPPERS, REDUCERS, BASE = 6, 3, 17


@ray.remote(num_returns=REDUCERS)
def map_part(start, stop):
    parts = [collections.Counter() for _ in range(REDUCERS)]
    for number in range(start, stop):
        remainder = number * number % BASE
        parts[remainder % REDUCERS][remainder] += 1
    return parts


@ray.remote
def reduce_part(*counters):
    return sum(counters, collections.Counter())


def main():
    ray.init()
    edges = [20_000 * step // MAPPERS for step in range(MAPPERS + 1)]
    mapped = [map_part.remote(*pair) for pair in itertools.pairwise(edges)]
    reduced = ray.get([reduce_part.remote(*column) for column in zip(*mapped, strict=True)])
    total = sum(reduced, collections.Counter())
    assert total == collections.Counter(n * n % BASE for n in range(20_000))
    print(f"{total.total():,} numbers, {len(total)} remainders")


if __name__ == "__main__":
    main()
