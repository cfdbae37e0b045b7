"""Values on their way through the object store and back."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import math
import pathlib
import uuid

import pytest

pytestmark = pytest.mark.conformance

PLAIN = [
    None,
    True,
    0,
    -1,
    2**200,
    1.5,
    math.inf,
    1 + 2j,
    "",
    "text with ü and \x00",
    "x" * 200_000,
    b"",
    b"\x00\xff",
    b"y" * 2_000_000,
    (),
    (1, (2, (3,))),
    [],
    [1, [2, [3]]],
    {},
    {"a": {"b": {1: None}}},
    {1, 2, 3},
    frozenset({"a"}),
    range(5),
    slice(1, 2, 3),
    Ellipsis,
    NotImplemented,
    int,
    len,
    math.sin,
    datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC),
    datetime.timedelta(days=3),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    pathlib.PurePosixPath("/a/b"),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.Counter("hello"),
    collections.deque([1, 2], maxlen=5),
    collections.defaultdict(list, {"k": [1]}),
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda value: f"{type(value).__name__}")
def test_plain_values_come_back_equal(ray, value):
    @ray.remote
    def echo(given):
        return given

    for got in ray.get([ray.put(value), echo.remote(value), echo.remote(ray.put(value))]):
        assert got == value
        assert type(got) is type(value)


def test_a_recursive_value_comes_back_recursive(ray):
    value = [1]
    value.append(value)
    got = ray.get(ray.put(value))
    assert got[0] == 1
    assert got[1] is got


def test_instances_of_local_classes_come_back(ray):
    class Plain:
        def __init__(self, x):
            self.x = x

        def double(self):
            return 2 * self.x

    @ray.remote
    def double(instance):
        return instance.double(), instance

    doubled, back = ray.get(double.remote(Plain(4)))
    assert (doubled, back.x) == (8, 4)
    assert isinstance(ray.get(ray.put(Plain(1))), Plain)


def test_dataclasses_named_tuples_and_enums_come_back(ray):
    @dataclasses.dataclass(frozen=True)
    class Point:
        x: int
        tags: list[str] = dataclasses.field(default_factory=list)

    Pair = collections.namedtuple("Pair", "left right")  # noqa: PYI024

    class Colour(enum.Enum):
        RED = 1

    @ray.remote
    def echo(*values):
        return values

    point, pair, colour = ray.get(echo.remote(Point(1, ["t"]), Pair(1, 2), Colour.RED))
    assert (point.x, point.tags) == (1, ["t"])
    assert (pair.left, pair.right) == (1, 2)
    assert (colour.name, colour.value) == ("RED", 1)


def test_slots_properties_and_reduce_are_respected(ray):
    class Slotted:
        __slots__ = ("x",)

        def __init__(self, x):
            self.x = x

    class Reduced:
        def __init__(self, x):
            self.x = x

        def __reduce__(self):
            return Reduced, (self.x + 1,)

    class Stateful:
        def __getstate__(self):
            return {"state": "saved"}

        def __setstate__(self, state):
            self.loaded = state["state"]

    assert ray.get(ray.put(Slotted(3))).x == 3
    assert ray.get(ray.put(Reduced(3))).x == 4
    assert ray.get(ray.put(Stateful())).loaded == "saved"


def test_functions_lambdas_partials_and_bound_methods_come_back(ray):
    offset = 10

    def shift(x):
        return x + offset

    class Adder:
        def __init__(self, n):
            self.n = n

        def add(self, x):
            return self.n + x

    @ray.remote
    def apply(function, x):
        return function(x)

    functions = [shift, lambda x: 2 * x, functools.partial(pow, 2), Adder(100).add]
    assert ray.get([apply.remote(f, 3) for f in functions]) == [13, 6, 8, 103]


def test_classes_travel_as_values(ray):
    class Made:
        def hello(self):
            return "hello"

    @ray.remote
    def make(cls):
        return cls().hello()

    assert ray.get(make.remote(Made)) == "hello"


def test_exceptions_are_values_too(ray):
    got = ray.get(ray.put(KeyError("k", 1)))
    assert type(got) is KeyError
    assert got.args == ("k", 1)


def test_remote_functions_and_actor_classes_travel_as_values(ray):
    @ray.remote
    def one():
        return 1

    @ray.remote
    class Actor:
        def two(self):
            return 2

    @ray.remote
    def use(function, actor_class):
        actor = actor_class.remote()
        return ray.get([function.remote(), actor.two.remote()])

    assert ray.get(use.remote(one, Actor), timeout=60) == [1, 2]


DTYPES = ["bool", "int8", "uint16", "int32", "int64", "float32", "float64", "complex128"]


@pytest.mark.parametrize("dtype", [*DTYPES, "U5", "S3", "M8[s]", "m8[ns]"])
@pytest.mark.parametrize("count", [0, 3, 300_000])
def test_arrays_of_every_type_come_back_equal(ray, dtype, count):
    import numpy as np

    array = np.arange(count).astype("int64").astype(dtype)
    got = ray.get(ray.put(array))
    assert got.dtype == array.dtype
    assert np.array_equal(got, array)


def test_arrays_of_every_shape_and_layout_come_back_equal(ray):
    import numpy as np

    base = np.arange(240_000)
    arrays = [
        base.reshape(2, 300, 400),
        np.asfortranarray(base.reshape(300, 800)),
        base.reshape(300, 800).T,
        base[::3],
        base[::-1],
        np.array(5),
        np.zeros((0, 3)),
        np.array([1, "two", None], dtype=object),
        np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        np.ma.masked_array([1, 2, 3], mask=[0, 1, 0]),
    ]
    for array, got in zip(arrays, ray.get([ray.put(a) for a in arrays]), strict=True):
        assert got.shape == array.shape
        assert got.dtype == array.dtype
        assert got.tolist() == array.tolist()


def test_a_big_array_from_the_store_is_read_only_aligned_and_shared(ray):
    import numpy as np

    ref = ray.put(np.arange(500_000))
    first, second = ray.get(ref), ray.get(ref)
    assert not first.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 1
    assert first.ctypes.data % 64 == 0
    assert first.ctypes.data == second.ctypes.data


def test_arrays_inside_values_are_read_in_place_too(ray):
    import numpy as np

    ref = ray.put({"a": np.ones(300_000), "b": [np.zeros(300_000), "text"]})
    got, again = ray.get(ref), ray.get(ref)
    assert got["b"][1] == "text"
    for one, other in ((got["a"], again["a"]), (got["b"][0], again["b"][0])):
        assert not one.flags.writeable
        assert one.ctypes.data == other.ctypes.data
        assert one.ctypes.data % 64 == 0


def test_an_array_lives_though_its_ref_is_gone(ray):
    import numpy as np

    ref = ray.put(np.full(500_000, 7))
    part = ray.get(ref)[1000:2000]
    del ref
    for _ in range(10):
        ray.put(np.zeros(500_000))
    assert (part == 7).all()


def test_buffers_out_of_band_come_back(ray):
    import pickle

    class Buffered:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, protocol):
            return Buffered, (pickle.PickleBuffer(self.data),)

    got = ray.get(ray.put(Buffered(bytearray(b"z" * 500_000))))
    assert bytes(got.data) == b"z" * 500_000


def test_code_of_a_task_may_come_with_a_module_it_uses(ray):
    import json

    @ray.remote
    def dump(value):
        return json.dumps(value, sort_keys=True)

    assert ray.get(dump.remote({"b": 1, "a": 2})) == '{"a": 2, "b": 1}'
