"""get of one reference, of several, and with a time limit."""

import time

import ray
from ray.exceptions import GetTimeoutError

assert issubclass(GetTimeoutError, TimeoutError)
assert ray.get(ray.put(1)) == 1
assert ray.get([ray.put(n) for n in range(3)]) == [0, 1, 2]


@ray.remote
def takes_minutes():
    time.sleep(300)


waiting = takes_minutes.remote()
try:
    ray.get(waiting, timeout=0.3)
except GetTimeoutError:
    print("the get gave up")
try:
    ray.get([ray.put(1), waiting], timeout=0.3)
except TimeoutError:
    print("so did the get of a list")
