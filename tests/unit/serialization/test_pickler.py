"""Round trips of values, zero-copy buffers, and references found on the way."""

from __future__ import annotations

import collections
import dataclasses
import enum
import pickle
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mray.serialization.context import collector
from mray.serialization.envelope import NONE
from mray.serialization.pickler import EnvelopeError, Serialized, deserialize, pack, serialize

# The same cases every time, and no limit on the time of one.
steady = settings(deadline=None, derandomize=True)


def round_trip(value: Any) -> Any:
    packed = pack(value)
    data = packed if isinstance(packed, bytes) else packed.to_bytes()
    assert len(data) == len(packed)
    return deserialize(data)


class Ref:
    """Stands for an ObjectRef: reports to the collector as that does."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> Any:
        if collector.refs is None:
            raise RuntimeError("pickled out of band")
        collector.refs.append(self)
        return Ref, (self.number,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


class Colour(enum.Enum):
    RED = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class Node:
    name: str
    children: list[Node] = dataclasses.field(default_factory=list)


class Tagged(np.ndarray):
    """A subclass of ndarray with an attribute that pickling drops, as numpy's rule is."""


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary() | st.complex_numbers(allow_nan=False)
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.frozensets(scalars, max_size=4)
    ),
    max_leaves=20,
)


@steady
@given(values)
def test_builtin_values_round_trip(value: Any) -> None:
    back = round_trip(value)
    assert back == value
    assert type(back) is type(value)


@steady
@given(values)
def test_writing_into_memory_gives_the_same_bytes_as_to_bytes(value: Any) -> None:
    parts = serialize([value, np.arange(5), b"x" * 300])
    memory = bytearray(b"\xaa" * (parts.total_bytes + 10))
    parts.write_into(memoryview(memory))
    assert memory[: parts.total_bytes] == parts.to_bytes()
    assert memory[parts.total_bytes :] == b"\xaa" * 10


@steady
@given(
    hnp.arrays(
        dtype=hnp.scalar_dtypes() | hnp.unicode_string_dtypes() | hnp.byte_string_dtypes(),
        shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    )
)
def test_arrays_of_every_dtype_and_shape_round_trip(array: np.ndarray[Any, Any]) -> None:
    back = round_trip(array)
    # What numpy pickles without buffers (dates) it brings into this machine's byte order.
    assert back.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    assert back.shape == array.shape
    assert back.astype(array.dtype).tobytes() == array.tobytes()
    if array.dtype.kind not in "mM":  # numpy exports no buffer of dates: they are copied
        assert not back.flags.writeable


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, -(2**80), 1.5, "ü", b"", b"ok", bytearray(b"abc"), (), (1, (2, 3)), [], {},
        {1: [2, {3}]}, ((1, "a"), {"k": None}), range(5), slice(1, 2), Ellipsis, Colour.RED,
        Point(1, 2), Node("a", [Node("b")]), collections.OrderedDict(a=1),
        collections.defaultdict(list, {1: [2]}), collections.deque([1], maxlen=3),
        ("x" * 100,) * 20, tuple(range(50)), ValueError("boom"), b"x" * 10_000, "__main__",
    ],
    ids=lambda value: repr(value)[:30],
)  # fmt: skip
def test_values_of_python_round_trip(value: Any) -> None:
    back = round_trip(value)
    assert type(back) is type(value)
    if isinstance(value, Exception):
        assert back.args == value.args
    else:
        assert back == value


def test_recursive_values_keep_their_shape() -> None:
    loop: list[Any] = []
    loop.append(loop)
    back = round_trip(loop)
    assert back[0] is back
    node = Node("a")
    node.children.append(node)
    back = round_trip(node)
    assert back.children[0] is back


def test_one_object_met_twice_stays_one_object() -> None:
    back = round_trip([np.zeros(42)] * 99)
    assert all(item is back[0] for item in back)


def test_a_million_levels_are_an_error_and_no_crash() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises((pickle.PicklingError, RecursionError)):
        pack(deep)


# ------------------------------------------------------------------------------ functions, classes


def test_lambdas_nested_and_recursive_functions_round_trip() -> None:
    base = 10

    def factorial(n: int) -> int:
        return 1 if n == 0 else n * factorial(n - 1)

    double, nested, rec = round_trip((lambda x: 2 * x, lambda x: base + x, factorial))
    assert (double(3), nested(1), rec(5)) == (6, 11, 120)


def test_local_classes_and_their_instances_round_trip() -> None:
    class Local:
        def __init__(self, x: int) -> None:
            self.x = x

        def get(self) -> int:
            return self.x

    back = round_trip(Local(3))
    assert back.get() == 3
    assert type(back).__name__ == "Local"
    assert round_trip(Local)(4).get() == 4


def test_values_of_the_main_script_load_in_another_process(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import dataclasses, sys\n"
        "from mray.serialization.pickler import serialize\n"
        "@dataclasses.dataclass\n"
        "class Row:\n"
        "    x: int\n"
        "def helper(row): return row.x + OFFSET\n"
        "OFFSET = 100\n"
        "sys.stdout.buffer.write(serialize([Row(7), helper]).to_bytes())\n"
    )
    out = subprocess.run([sys.executable, str(script)], capture_output=True, check=True)
    row, helper = deserialize(out.stdout)
    assert type(row).__name__ == "Row"
    assert helper(row) == 107


# ---------------------------------------------------------------------------------------- buffers


def test_arrays_are_views_over_the_bytes_they_came_from() -> None:
    array = np.arange(1000)
    data = serialize({"a": array}).to_bytes()
    back = deserialize(data)["a"]
    low = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    assert low <= back.__array_interface__["data"][0] < low + len(data)
    with pytest.raises(ValueError, match="read-only"):
        back[0] = 1


def test_arrays_start_at_aligned_addresses_of_an_aligned_place() -> None:
    memory = np.zeros(4096, np.uint8)
    start = -memory.__array_interface__["data"][0] % 64
    parts = serialize([np.arange(3, dtype=np.uint8), np.arange(5.0), np.arange(7)])
    view = memoryview(memory)[start : start + parts.total_bytes]
    parts.write_into(view)
    for array in deserialize(view):
        assert array.__array_interface__["data"][0] % 64 == 0
        assert array.flags.aligned


def test_views_of_writable_memory_are_read_only_unless_asked_for() -> None:
    parts = serialize(np.zeros(4))
    memory = bytearray(parts.total_bytes)
    parts.write_into(memoryview(memory))
    assert not deserialize(memoryview(memory)).flags.writeable
    private = deserialize(memoryview(memory), writable=True)
    private[0] = 5
    assert deserialize(memoryview(memory))[0] == 5


def test_the_exporter_lives_until_the_last_buffer_dies() -> None:
    class Exporter(bytearray):
        pass

    parts = serialize([np.arange(3), np.arange(4)])
    memory = Exporter(parts.total_bytes)
    parts.write_into(memoryview(memory))
    alive = weakref.ref(memory)
    first, second = deserialize(memoryview(memory))
    del memory, first
    assert alive() is not None
    tail = second[2:]
    del second
    assert alive() is not None
    del tail
    assert alive() is None


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(2, 3, 4)[:, ::2, ::-1],
        np.asfortranarray(np.arange(12).reshape(3, 4)),
        np.arange(12).reshape(3, 4).T,
        np.array(7),
        np.empty((0, 3)),
        np.array([1, "a", None], dtype=object),
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
        np.array(["2020-01-01"], dtype="datetime64[ns]"),
        np.array([5], dtype="timedelta64[s]"),
        np.arange(3, dtype=">i4"),
        np.ma.masked_array([1, 2], mask=[True, False]),
        np.broadcast_to(np.arange(3), (4, 3)),
    ],
    ids=lambda array: f"{type(array).__name__}-{array.dtype}-{array.shape}",
)
def test_unusual_arrays_round_trip(array: np.ndarray[Any, Any]) -> None:
    back = round_trip(array)
    assert type(back) is type(array)
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        assert back.flags.f_contiguous


def test_array_subclasses_and_numpy_scalars_round_trip() -> None:
    back = round_trip(np.arange(3).view(Tagged))
    assert type(back) is Tagged
    assert list(back) == [0, 1, 2]
    assert round_trip(np.float32(1.5)) == np.float32(1.5)
    assert round_trip(np.dtype("f4")) == np.dtype("f4")


def test_pickle_buffers_come_out_as_read_only_views() -> None:
    (back,) = round_trip((pickle.PickleBuffer(bytearray(b"abc")),))
    assert bytes(back) == b"abc"
    assert memoryview(back).readonly


def test_the_copy_function_moves_all_payload() -> None:
    moved = []

    def copy(target: memoryview, source: memoryview) -> None:
        moved.append(len(source))
        target[:] = source

    parts = serialize([np.zeros(1000), np.zeros(500), np.zeros(0)])
    memory = memoryview(bytearray(parts.total_bytes))
    parts.write_into(memory, copy)
    assert moved == [len(parts.inband), 8000, 4000]
    assert len(deserialize(memory)[1]) == 500


def test_a_view_that_is_too_short_is_refused() -> None:
    parts = serialize(np.zeros(10))
    with pytest.raises(ValueError, match="does not fit"):
        parts.write_into(memoryview(bytearray(parts.total_bytes - 1)))


def test_long_bytes_are_not_copied_before_they_are_written() -> None:
    value = b"x" * 1_000_000
    parts = pack(value)
    assert isinstance(parts, Serialized)
    assert parts.inband is value
    assert deserialize(parts.to_bytes()) == value
    assert deserialize(memoryview(parts.to_bytes())) == value


# ------------------------------------------------------------------------------------- references


def test_references_inside_a_value_are_listed() -> None:
    one, two = Ref(1), Ref(2)
    packed = pack({"a": [one, np.arange(3)], "b": (two, one)})
    assert isinstance(packed, Serialized)
    assert packed.refs == [one, two]
    alone = pack(one)
    assert isinstance(alone, Serialized)
    assert alone.refs == [one]
    assert alone.buffers == ()
    assert deserialize(alone.to_bytes()) == one


@steady
@given(
    st.recursive(
        st.integers(0, 9).map(Ref) | st.integers() | st.just(np.zeros(2)),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.tuples(inner, inner)
            | st.dictionaries(st.text(), inner, max_size=3)
        ),
        max_leaves=12,
    )
)
def test_all_references_are_found_wherever_they_are(value: Any) -> None:
    def leaves(part: Any) -> list[Any]:
        if isinstance(part, dict):
            return leaves(list(part.values()))
        if isinstance(part, (list, tuple)):
            return [leaf for item in part for leaf in leaves(item)]
        return [part] if isinstance(part, Ref) else []

    assert set(serialize(value).refs) == set(leaves(value))


def test_references_are_listed_once_when_cloudpickle_has_to_start_over() -> None:
    one = Ref(1)
    packed = pack([one, lambda: one])
    assert isinstance(packed, Serialized)
    assert packed.refs == [one]


def test_a_value_serialized_while_another_is_keeps_its_references_to_itself() -> None:
    inner_refs: list[Any] = []

    class Putting:
        def __reduce__(self) -> Any:
            inner = pack(Ref(1))
            assert isinstance(inner, Serialized)
            inner_refs.extend(inner.refs)
            return int, (5,)

    packed = pack([Putting(), Ref(2)])
    assert isinstance(packed, Serialized)
    assert inner_refs == [Ref(1)]
    assert packed.refs == [Ref(2)]
    assert collector.refs is None


def test_collecting_ends_when_pickling_fails() -> None:
    with pytest.raises(TypeError):
        pack([Ref(1), threading.Lock()])
    assert collector.refs is None


def test_each_thread_collects_for_itself() -> None:
    seen = []

    class Spying:
        def __reduce__(self) -> Any:
            thread = threading.Thread(target=lambda: seen.append(collector.refs))
            thread.start()
            thread.join()
            return int, ()

    pack(Spying())
    assert seen == [None]


# ------------------------------------------------------------------------------- results of pack


def test_simple_values_are_finished_bytes() -> None:
    for value in (None, 1, "a", b"ok", (1, "a"), ((1, 2), {"k": 1}), [1], {"a": {1}}):
        assert isinstance(pack(value), bytes)
    assert pack(None) is NONE


def test_serialize_always_gives_parts() -> None:
    for value in (None, b"ok", b"x" * 5000, (1,), [np.zeros(3)], Ref(1)):
        parts = serialize(value)
        assert isinstance(parts, Serialized)
        assert parts.total_bytes == len(parts) == len(parts.to_bytes())


@pytest.mark.parametrize("junk", [b"", b"B", b"B\x02x", b"E\x09", b"V\x01", b"zz", b"\x00" * 64])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(EnvelopeError):
        deserialize(junk)
