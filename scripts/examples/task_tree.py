"""A tree of tasks: each sorts by letting two others sort its halves."""

import random

import ray

LENGTH = 20_000
LEAF_LENGTH = 2_500


@ray.remote
def merge_sort(values):
    """Sort a list. A task that waits for its children gives its CPU to them."""
    if len(values) <= LEAF_LENGTH:
        return sorted(values), 1
    middle = len(values) // 2
    halves = [merge_sort.remote(values[:middle]), merge_sort.remote(values[middle:])]
    (left, left_tasks), (right, right_tasks) = ray.get(halves)
    merged = []
    while left and right:
        merged.append(left.pop() if left[-1] >= right[-1] else right.pop())
    merged.reverse()
    return left + right + merged, 1 + left_tasks + right_tasks


def main():
    ray.init(ignore_reinit_error=True)
    values = random.Random(7).sample(range(10 * LENGTH), LENGTH)
    result, task_count = ray.get(merge_sort.remote(values))
    assert result == sorted(values)
    assert task_count == 15
    print(f"sorted {len(result):,} numbers with a tree of {task_count} tasks")


if __name__ == "__main__":
    main()
