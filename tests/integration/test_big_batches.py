"""More than one message carries: what waited together arrives, and what never can says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mray
from mray.exceptions import RaySystemError
from mray.runtime import batches

pytestmark = pytest.mark.integration

VALUE = bytes(90_000)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_BYTES", 200_000)
        patch.setattr(batches, "CALL_BYTES_MAX", 1_000_000)
        mray.init(num_cpus=1)
        yield
        mray.shutdown()


@mray.remote
def sizes(*values: bytes) -> int:
    return sum(map(len, values))


@mray.remote(num_cpus=0)
class Adder:
    def __init__(self) -> None:
        self.calls = 0

    def sizes(self, *values: bytes) -> tuple[int, int]:
        self.calls += 1
        return self.calls, sum(map(len, values))


def test_calls_that_waited_for_an_actor_arrive_in_order_in_several_messages() -> None:
    adder = Adder.remote()
    refs = [adder.sizes.remote(VALUE, VALUE[:number]) for number in range(50)]
    assert mray.get(refs, timeout=60) == [(n + 1, len(VALUE) + n) for n in range(50)]


def test_a_call_too_big_for_any_message_fails_and_the_next_ones_run() -> None:
    ref = mray.put(VALUE)
    adder = Adder.remote()
    mray.get(adder.__ray_ready__.remote())
    with pytest.raises(RaySystemError, match=r"sizes: the arguments are .* together"):
        mray.get(sizes.remote(*[ref] * 20), timeout=60)
    with pytest.raises(RaySystemError, match=r"sizes: the arguments are .* together"):
        mray.get(adder.sizes.remote(*[ref] * 20), timeout=60)
    assert mray.get(sizes.remote(*[ref] * 5), timeout=60) == 5 * len(VALUE)
    assert mray.get(adder.sizes.remote(*[ref] * 5), timeout=60) == (1, 5 * len(VALUE))
