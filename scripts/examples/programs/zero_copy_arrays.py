"""One array, many readers: nobody has a copy of it, nobody can write to it."""

import numpy as np
import ray


@ray.remote
def look(array, row):
    try:
        array[0, 0] = 1.0
        raise AssertionError("it can be written to")
    except ValueError:
        pass
    assert not array.flags.writeable
    assert not array.flags.owndata
    return float(array[row].sum())


@ray.remote
class Keeper:
    """Holds a part of it beyond the call."""

    def __init__(self, boxed):
        self.slice = ray.get(boxed[0])[10:20]

    def total(self):
        return float(self.slice.sum())


def main():
    ray.init()
    array = np.random.default_rng(4).normal(size=(100, 20_000))
    ref = ray.put(array)
    sums = ray.get([look.remote(ref, row) for row in range(0, 100, 10)])
    np.testing.assert_allclose(sums, array[::10].sum(axis=1))
    keeper = Keeper.remote([ref])
    expected = float(array[10:20].sum())
    first, second = ray.get(ref), ray.get(ref)
    assert np.shares_memory(first, second) or np.array_equal(first, second)
    del ref, first, second
    np.testing.assert_allclose(ray.get(keeper.total.remote()), expected)
    print(f"{array.nbytes / 2**20:.0f} MiB read by {len(sums)} tasks and an actor")


if __name__ == "__main__":
    main()
