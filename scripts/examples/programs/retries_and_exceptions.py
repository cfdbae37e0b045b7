"""What goes wrong: exceptions by their own type, retries of crashes and of exceptions."""

import os
import tempfile

import ray
from ray.exceptions import GetTimeoutError, RayTaskError, WorkerCrashedError


class NoFunds(Exception):
    def __init__(self, missing):
        super().__init__(f"{missing} missing")
        self.missing = missing


@ray.remote
def pay(balance, price):
    if price > balance:
        raise NoFunds(price - balance)
    return balance - price


@ray.remote
def add(left, right):
    return left + right


def tries(path):
    """Count one try in a file; how many there were."""
    with open(path, "a") as file:
        file.write("x")
    return os.path.getsize(path)


@ray.remote(max_retries=3)
def crashes_twice(path):
    if tries(path) < 3:
        os._exit(1)
    return "at last"


@ray.remote(max_retries=5, retry_exceptions=[ConnectionError])
def connects(path):
    count = tries(path)
    if count < 4:
        raise ConnectionError("not yet")
    return count


@ray.remote(max_retries=0)
def crashes():
    os._exit(1)


@ray.remote
def sleeps_long():
    import time

    time.sleep(600)


def caught(ref, kind):
    try:
        ray.get(ref, timeout=60)
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def main():
    ray.init()
    error = caught(pay.remote(10, 25), NoFunds)
    assert isinstance(error, RayTaskError), "and its own type"
    assert isinstance(error.cause, NoFunds)
    assert error.cause.missing == 15
    # The error of an argument is the error of the task.
    caught(add.remote(pay.remote(1, 2), 3), NoFunds)
    with tempfile.TemporaryDirectory() as folder:
        assert ray.get(crashes_twice.remote(f"{folder}/a")) == "at last"
        assert ray.get(connects.remote(f"{folder}/b")) == 4
    caught(crashes.remote(), WorkerCrashedError)
    long = sleeps_long.remote()
    try:
        ray.get(long, timeout=0.2)
        raise AssertionError("too early")
    except GetTimeoutError:
        ray.cancel(long, force=True)
    print("4 errors as they should be, 5 retries")


if __name__ == "__main__":
    main()
