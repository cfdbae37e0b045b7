"""References inside errors live as long as the errors, and errors keep nobody else alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

import mray
from mray import current
from mray.exceptions import ActorDiedError

from ..waiting import eventually

pytestmark = pytest.mark.integration

TIMEOUT_S = 30


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    mray.init(address="local", num_cpus=4, log_to_driver=False)
    yield
    mray.shutdown()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Whatever a test made is freed with it."""
    yield
    gc.collect()
    entries = current.get().references.entries
    eventually(lambda: not entries, 10.0, "all references are gone")


@pytest.fixture(scope="module")
def failing() -> Any:
    @mray.remote
    class Failing:
        def __init__(self, refs: list[Any]) -> None:
            class WithRef(Exception):
                def __init__(self, ref: Any) -> None:
                    super().__init__(ref)
                    self.ref = ref

            raise WithRef(refs[0])

        def ping(self) -> None:
            return None

    return Failing


def inside(call: Any) -> Any:
    """The reference in the error of a call."""
    with pytest.raises(ActorDiedError) as caught:
        mray.get(call, timeout=TIMEOUT_S)
    return caught.value.cause.cause.ref  # type: ignore[union-attr]


def dead(actor: Any) -> None:
    calls = current.get().actors.calls

    def is_dead() -> bool:
        known = calls.get(actor._actor_id)
        return known is not None and known.state == "DEAD"

    eventually(is_dead, TIMEOUT_S, "the actor is dead")


def test_what_a_constructors_error_holds_can_be_got_while_there_is_a_handle(failing: Any) -> None:
    actor = failing.remote([mray.put("kept")])
    dead(actor)
    gc.collect()
    ref = inside(actor.ping.remote())
    del actor
    gc.collect()
    assert mray.get(ref, timeout=TIMEOUT_S) == "kept"


def test_a_failed_call_keeps_what_its_error_holds(failing: Any) -> None:
    actor = failing.remote([mray.put("kept")])
    call = actor.ping.remote()
    dead(actor)
    del actor
    gc.collect()
    assert mray.get(inside(call), timeout=TIMEOUT_S) == "kept"


def test_callers_elsewhere_can_get_it_too(failing: Any) -> None:
    @mray.remote
    def elsewhere(actor: Any) -> Any:
        try:
            mray.get(actor.ping.remote(), timeout=TIMEOUT_S)
        except ActorDiedError as error:
            return mray.get(error.cause.cause.ref, timeout=TIMEOUT_S)  # type: ignore[union-attr]

    ref = elsewhere.remote(failing.remote([mray.put("kept")]))
    assert mray.get(ref, timeout=TIMEOUT_S) == "kept"


def test_it_is_freed_with_a_handle_that_nobody_called(failing: Any) -> None:
    actor = failing.remote([mray.put("kept")])
    dead(actor)


def test_an_error_that_was_caught_keeps_nothing_of_who_caught_it() -> None:
    class Local:
        pass

    @mray.remote
    def fails() -> None:
        raise ValueError("no")

    ref = fails.remote()
    local = Local()
    watch = weakref.ref(local)

    def catch(held: Local) -> None:
        try:
            mray.get(ref, timeout=TIMEOUT_S)
        except ValueError:
            return
        raise AssertionError(f"nothing was raised, {held}")

    gc.collect()
    gc.disable()
    try:
        catch(local)
        del local
        assert watch() is None
    finally:
        gc.enable()
