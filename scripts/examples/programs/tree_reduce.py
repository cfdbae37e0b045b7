"""Add numbers in a tree: results feed tasks without coming home, whichever is there first."""

import ray


@ray.remote
def square(number):
    return number * number


@ray.remote
def add(left, right):
    return left + right


def main():
    ray.init()
    waiting = [square.remote(n) for n in range(200)]
    depth_first = list(waiting)
    while len(depth_first) > 1:
        depth_first.append(add.remote(depth_first.pop(0), depth_first.pop(0)))

    while len(waiting) > 1:
        ready, waiting = ray.wait(waiting, num_returns=2)
        waiting.append(add.remote(*ready))

    expected = sum(n * n for n in range(200))
    assert ray.get(depth_first[0]) == ray.get(waiting[0]) == expected
    print(f"both trees give {expected:,}")


if __name__ == "__main__":
    main()
