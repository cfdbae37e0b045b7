"""Actors: state between calls, calls in order, handles in tasks, names, errors, an end."""

import ray

TASK_COUNT = 4
CALLS_PER_TASK = 25


@ray.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, amount=1):
        if amount < 0:
            raise ValueError("this counter only counts up")
        self.value += amount
        return self.value


@ray.remote
def count(counter, times):
    return ray.get([counter.add.remote() for _ in range(times)])


def main():
    ray.init(ignore_reinit_error=True)
    counter = Counter.options(name="counter").remote(start=100)

    # Calls of one caller run in the order they were made.
    assert ray.get([counter.add.remote() for _ in range(5)]) == [101, 102, 103, 104, 105]

    # Tasks share the actor through its handle; every call is counted once.
    seen = ray.get([count.remote(counter, CALLS_PER_TASK) for _ in range(TASK_COUNT)])
    assert all(values == sorted(values) for values in seen)
    calls = TASK_COUNT * CALLS_PER_TASK
    assert sorted(value for values in seen for value in values) == list(range(106, 106 + calls))

    # An error is an error of the call, not the end of the actor.
    try:
        ray.get(counter.add.remote(-1))
    except ValueError as error:
        refusal = str(error)
    else:
        raise AssertionError("counted down")
    assert "only counts up" in refusal
    total = ray.get(ray.get_actor("counter").add.remote(0))
    assert total == 105 + calls

    # kill() asks and does not wait: calls may be answered until the actor is gone.
    ray.kill(counter)
    try:
        while True:
            ray.get(counter.add.remote(0))
    except ray.exceptions.RayActorError:
        print(f"counted to {total} from {TASK_COUNT} tasks; the counter is gone now")


if __name__ == "__main__":
    main()
