"""A token bucket in an async actor: everybody asks it before going on."""

import asyncio
import time

import ray

RATE, BURST = 100.0, 5


@ray.remote(num_cpus=0)
class Limiter:
    def __init__(self, rate, burst):
        self.rate, self.burst = rate, burst
        self.tokens, self.filled_at = float(burst), time.monotonic()
        self.times = []

    async def take(self):
        while True:
            now = time.monotonic()
            self.tokens = min(self.burst, self.tokens + (now - self.filled_at) * self.rate)
            self.filled_at = now
            if self.tokens >= 1:
                self.tokens -= 1
                self.times.append(now)
                return
            await asyncio.sleep((1 - self.tokens) / self.rate)

    async def report(self):
        return self.times


@ray.remote
def call(limiter, times):
    for _ in range(times):
        ray.get(limiter.take.remote())
    return times


def main():
    ray.init()
    limiter = Limiter.remote(RATE, BURST)
    assert sum(ray.get([call.remote(limiter, 15) for _ in range(4)])) == 60
    times = ray.get(limiter.report.remote())
    took = times[-1] - times[0]
    assert took >= (len(times) - BURST - 1) / RATE, "no faster than allowed"
    print(f"{len(times)} calls, never more than {RATE:.0f}/s after a burst of {BURST}")


if __name__ == "__main__":
    main()
