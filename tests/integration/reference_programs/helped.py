"""A helper that pickles one object; the class itself stays as it is."""

import threading

import ray


class Guarded:
    def __init__(self, x):
        self.x = x
        self.lock = threading.Lock()


class Helper:
    def __init__(self, guarded):
        self.guarded = guarded

    def __reduce__(self):
        return Guarded, (self.guarded.x,)


def put_fails():
    try:
        ray.put(Guarded(1))
    except TypeError:
        return True
    return False


assert put_fails()
back = ray.get(ray.put(Helper(Guarded(6))))
assert type(back) is Guarded
assert back.x == 6
assert put_fails(), "the helper is for one object, not for its class"
print("helped")
