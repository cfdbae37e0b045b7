"""A counter in several actors, so that no single one is the bottleneck."""

import collections
import zlib

import ray


@ray.remote
class Shard:
    def __init__(self):
        self.counts = collections.Counter()

    def add(self, words):
        self.counts.update(words)

    def read(self):
        return self.counts


class ShardedCounter:
    """Knows which shard has which word. It travels: handles can be pickled."""

    def __init__(self, size):
        self.shards = [Shard.options(num_cpus=0).remote() for _ in range(size)]

    def add(self, words):
        parts = collections.defaultdict(list)
        for word in words:
            parts[zlib.crc32(word.encode()) % len(self.shards)].append(word)
        ray.get([self.shards[number].add.remote(part) for number, part in parts.items()])

    def total(self):
        return sum(ray.get([shard.read.remote() for shard in self.shards]), collections.Counter())


@ray.remote
def count(counter, words):
    for start in range(0, len(words), 50):
        counter.add(words[start : start + 50])


def main():
    ray.init()
    counter = ShardedCounter(3)
    words = [f"word{n * n % 23}" for n in range(600)]
    ray.get([count.remote(counter, words[part::4]) for part in range(4)])
    total = counter.total()
    assert total == collections.Counter(words)
    print(f"{total.total()} words in {len(counter.shards)} shards")


if __name__ == "__main__":
    main()
