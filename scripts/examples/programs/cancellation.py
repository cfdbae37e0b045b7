"""Cancel what waits, what runs, and what others wait for."""

import time

import ray
from ray.exceptions import RayError, TaskCancelledError


@ray.remote
class Switch:
    def __init__(self):
        self.on = set()

    def set(self, name):
        self.on.add(name)

    def is_set(self, name):
        return name in self.on


@ray.remote
def runs(switch, name):
    ray.get(switch.set.remote(name))
    while True:
        time.sleep(0.01)


@ray.remote
def after(value):
    return value


@ray.remote(num_cpus=1000)
def never_fits():
    return None


@ray.remote
class Async:
    async def forever(self, switch, name):
        import asyncio

        await switch.set.remote(name)
        await asyncio.sleep(3600)


def wait_for(switch, name):
    give_up_at = time.monotonic() + 60
    while not ray.get(switch.is_set.remote(name)):
        assert time.monotonic() < give_up_at, f"{name} never began"
        time.sleep(0.01)


def cancelled(ref):
    try:
        ray.get(ref, timeout=60)
    except TaskCancelledError:
        return True
    except RayError as error:
        # What waited for a cancelled task fails with its error.
        return isinstance(getattr(error, "cause", None), TaskCancelledError)
    return False


def main():
    ray.init()
    switch = Switch.remote()

    running = runs.remote(switch, "task")
    dependent = after.remote(running)
    wait_for(switch, "task")
    ray.cancel(running)
    assert cancelled(running)
    assert cancelled(dependent)

    queued = never_fits.remote()
    ray.cancel(queued)
    assert cancelled(queued)

    actor = Async.remote()
    call = actor.forever.remote(switch, "call")
    wait_for(switch, "call")
    ray.cancel(call)
    assert cancelled(call)

    forced = runs.remote(switch, "forced")
    wait_for(switch, "forced")
    ray.cancel(forced, force=True)
    try:
        ray.get(forced, timeout=60)
        raise AssertionError("it should not end")
    except RayError:
        pass
    print("cancelled: running, dependent, queued, async call, by force")


if __name__ == "__main__":
    main()
