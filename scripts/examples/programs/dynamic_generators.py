"""A task that finds out while it runs how many results it has."""

import warnings

import numpy as np
import ray


@ray.remote(num_returns="dynamic")
def split(array, size):
    for start in range(0, len(array), size):
        yield array[start : start + size]


@ray.remote
def count_and_add(parts):
    # The generator itself is a value that others can have.
    values = [ray.get(ref) for ref in parts]
    return len(values), int(sum(part.sum() for part in values))


def main():
    warnings.simplefilter("ignore", DeprecationWarning)
    ray.init()
    array = np.arange(10_500)
    parts = split.remote(array, 1000)
    assert ray.get(count_and_add.remote(parts)) == (11, int(array.sum()))
    refs = list(ray.get(parts))
    assert len(refs) == 11
    assert len(ray.get(refs[-1])) == 500
    print("11 parts, known only when they were made")


if __name__ == "__main__":
    main()
