"""Arrays of every kind: views of the bytes they came from, read-only, aligned, unchanged."""

from __future__ import annotations

import copyreg
import pickle
from typing import Any

import numpy as np
import pytest
from numpy import ma

from mray.serialization.pickler import deserialize, serialize

Array = np.ndarray[Any, Any]
CUBE = np.arange(24).reshape(2, 3, 4)
MASKED = ma.masked_array(np.arange(6.0).reshape(2, 3), mask=[[1, 0, 0], [0, 1, 0]], fill_value=7)
DATES = np.array(["2020-01-01", "NaT"], "M8[ns]")


class Tagged(np.ndarray):
    """A subclass that adds nothing to how it is pickled."""

    made_from: Any = "never finalized"

    def __array_finalize__(self, other: Any) -> None:
        self.made_from = other


class OwnReduce(np.ndarray):
    def __reduce__(self) -> Any:
        return OwnReduce, ((1,),)


class OwnMasked(ma.MaskedArray):  # type: ignore[type-arg]
    pass


EVERY = {
    "plain": CUBE,
    "fortran": np.asfortranarray(CUBE),
    "axes swapped": CUBE.transpose(1, 0, 2),
    "steps": CUBE[:, ::2, ::-1],
    "broadcast": np.broadcast_to(np.arange(3), (4, 3)),
    "no dimension": np.array(7),
    "empty": np.empty((0, 3)),
    "big-endian": np.arange(3, dtype=">i4"),
    "half": np.arange(3, dtype="f2"),
    "text": np.array(["a", "bcd"]),
    "bytes": np.array([b"a", b"bcd"]),
    "void": np.zeros(3, "V5"),
    "dates": DATES,
    "dates in steps": np.arange(10).astype("M8[s]")[::3],
    "dates of fortran order": np.asfortranarray(np.arange(6).astype("M8[D]").reshape(2, 3)),
    "big-endian dates": DATES.astype(">M8[ns]"),
    "durations": np.arange(3).astype("m8[s]"),
    "one date": np.array("2020-01-01", "M8[D]"),
    "no date": np.empty((0, 3), "M8[D]"),
    "structure": np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
    "structure with a date": np.array([(1, "2020-01-01")], [("a", "i4"), ("b", "M8[D]")]),
    "field of a structure": np.zeros(5, [("a", "i4"), ("b", "f8")])["b"],
    "aligned structure": np.zeros(3, np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    "records": np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "matrix": np.arange(4).reshape(2, 2).view(np.matrix),
    "subclass": CUBE.view(Tagged),
    "subclass in steps": CUBE.view(Tagged)[:, ::2],
    "subclass of fortran order": np.asfortranarray(CUBE).view(Tagged),
    "masked": MASKED,
    "masked transposed": MASKED.T,
    "masked in steps": MASKED[:, ::2],
    "masked subclass": MASKED.view(OwnMasked),
    "masked without a mask": ma.masked_array([1, 2]),
    "masked dates": ma.masked_array(DATES, mask=[0, 1]),
}  # fmt: skip


def read(value: Any) -> tuple[Any, Any]:
    """The value, read from aligned memory as a store has it, and the flat bytes of that memory."""
    parts = serialize(value)
    memory = np.zeros(parts.total_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    place = memory[start : start + parts.total_bytes]
    parts.write_into(memoryview(place))
    return deserialize(memoryview(place)), place


def buffers(array: Array) -> list[Array]:
    if isinstance(array, ma.MaskedArray):
        return [array.data, array.mask]
    return [array]


@pytest.mark.parametrize("name", EVERY)
def test_an_array_is_a_read_only_aligned_view(name: str) -> None:
    got, place = read({"inside": [EVERY[name]]})
    for array in buffers(got["inside"][0]):
        assert not array.flags.writeable
        if array.size:
            assert np.shares_memory(array.view(np.ndarray), place)
            assert array.ctypes.data % 64 == 0


@pytest.mark.parametrize("name", EVERY)
def test_an_array_comes_back_as_numpy_itself_would_bring_it(name: str) -> None:
    array = EVERY[name]
    got, expected = read(array)[0], pickle.loads(pickle.dumps(array, 5))
    assert type(got) is type(expected)
    assert got.shape == expected.shape
    assert got.strides == expected.strides
    # numpy brings dates into this machine's byte order; here they keep theirs.
    assert got.dtype == array.dtype
    assert got.tolist() == expected.tolist()
    for one, other in zip(buffers(got), buffers(expected), strict=True):
        assert type(one) is type(other)
        assert one.tobytes() == other.astype(one.dtype).tobytes()


def test_masked_arrays_keep_what_numpy_keeps() -> None:
    got = read(MASKED)[0]
    assert got.fill_value == 7
    assert np.array_equal(got.mask, MASKED.mask)
    assert got._baseclass is np.ndarray
    table = ma.masked_array(np.arange(2).reshape(1, 2).view(np.matrix), mask=[[0, 1]])
    assert type(read(table)[0].data) is np.matrix


def test_a_subclass_is_made_without_its_constructor_and_finalized() -> None:
    assert read(EVERY["subclass"])[0].made_from is None


def test_a_subclass_that_pickles_itself_does_so() -> None:
    got = read(CUBE.view(OwnReduce))[0]
    assert (type(got), got.shape) == (OwnReduce, (1,))


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, "a", 1], dtype=object),
        np.zeros(2, [("a", object)]),
        np.array([], dtype=object),
        np.zeros(3, "S0"),
    ],
    ids=["objects", "structure with objects", "no objects", "no bytes"],
)
def test_arrays_without_memory_of_their_own_come_back_equal(array: Array) -> None:
    got = read(array)[0]
    assert got.dtype == array.dtype
    assert got.tolist() == array.tolist()


def test_one_array_met_twice_stays_one_array() -> None:
    got = read([DATES] * 9 + [DATES[:1]])[0]
    assert all(array is got[0] for array in got[:9])
    assert got[9] is not got[0]


def test_arrays_beside_values_that_only_cloudpickle_can_pickle() -> None:
    got, place = read([DATES, lambda: DATES, CUBE[:, ::2]])
    assert got[1]() is got[0]
    assert np.shares_memory(got[0].view("i8"), place)
    assert np.shares_memory(got[2], place)


def test_dates_written_privately_can_be_changed() -> None:
    parts = serialize(DATES)
    memory = bytearray(parts.to_bytes())
    got = deserialize(memoryview(memory), writable=True)
    got[0] = "1999-01-01"
    assert deserialize(bytes(memory))[0] == np.datetime64("1999-01-01")


def test_a_serializer_that_a_user_registered_comes_first() -> None:
    import mray.util

    mray.util.register_serializer(Tagged, serializer=len, deserializer=range)
    try:
        assert read([CUBE[:, ::2].view(Tagged), DATES])[0][0] == range(2)
    finally:
        mray.util.deregister_serializer(Tagged)


def test_a_copyreg_entry_of_a_subclass_is_respected() -> None:
    copyreg.pickle(Tagged, lambda array: (len, (list(array),)))
    try:
        assert read([EVERY["subclass in steps"], DATES])[0][0] == 2
    finally:
        del copyreg.dispatch_table[Tagged]


def test_numpy_memory_maps_come_back_as_what_numpy_makes_of_them(tmp_path: Any) -> None:
    mapped = np.memmap(tmp_path / "file", "i4", "w+", shape=(6,))
    mapped[:] = range(6)
    got = read(mapped)[0]
    assert got.tolist() == [0, 1, 2, 3, 4, 5]
    assert type(got) is np.memmap
