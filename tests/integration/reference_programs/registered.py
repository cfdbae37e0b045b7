"""A serializer registered for somebody else's class, and taken back."""

import threading

import ray


class Guarded:
    def __init__(self, x):
        self.x = x
        self.lock = threading.Lock()


def put_fails():
    try:
        ray.get(ray.put(Guarded(1)))
    except TypeError as error:
        return "lock" in str(error)
    return False


def to_number(guarded):
    return guarded.x


def from_number(number):
    return Guarded(number)


assert put_fails()
ray.util.register_serializer(Guarded, serializer=to_number, deserializer=from_number)
assert ray.get(ray.put(Guarded(1))).x == 1
assert [one.x for one in ray.get(ray.put([Guarded(2), Guarded(3)]))] == [2, 3]


@ray.remote
def read(guarded):
    with guarded.lock:
        return guarded.x


assert ray.get(read.remote(Guarded(4))) == 4

ray.util.register_serializer(Guarded, serializer=to_number, deserializer=from_number)
ray.util.register_serializer(Guarded, serializer=lambda g: -g.x, deserializer=from_number)
assert ray.get(ray.put(Guarded(5))).x == -5, "the newer serializer is used"

ray.util.deregister_serializer(Guarded)
assert put_fails()
ray.util.deregister_serializer(Guarded)  # Nothing happens.
print("registered and taken back")
