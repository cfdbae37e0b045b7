"""Values of the store are read-only and shared; private ones can be asked for, page by page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import mray
from mray.units import MIB

pytestmark = pytest.mark.integration

BIG = 64 * MIB
#: What the interpreter may take meanwhile.
SLACK = 4 * MIB


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2, object_store_memory=512 * MIB)
    yield
    mray.shutdown()


def anonymous_bytes() -> int:
    """Memory of this process that no other shares and no file backs."""
    with open("/proc/self/status") as status:
        (line,) = (line for line in status if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


@dataclasses.dataclass
class Holder:
    data: Any


@mray.remote
def write(value: Any, index: int = 0) -> Any:
    value[index] = 1
    return value[index]


@mray.remote(writable_args=["first"])
def write_first(first: Any, second: Any = None, *rest: Any, **named: Any) -> Any:
    first[0] = 7
    others = [second, *rest, *named.values()]
    return first[0], [bool(other.flags.writeable) for other in others if other is not None]


@mray.remote
class Actor:
    def __init__(self, value: Any = None) -> None:
        if value is not None:
            value[0] = 1
        self.value = value

    def first(self) -> Any:
        return self.value[0]

    @mray.method(writable_args=["value"])
    def write(self, value: Any) -> Any:
        value[0] = 8
        return value[0]

    def write_wrongly(self, value: Any) -> None:
        value["array"][0] = 1


@mray.remote
class AsyncActor:
    async def write(self, value: Any) -> Any:
        value[0] = 9
        return value[0]


def sizes() -> list[int]:
    return [3, 300_000]  # beside the message; through the store


@pytest.mark.parametrize("size", sizes())
def test_a_writable_get_changes_a_copy(size: int) -> None:
    ref = mray.put({"a": np.zeros(size), "d": np.zeros(size, "M8[s]"), "raw": b"x"})
    mine = mray.get(ref, writable=True)
    mine["a"][:] = 5
    mine["d"][0] = "2020-01-01"
    theirs, again = mray.get([ref, ref], writable=True)
    assert not theirs["a"].any()
    theirs["a"][0] = 6
    assert not again["a"].any()
    plain = mray.get(ref)
    assert not plain["a"].any()
    assert not plain["a"].flags.writeable


def test_values_without_arrays_and_errors_are_the_same() -> None:
    @mray.remote
    def fail() -> None:
        raise KeyError("k")

    assert mray.get([mray.put(1), mray.put(b"x" * 300_000)], writable=True)[0] == 1
    with pytest.raises(KeyError):
        mray.get(fail.remote(), writable=True)


def test_only_the_pages_written_to_take_memory() -> None:
    ref = mray.put(np.zeros(BIG, np.uint8))
    before = anonymous_bytes()
    mine = mray.get(ref, writable=True)
    assert mine.sum() == 0
    mine[:: BIG // 8] = 1
    assert anonymous_bytes() - before < SLACK
    mine[: BIG // 2] = 2
    grown = anonymous_bytes() - before
    assert BIG // 2 - SLACK < grown < BIG // 2 + SLACK
    assert mray.get(ref).sum() == 0
    del mine
    assert anonymous_bytes() - before < SLACK


def test_a_writable_value_outlives_its_reference() -> None:
    ref = mray.put(np.full(300_000, 3))
    mine = mray.get(ref, writable=True)[10:20]
    del ref
    for _ in range(5):
        mray.put(np.zeros(300_000))
    mine[0] = 4
    assert mine.tolist() == [4] + [3] * 9


@pytest.mark.parametrize("size", sizes())
@pytest.mark.parametrize("by_reference", [False, True])
def test_a_writable_argument_is_private_and_others_stay_read_only(
    size: int, by_reference: bool
) -> None:
    value: Any = np.zeros(size)
    other: Any = np.zeros(size)
    if by_reference:
        value, other = mray.put(value), mray.put(other)
    third = other if by_reference else np.zeros(size)
    expected = (7, [False, False, False])
    assert mray.get(write_first.remote(value, other, other, named=other)) == expected
    assert mray.get(write_first.remote(second=other, first=value)) == (7, [False])
    assert mray.get(write_first.options(writable_args=True).remote(value, other)) == (7, [True])
    assert mray.get(write_first.options(writable_args=["first", "rest"]).remote(
        value, other, third)) == (7, [False, True])  # fmt: skip
    if by_reference:
        assert mray.get(value)[0] == 0
    else:
        # One object given twice stays one object.
        assert mray.get(write_first.remote(value, value)) == (7, [True])
        assert value[0] == 0


def test_arguments_of_methods_and_constructors() -> None:
    ref = mray.put(np.zeros(300_000))
    actor = Actor.options(writable_args=["value"]).remote(ref)
    assert mray.get(actor.first.remote()) == 1
    assert mray.get(actor.write.remote(ref)) == 8
    other = AsyncActor.remote()
    assert mray.get(other.write.options(writable_args=["value"]).remote(ref)) == 9
    assert mray.get(ref)[0] == 0


NOTE = "argument 'value' is read in place from the object store"


@pytest.mark.parametrize("size", sizes())
def test_writing_to_a_read_only_argument_says_which_and_what_to_do(size: int) -> None:
    ref = mray.put(np.zeros(size))
    with pytest.raises(ValueError, match="assignment destination is read-only") as caught:
        mray.get(write.remote(ref))
    assert NOTE in str(caught.value)
    assert "value = value.copy()" in str(caught.value)
    assert "writable_args=('value',)" in str(caught.value)
    (note,) = caught.value.cause.__notes__  # type: ignore[attr-defined]
    assert note.startswith(NOTE)


def test_the_note_comes_for_methods_constructors_containers_and_keywords() -> None:
    ref = mray.put(np.zeros(300_000))
    holder = mray.put({"array": np.zeros(300_000), "object": Holder(np.zeros(3))})
    actor, other = Actor.remote(), AsyncActor.remote()
    calls = [actor.write_wrongly.remote(holder), other.write.remote(ref), write.remote(value=ref)]
    for call in calls:
        with pytest.raises(ValueError, match="read-only") as caught:
            mray.get(call)
        assert NOTE in str(caught.value)
    with pytest.raises(mray.exceptions.ActorDiedError, match=NOTE):
        mray.get(Actor.remote(ref).first.remote())


def test_no_note_where_no_argument_is_read_only() -> None:
    @mray.remote
    def fail(value: Any) -> None:
        array = np.zeros(3)
        array.flags.writeable = False
        array[0] = value

    with pytest.raises(ValueError, match="read-only") as caught:
        mray.get(fail.remote(1))
    assert "object store" not in str(caught.value)
