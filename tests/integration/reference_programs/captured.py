"""References in the closure of a function are pinned until the job ends."""

import gc

import ray

a, b, c = ray.put(1), ray.put(2), ray.put(b"3" * 1_000_000)


@ray.remote
def read_captured():
    first, second, third = ray.get([a, b, c])  # noqa: F821 - the deletion comes later
    return first, second, len(third)


@ray.remote
class Captor:
    def read(self):
        return ray.get(a)  # noqa: F821 - the deletion comes later


assert ray.get(read_captured.remote()) == (1, 2, 1_000_000)
assert ray.get(Captor.remote().read.remote()) == 1

# Whoever captured them keeps them, whatever becomes of the names.
del a, b, c
gc.collect()
for _ in range(5):
    ray.put(b"x" * 1_000_000)
assert ray.get([read_captured.remote() for _ in range(4)]) == [(1, 2, 1_000_000)] * 4
print("captured objects stay")
