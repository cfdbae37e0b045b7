"""A copy of a read-only array may be written to, and one array stays one in a value."""

import numpy as np
import ray


@ray.remote
def zero_first(array):
    assert not array.flags.writeable
    array = array.copy()
    array[0] = 0
    return array


for size in (100, 1_000_000):
    original = ray.put(np.ones(size))
    changed = ray.get(zero_first.remote(original))
    assert changed[0] == 0
    assert changed[1:].all()
    assert ray.get(original).all(), "the stored one is as before"

many = ray.get(ray.put([np.zeros(42)] * 99))
assert len(many) == 99
assert all(one is many[0] for one in many), "one copy, however often it is referred to"
print("copies are written to")
