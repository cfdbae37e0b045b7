"""mray.cloudpickle: cloudpickle's names, and the mark of out-of-band pickling."""

from __future__ import annotations

import io
import pickle
import threading
from typing import Any

import cloudpickle as package
import pytest

from mray import cloudpickle
from mray.serialization import dumper
from mray.serialization.context import collector
from mray.serialization.inspection import UnpicklableError
from mray.serialization.pickler import pack

seen: list[tuple[bool, bool]] = []


class Watching:
    def __reduce__(self) -> Any:
        seen.append((collector.refs is not None, collector.by_cloudpickle))
        return int, ()


@pytest.fixture(autouse=True)
def forget() -> None:
    seen.clear()


def test_dumping_is_marked_as_out_of_band_by_cloudpickle() -> None:
    cloudpickle.dumps(Watching())
    cloudpickle.dump(Watching(), io.BytesIO())
    cloudpickle.CloudPickler(io.BytesIO()).dump(Watching())
    assert seen == [(False, True)] * 3
    assert not collector.by_cloudpickle


def test_plain_pickle_is_not_marked() -> None:
    pickle.dumps(Watching())
    package.dumps(Watching())
    assert seen == [(False, False)] * 2


def test_mrays_own_serialization_is_not_out_of_band() -> None:
    pack([Watching(), lambda: 1])
    assert set(seen) == {(True, False)}


def test_the_mark_goes_when_dumping_fails() -> None:
    with pytest.raises(TypeError):
        cloudpickle.dumps(threading.Lock())
    assert not collector.by_cloudpickle


def test_values_round_trip_with_buffers() -> None:
    buffers: list[Any] = []
    data = cloudpickle.dumps(
        [lambda: 3, pickle.PickleBuffer(b"abc")], buffer_callback=buffers.append
    )
    assert cloudpickle.loads(data, buffers=buffers)[0]() == 3
    assert len(buffers) == 1
    file = io.BytesIO()
    cloudpickle.dump({"a": 1}, file, protocol=4)
    file.seek(0)
    assert cloudpickle.load(file) == {"a": 1}


def test_the_rest_of_the_package_is_there() -> None:
    assert cloudpickle.subimport is package.cloudpickle.subimport
    assert cloudpickle.__version__ == package.__version__
    assert cloudpickle.Pickler is cloudpickle.CloudPickler
    cloudpickle.register_pickle_by_value(pytest)
    assert "pytest" in cloudpickle.list_registry_pickle_by_value()
    cloudpickle.unregister_pickle_by_value(pytest)
    with pytest.raises(AttributeError):
        cloudpickle.no_such_thing  # noqa: B018


@pytest.mark.parametrize("level", [1, 2])
def test_verbose_debugging_names_the_culprit(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    monkeypatch.setattr(cloudpickle, "verbosity", lambda: level)
    monkeypatch.setattr(dumper, "verbosity", lambda: level)
    assert cloudpickle.loads(cloudpickle.dumps(lambda: 4))() == 4
    with pytest.raises(UnpicklableError, match=r"dict\['a'\] is of type _thread\.lock"):
        cloudpickle.dumps({"a": threading.Lock()})
