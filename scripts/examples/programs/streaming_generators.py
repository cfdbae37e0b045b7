"""Results one by one: the consumer works while the producer still makes."""

import numpy as np
import ray


@ray.remote
def blocks(count, size):
    for number in range(count):
        yield np.full(size, number, dtype=np.int32)


@ray.remote
def breaks_after(count):
    for number in range(count):
        yield number * number
    raise RuntimeError("no more")


@ray.remote
class Source:
    def numbers(self, count):
        for number in range(count):
            yield number * 10


@ray.remote
def consume(block):
    return int(block.sum())


def main():
    ray.init()
    # References go on to other tasks without being read here.
    sums = ray.get([consume.remote(ref) for ref in blocks.remote(12, 50_000)])
    assert sums == [50_000 * number for number in range(12)]

    stream = breaks_after.remote(3)
    seen = [ray.get(next(stream)) for _ in range(3)]
    assert seen == [0, 1, 4]
    try:
        ray.get(next(stream))
        raise AssertionError("there should be no more")
    except RuntimeError:
        pass

    source = Source.remote()
    stream = source.numbers.options(num_returns="streaming").remote(5)
    assert [ray.get(ref) for ref in stream] == [0, 10, 20, 30, 40]
    print(f"{len(sums)} blocks, then {len(seen)} items before the error")


if __name__ == "__main__":
    main()
