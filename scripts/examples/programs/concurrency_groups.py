"""One actor, two groups of threads: a health check is answered while all others are busy."""

import threading

import ray


@ray.remote(concurrency_groups={"health": 1, "work": 2})
class Service:
    def __init__(self):
        self.go = threading.Event()
        self.barrier = threading.Barrier(2, timeout=60)

    @ray.method(concurrency_group="health")
    def healthy(self):
        return True

    @ray.method(concurrency_group="work")
    def work(self, number):
        self.barrier.wait()  # Two are here at once.
        assert self.go.wait(60)
        return number * 2

    def release(self):
        self.go.set()


def main():
    ray.init()
    service = Service.remote()
    busy = [service.work.remote(n) for n in range(2)]
    assert ray.get(service.healthy.remote(), timeout=60)
    assert ray.wait(busy, timeout=0)[0] == []
    ray.get(service.release.remote(), timeout=60)
    assert ray.get(busy, timeout=60) == [0, 2]
    there = service.healthy.options(concurrency_group="work").remote()
    assert ray.get(there, timeout=60)
    print("healthy while two were busy")


if __name__ == "__main__":
    main()
