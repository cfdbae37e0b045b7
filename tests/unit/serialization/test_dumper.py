"""Which pickler is chosen, and that every choice gives the same value."""

from __future__ import annotations

import io
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

import cloudpickle
import numpy as np
import pytest

from mray.serialization import dumper
from mray.serialization.dumper import dump


class Importable:
    def __init__(self, x: int) -> None:
        self.x = x


@pytest.fixture
def count_cloud(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Values that went to cloudpickle."""
    seen: list[Any] = []
    original = dumper.new_cloud_pickler

    def spy(*args: Any) -> Any:
        seen.append(args)
        return original(*args)

    monkeypatch.setattr(dumper, "new_cloud_pickler", spy)
    return seen


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module with one function, importable by name."""
    made = types.ModuleType("made_for_dumper")
    exec("def answer():\n    return 42\n", made.__dict__)
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def test_importable_things_go_to_c_pickle(count_cloud: list[Any]) -> None:
    data, _, _ = dump([Importable(3), np.sum, len, Importable])
    assert pickle.loads(data)[0].x == 3
    assert count_cloud == []


def test_local_functions_go_to_cloudpickle(count_cloud: list[Any]) -> None:
    assert pickle.loads(dump([lambda: 5])[0])[0]() == 5
    assert len(count_cloud) == 1


def test_mention_of_main_goes_to_cloudpickle(count_cloud: list[Any]) -> None:
    dump(["__main__"])
    assert len(count_cloud) == 1


def test_modules_registered_by_value_go_to_cloudpickle(
    count_cloud: list[Any], module: types.ModuleType
) -> None:
    dump(module.answer)
    assert count_cloud == []
    cloudpickle.register_pickle_by_value(module)
    try:
        data, _, _ = dump([module.answer])
        dump([Importable(1)])  # unrelated: stays with C pickle
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert len(count_cloud) == 1
    del sys.modules[module.__name__]
    assert pickle.loads(data)[0]() == 42
    sys.modules[module.__name__] = module


def test_the_registry_read_here_is_the_one_cloudpickle_writes(module: types.ModuleType) -> None:
    assert dumper._modules_by_value == cloudpickle.list_registry_pickle_by_value()
    cloudpickle.register_pickle_by_value(module)
    try:
        assert module.__name__ in dumper._modules_by_value
    finally:
        cloudpickle.unregister_pickle_by_value(module)
    assert module.__name__ not in dumper._modules_by_value


def test_buffers_stay_in_band_when_asked() -> None:
    data, buffers, _ = dump(np.arange(3), out_of_band=False)
    assert buffers == []
    assert list(pickle.loads(data)) == [0, 1, 2]


def test_the_error_of_cloudpickle_is_the_one_raised() -> None:
    class Refusing:
        def __reduce__(self) -> Any:
            raise RuntimeError("not me")

    with pytest.raises(RuntimeError, match="not me") as caught:
        dump(Refusing())
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("text", "level"), [("2", 2), ("1", 1), ("", 0), ("yes", 0)])
def test_verbosity_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, text: str, level: int
) -> None:
    monkeypatch.setenv("RAY_PICKLE_VERBOSE_DEBUG", text)
    dumper.verbosity.cache_clear()
    try:
        assert dumper.verbosity() == level
    finally:
        dumper.verbosity.cache_clear()


def test_the_pure_python_pickler_does_all_that_the_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dumper, "verbosity", lambda: 2)
    base = 1

    class Local:
        def add(self, x: int) -> int:
            return x + base

    value = {"f": lambda x: x + base, "c": Local, "a": np.arange(4), "i": Importable(2)}
    assert isinstance(dumper.new_cloud_pickler(io.BytesIO()), dumper.TraceablePickler)
    data, buffers, _ = dump(value)
    back = pickle.loads(data, buffers=buffers)
    assert back["f"](1) == 2
    assert back["c"]().add(2) == 3
    assert list(back["a"]) == [0, 1, 2, 3]
    assert len(buffers) == 1
    assert back["i"].x == 2
