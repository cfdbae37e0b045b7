"""Functions made by functions, captured values and references, and a parallel quicksort."""

import functools

import numpy as np
import ray


def scaled_by(factor):
    offset = ray.put(1000)

    @ray.remote
    def scale(value):
        # Both are captured: the number by value, the object by reference.
        return value * factor + ray.get(offset)

    return scale


@ray.remote
def quicksort(numbers, limit=2000):
    if len(numbers) <= limit:
        return np.sort(numbers)
    pivot = numbers[len(numbers) // 2]
    left = quicksort.remote(numbers[numbers < pivot], limit)
    right = quicksort.remote(numbers[numbers > pivot], limit)
    return np.concatenate([ray.get(left), numbers[numbers == pivot], ray.get(right)])


@ray.remote
def call(function, value):
    return function(value)


def main():
    ray.init()
    double, triple = scaled_by(2), scaled_by(3)
    assert ray.get([double.remote(5), triple.remote(5)]) == [1010, 1015]

    numbers = np.random.default_rng(8).permutation(9000)
    np.testing.assert_array_equal(ray.get(quicksort.remote(numbers)), np.arange(9000))

    assert ray.get(call.remote(functools.partial(pow, 2), 10)) == 1024
    assert ray.get(call.remote(lambda value: [value] * 3, "x")) == ["x", "x", "x"]

    class Local:
        def __init__(self, name):
            self.name = name

        def greet(self, word):
            return f"{word}, {self.name}"

    assert ray.get(call.remote(Local("ada").greet, "hello")) == "hello, ada"
    print("closures, partials, methods of local classes; 9,000 numbers sorted")


if __name__ == "__main__":
    main()
