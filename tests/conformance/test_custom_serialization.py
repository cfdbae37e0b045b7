"""Serialization that users shape: read-only arguments, their own reducers and serializers, and
finding out what is in the way."""

from __future__ import annotations

import io
import re
import threading

import pytest

pytestmark = pytest.mark.conformance


def make_locked():
    """A class whose instances hold what nobody can pickle."""

    class Locked:
        def __init__(self, x):
            self.x = x
            self.lock = threading.Lock()

    return Locked


def test_an_array_listed_many_times_comes_back_as_one(ray):
    import numpy as np

    for count in (42, 42_000):
        back = ray.get(ray.put([np.zeros(count)] * 99))
        assert all(item is back[0] for item in back)


def test_an_array_argument_can_be_changed_only_as_a_copy(ray):
    import numpy as np

    @ray.remote
    def change(array):
        array[0] = 1
        return array[0]

    @ray.remote
    def change_copy(array):
        array = array.copy()
        array[0] = 1
        return array[0]

    for array in (np.zeros(100), np.zeros(200_000)):
        ref = ray.put(array)
        for argument in (array, ref):
            with pytest.raises(ValueError, match="read-only"):
                ray.get(change.remote(argument))
            assert ray.get(change_copy.remote(argument)) == 1
        assert ray.get(ref)[0] == 0


def test_changing_a_value_that_was_got_changes_no_object(ray):
    ref = ray.put({"list": [1], "text": "a"})
    mine = ray.get(ref)
    mine["list"].append(2)
    assert ray.get(ref) == {"list": [1], "text": "a"}


def test_objects_that_contain_themselves_come_back(ray):
    class Node:
        def __init__(self):
            self.itself = self
            self.children = []

    node = Node()
    node.children.append({"parent": node})

    @ray.remote
    def echo(value):
        return value

    for back in (ray.get(ray.put(node)), ray.get(echo.remote(node))):
        assert back.itself is back
        assert back.children[0]["parent"] is back


def test_a_class_may_say_how_it_is_made_again(ray, tmp_path):
    import sqlite3

    class Database:
        def __init__(self, path):
            self.path = path
            self.connection = sqlite3.connect(path)

        def __reduce__(self):
            return type(self), (self.path,)

    @ray.remote
    def ask(database):
        return database.connection.execute("select 1 + 1").fetchone()[0]

    database = Database(str(tmp_path / "db"))
    back = ray.get(ray.put(database))
    assert back.path == database.path
    assert back.connection is not database.connection
    assert ray.get(ask.remote(database)) == 2
    database.connection.close()
    back.connection.close()


def test_a_registered_serializer_helps_until_it_is_deregistered(ray):
    cls = make_locked()
    with pytest.raises(TypeError):
        ray.put(cls(1))
    ray.util.register_serializer(cls, serializer=lambda a: a.x, deserializer=lambda x: cls(x))
    assert ray.get(ray.put(cls(1))).x == 1
    assert ray.get(ray.put({"in": [cls(2)]}))["in"][0].x == 2

    @ray.remote
    def x_of(value):
        return value.x

    assert ray.get(x_of.remote(cls(3))) == 3
    ray.util.register_serializer(cls, serializer=lambda a: a.x, deserializer=lambda x: cls(-x))
    assert ray.get(ray.put(cls(1))).x == -1
    ray.util.deregister_serializer(cls)
    ray.util.deregister_serializer(cls)
    with pytest.raises(TypeError):
        ray.put(cls(1))


def test_a_serializer_is_local_to_its_process_and_to_the_exact_class(ray):
    cls = make_locked()

    class Below(cls):
        pass

    ray.util.register_serializer(cls, serializer=lambda a: a.x, deserializer=lambda x: cls(x))
    try:
        with pytest.raises(TypeError):
            ray.put(Below(1))

        @ray.remote
        def make():
            return cls(1)

        with pytest.raises(TypeError):
            ray.get(make.remote())

        @ray.remote
        def register_and_make():
            ray.util.register_serializer(
                cls, serializer=lambda a: a.x, deserializer=lambda x: cls(x)
            )
            return cls(5)

        assert ray.get(register_and_make.remote()).x == 5
    finally:
        ray.util.deregister_serializer(cls)


def test_a_helper_object_serializes_one_value_in_its_own_way(ray):
    cls = make_locked()

    class Helper:
        def __init__(self, wrapped):
            self.wrapped = wrapped

        def __reduce__(self):
            return cls, (self.wrapped.x,)

    assert ray.get(ray.put(Helper(cls(4)))).x == 4
    with pytest.raises(TypeError):
        ray.put(cls(4))


def test_a_lock_in_an_argument_or_a_result_is_a_type_error(ray):
    @ray.remote
    def take(value):
        return value

    @ray.remote
    def give():
        return threading.Lock()

    with pytest.raises(TypeError):
        take.remote(threading.Lock())
    with pytest.raises(TypeError):
        take.remote(x=[threading.Lock()])
    with pytest.raises(TypeError):
        ray.get(give.remote())
    lock = threading.Lock()

    @ray.remote
    def captures():
        return lock

    with pytest.raises(TypeError):
        captures.remote()


def test_inspecting_a_function_names_what_it_captured(ray):
    lock = threading.Lock()

    def function():
        return lock

    out = io.StringIO()
    sound, failures = ray.util.inspect_serializability(function, name="it", print_file=out)
    assert sound is False
    (failure,) = failures
    assert failure.obj is lock
    assert failure.parent is function
    printed = re.sub("\x1b\\[\\d+m", "", out.getvalue())  # Ray prints in colours
    assert f"Checking Serializability of {function!r}" in printed
    assert "!!! FAIL serialization: " in printed
    assert f"Serializing 'lock' {lock!r}..." in printed
    assert "FailTuple(lock [" in printed
    assert "was found to be non-serializable." in printed


def test_inspecting_an_object_names_its_attribute(ray):
    value = make_locked()(1)
    out = io.StringIO()
    sound, failures = ray.util.inspect_serializability(value, print_file=out)
    assert sound is False
    assert [(f.obj, f.parent) for f in failures] == [(value.lock, value)]
    assert "FailTuple(lock [" in out.getvalue()
    assert ray.util.inspect_serializability({"fine": 1}, print_file=out) == (True, set())


@pytest.mark.parametrize("dtype", ["int8", "float32", "complex128", "bool", ">i4", "U7", "S3"])
def test_arrays_from_the_store_are_aligned_and_read_only(ray, dtype):
    import numpy as np

    array = np.zeros((300, 700), dtype)
    for each in (array, np.asfortranarray(array)):
        got = ray.get(ray.put({"x": each}))["x"]
        assert not got.flags.writeable
        assert got.ctypes.data % 64 == 0
        assert got.dtype == each.dtype
        assert got.flags.f_contiguous == each.flags.f_contiguous


@pytest.mark.parametrize("kind", ["matrix", "recarray", "MaskedArray", "memmap"])
def test_subclasses_of_arrays_keep_their_class(ray, kind, tmp_path):
    import numpy as np

    array = {
        "matrix": lambda: np.arange(4).reshape(2, 2).view(np.matrix),
        "recarray": lambda: np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]),
        "MaskedArray": lambda: np.ma.masked_array([1, 2, 3], mask=[0, 1, 0], fill_value=9),
        "memmap": lambda: np.memmap(tmp_path / "file", "i4", "w+", shape=(5,)),
    }[kind]()
    got = ray.get(ray.put(array))
    assert type(got) is type(array)
    assert got.tolist() == array.tolist()
