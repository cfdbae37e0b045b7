"""What cannot be pickled is found and named."""

import threading

from ray.util import inspect_serializability

lock = threading.Lock()


def uses_lock():
    print(lock)


fine, failures = inspect_serializability(uses_lock, name="uses_lock")
assert not fine
(failure,) = failures
assert failure.name == "lock"
assert failure.obj is lock
assert failure.parent is uses_lock
fine, failures = inspect_serializability(lambda: 1, name="harmless")
assert fine
assert not failures
