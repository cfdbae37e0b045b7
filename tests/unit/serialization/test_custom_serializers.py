"""register_serializer and deregister_serializer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mray.util
from mray import cloudpickle
from mray.serialization import custom
from mray.serialization.pickler import deserialize, serialize


class Locked:
    def __init__(self, x: int) -> None:
        self.x = x
        self.lock = threading.Lock()


class SubLocked(Locked):
    pass


def get_x(value: Locked) -> int:
    return value.x


@pytest.fixture(autouse=True)
def clean_table() -> Iterator[None]:
    yield
    custom.set_job_table({})
    for cls in (Locked, SubLocked):
        custom.drop_local(cls)


def round_trip(value: Any) -> Any:
    return deserialize(serialize(value).to_bytes())


def register(deserializer: Callable[[Any], Any] = Locked) -> None:
    mray.util.register_serializer(Locked, serializer=get_x, deserializer=deserializer)


def test_a_registered_class_is_serialized_by_the_given_functions() -> None:
    with pytest.raises(TypeError, match="lock"):
        serialize(Locked(1))
    register()
    assert round_trip(Locked(1)).x == 1
    mray.util.deregister_serializer(Locked)
    with pytest.raises(TypeError, match="lock"):
        serialize(Locked(1))


def test_it_holds_inside_other_values_and_closures() -> None:
    register()
    inner = Locked(3)
    assert round_trip({"a": [Locked(2)]})["a"][0].x == 2
    assert round_trip(lambda: inner.x)() == 3
    assert cloudpickle.loads(cloudpickle.dumps(lambda: inner.x))() == 3


def test_it_holds_for_the_class_and_not_for_subclasses() -> None:
    register()
    with pytest.raises(TypeError, match="lock"):
        serialize(SubLocked(1))


def test_a_new_registration_replaces_the_old_at_once() -> None:
    register()
    register(lambda x: Locked(x + 100))
    assert round_trip(Locked(1)).x == 101
    register()
    register()
    assert round_trip(Locked(1)).x == 1


def test_the_reader_needs_no_registration() -> None:
    register(lambda x: Locked(x * 2))
    data = serialize(Locked(4)).to_bytes()
    mray.util.deregister_serializer(Locked)
    assert deserialize(data).x == 8


def test_deregistering_the_unknown_does_nothing() -> None:
    mray.util.deregister_serializer(Locked)
    register()
    mray.util.deregister_serializer(Locked)
    mray.util.deregister_serializer(Locked)


def test_nonsense_is_refused() -> None:
    with pytest.raises(TypeError, match="needs a class"):
        mray.util.register_serializer(Locked(1), serializer=get_x, deserializer=Locked)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="deserializer for Locked"):
        mray.util.register_serializer(Locked, serializer=get_x, deserializer=3)  # type: ignore[arg-type]
    assert custom.reducers == {}


def test_other_values_keep_their_copyreg_reducers() -> None:
    register()
    assert round_trip([complex(1, 2), Locked(1)])[0] == complex(1, 2)


def of_job(deserializer: Callable[[Any], Any]) -> dict[type, custom.Registration]:
    return {Locked: custom.Registration(get_x, deserializer)}


def test_the_jobs_entries_hold_where_there_is_no_own_one() -> None:
    custom.set_job_table(of_job(lambda x: Locked(x + 1)))
    assert round_trip([Locked(1)])[0].x == 2
    register()
    assert round_trip(Locked(1)).x == 1
    custom.set_job_table(of_job(lambda x: Locked(x + 2)))
    assert round_trip(Locked(1)).x == 1
    mray.util.deregister_serializer(Locked)
    assert round_trip(Locked(1)).x == 3
    custom.set_job_table({})
    assert custom.reducers == {}


def test_before_init_a_registration_for_the_job_holds_here_too() -> None:
    mray.util.register_serializer(Locked, serializer=get_x, deserializer=Locked, scope="job")
    assert round_trip(Locked(1)).x == 1
    mray.util.deregister_serializer(Locked)
    assert round_trip(Locked(1)).x == 1
    mray.util.deregister_serializer(Locked, scope="job")
    with pytest.raises(TypeError, match="lock"):
        serialize(Locked(1))
    mray.util.deregister_serializer(Locked, scope="job")


def test_what_cannot_travel_is_refused_when_it_is_registered_for_the_job() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match=r"registration of a serializer for Locked.*lock"):
        mray.util.register_serializer(
            Locked, serializer=lambda value: lock, deserializer=Locked, scope="job"
        )
    with pytest.raises(ValueError, match="scope must be 'local' or 'job', not 'cluster'"):
        mray.util.register_serializer(
            Locked, serializer=get_x, deserializer=Locked,
            scope="cluster",  # type: ignore[arg-type]
        )  # fmt: skip
    assert custom.reducers == {}
