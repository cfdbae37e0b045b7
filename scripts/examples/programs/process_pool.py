"""multiprocessing.Pool's interface, on a cluster."""

import math
import os

import ray
from ray.util.multiprocessing import Pool, TimeoutError


def set_up(value):
    os.environ["POOL_VALUE"] = value


def value_and_square(number):
    return os.environ["POOL_VALUE"], number * number


def fails(number):
    raise ArithmeticError(number)


def sleeps(seconds):
    import time

    time.sleep(seconds)


def main():
    ray.init()
    with Pool(2, initializer=set_up, initargs=("set",)) as pool:
        assert pool.map(value_and_square, range(20)) == [("set", n * n) for n in range(20)]
        assert pool.starmap(math.pow, [(2, 3), (3, 2)]) == [8.0, 9.0]
        assert pool.apply(math.gcd, (84, 36)) == 12
        lazy = pool.imap(value_and_square, range(6), chunksize=2)
        assert [square for _, square in lazy] == [0, 1, 4, 9, 16, 25]
        unordered = pool.imap_unordered(math.factorial, range(6))
        assert sorted(unordered) == [1, 1, 2, 6, 24, 120]
        result = pool.map_async(math.sqrt, [4, 9])
        assert result.get(timeout=60) == [2.0, 3.0]
        assert result.successful()
        try:
            pool.map(fails, [1])
            raise AssertionError("it should fail")
        except ArithmeticError:
            pass
        try:
            pool.apply_async(sleeps, (3,)).get(timeout=0.05)
            raise AssertionError("it should be late")
        except TimeoutError:
            pass
        pool.close()
        pool.join()
    print("map, starmap, apply, imap and their async kin")


if __name__ == "__main__":
    main()
