"""A pipeline of three stages with at most so much under way: wait() is the brake."""

import ray

LIMIT = 8


@ray.remote
class Gauge:
    """Counts what is under way."""

    def __init__(self):
        self.now = self.most = 0

    def enter(self):
        self.now += 1
        self.most = max(self.most, self.now)

    def leave(self):
        self.now -= 1

    def peak(self):
        return self.most


@ray.remote
def load(gauge, number):
    ray.get(gauge.enter.remote())
    return list(range(number, number + 100))


@ray.remote
def transform(values):
    return [value * 3 for value in values]


@ray.remote
def store(gauge, values):
    ray.get(gauge.leave.remote())
    return sum(values)


def main():
    ray.init()
    gauge = Gauge.remote()
    total, under_way = 0, []
    for number in range(60):
        if len(under_way) == LIMIT:
            [done], under_way = ray.wait(under_way, num_returns=1)
            total += ray.get(done)
        under_way.append(store.remote(gauge, transform.remote(load.remote(gauge, number))))
    total += sum(ray.get(under_way))
    assert total == sum(3 * (n + i) for n in range(60) for i in range(100))
    peak = ray.get(gauge.peak.remote())
    assert 1 <= peak <= LIMIT
    print(f"sum {total:,}, at most {LIMIT} under way")


if __name__ == "__main__":
    main()
