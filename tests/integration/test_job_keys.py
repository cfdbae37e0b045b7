"""What jobs leave in the head's key-value table: nothing, once nothing of them lives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

import mray
from mray import current
from mray.job_keys import OF_JOBS
from mray.wire.messages import KvKeyList, KvKeys

pytestmark = pytest.mark.integration

DRIVER = """
import mray
from mray.util import register_serializer

mray.init("{address}", log_to_driver=False)

class Opaque:
    def __reduce__(self):
        raise TypeError

register_serializer(Opaque, serializer=str, deserializer=str, scope="job")

@mray.remote
def double(number):
    return 2 * number

@mray.remote(max_restarts=1)
class Counter:
    def __init__(self):
        self.count = 0

    def add(self, number):
        self.count += mray.get(double.remote(number))
        return self.count

assert mray.get(double.remote(2)) == 4
{more}
"""
DETACHED = """
counter = Counter.options(name="counter", namespace="n", lifetime="detached").remote()
assert mray.get(counter.add.remote(1)) == 2
"""


@pytest.fixture(autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


def drive(more: str = "") -> None:
    """Another driver, from its beginning to its end."""
    address = mray.get_runtime_context().gcs_address
    code = DRIVER.format(address=address, more=more)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def keys() -> list[int]:
    """How many keys jobs have in each namespace."""
    rt = current.get()
    return [
        len(rt.ask(rt.head, lambda rid, name=name: KvKeys(rid, name, b""), KvKeyList).keys)  # type: ignore[misc]
        for name in OF_JOBS
    ]


def test_what_a_job_exported_goes_with_it_and_ours_stays() -> None:
    @mray.remote
    def ours() -> int:
        return 1

    assert mray.get(ours.remote()) == 1
    before = keys()
    for _ in range(2):
        drive()
    assert keys() == before == [1, 0]
    assert mray.get([ours.remote() for _ in range(10)]) == [1] * 10


def test_a_detached_actor_keeps_what_its_job_exported() -> None:
    drive(DETACHED)
    held = keys()
    assert held[0] >= 2  # The class, and the function that it calls.
    assert held[1] == 1
    counter = mray.get_actor("counter", namespace="n")
    mray.kill(counter, no_restart=False)
    assert mray.get(counter.add.options(max_task_retries=-1).remote(2), timeout=60) == 4
    mray.kill(counter)
    assert keys() == [0, 0]
