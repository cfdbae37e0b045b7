"""Tasks that wait for tasks that wait for tasks, on fewer CPUs than there are waiting."""

import ray


@ray.remote(num_cpus=1)
def fibonacci(n):
    if n < 2:
        return n
    return sum(ray.get([fibonacci.remote(n - 1), fibonacci.remote(n - 2)]))


@ray.remote
def make_refs(count):
    return [ray.put(number) for number in range(count)]


@ray.remote
def read_all(boxed):
    # References in a list arrive as references.
    return sum(ray.get(boxed[0]))


def main():
    ray.init()
    assert ray.get(fibonacci.remote(8)) == 21
    refs = ray.get(make_refs.remote(10))
    assert ray.get(read_all.remote([refs])) == 45
    print("fibonacci(8) = 21")


if __name__ == "__main__":
    main()
