"""Arrays from the object store are read-only: writing to one is an error, and ends this program."""

import numpy as np
import ray


@ray.remote
def zero_first(array):
    array[0] = 0
    return array


print("about to write")
ray.get(zero_first.remote(ray.put(np.ones(100))))
print("not reached")
