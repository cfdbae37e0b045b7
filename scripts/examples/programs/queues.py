"""Producers and consumers around a bounded queue."""

import ray
from ray.util.queue import Empty, Full, Queue

ITEMS = 40


@ray.remote
def produce(queue, start):
    for number in range(start, start + ITEMS):
        queue.put(number)
    return ITEMS


@ray.remote
def consume(queue):
    seen = []
    while True:
        item = queue.get(timeout=60)
        if item is None:
            return seen
        seen.append(item)


def main():
    ray.init()
    # Its two consumers wait in a call of the queue's actor, which takes no CPU.
    queue = Queue(maxsize=10, actor_options={"num_cpus": 0})
    consumers = [consume.options(num_cpus=0.5).remote(queue) for _ in range(2)]
    producers = [produce.options(num_cpus=0.5).remote(queue, start) for start in (0, 1000)]
    assert ray.get(producers) == [ITEMS, ITEMS]
    for _ in consumers:
        queue.put(None)
    seen = ray.get(consumers)
    assert sorted(seen[0] + seen[1]) == [*range(ITEMS), *range(1000, 1000 + ITEMS)]

    assert queue.empty()
    queue.put_nowait_batch(list(range(10)))
    assert queue.full()
    assert queue.qsize() == 10
    try:
        queue.put_nowait("one too many")
        raise AssertionError("it was full")
    except Full:
        pass
    assert queue.get_nowait_batch(10) == list(range(10))
    try:
        queue.get(timeout=0.05)
        raise AssertionError("it was empty")
    except Empty:
        pass
    queue.shutdown()
    print(f"{2 * ITEMS} items through a queue of 10")


if __name__ == "__main__":
    main()
