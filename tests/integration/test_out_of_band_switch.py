"""References that user code pickles by itself: pinned, lost or refused, never waited for."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

import mray
from mray import cloudpickle
from mray.exceptions import (
    GetTimeoutError,
    ObjectLostError,
    OufOfBandObjectRefSerializationException,
    ReferenceLostError,
)

pytestmark = pytest.mark.integration

SWITCH = "RAY_allow_out_of_band_object_ref_serialization"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


@mray.remote
def by_pickle() -> bytes:
    return pickle.dumps(mray.put(1))


@mray.remote
def by_cloudpickle() -> bytes:
    return cloudpickle.dumps(mray.put(1))


def switched(value: str) -> dict[str, Any]:
    return {"env_vars": {SWITCH: value}}


def test_a_reference_lost_out_of_band_is_told_at_once_in_every_form() -> None:
    lost = pickle.loads(mray.get(by_pickle.remote()))
    for kind in (ReferenceLostError, GetTimeoutError, TimeoutError, ObjectLostError):
        with pytest.raises(kind, match="pickled out of band with plain pickle"):
            mray.get(lost, timeout=5)
    with pytest.raises(ReferenceLostError):
        mray.get([mray.put(1), lost])


def test_cloudpickle_keeps_the_object_until_its_process_ends() -> None:
    ref = pickle.loads(mray.get(by_cloudpickle.remote()))
    assert mray.get(ref) == 1


@pytest.mark.parametrize("task", [by_pickle, by_cloudpickle])
def test_a_tasks_own_environment_switches_it_off(task: Any) -> None:
    refused = task.options(runtime_env=switched("0"))
    for _ in range(2):
        with pytest.raises(OufOfBandObjectRefSerializationException, match=f"{SWITCH}=1 allows"):
            mray.get(refused.remote())
        assert mray.get(task.remote())
        assert mray.get(task.options(runtime_env=switched("1")).remote())


def test_an_actors_and_its_tasks_environment_switch_it_off() -> None:
    @mray.remote
    class Actor:
        def pickle(self) -> bytes:
            return pickle.dumps(mray.put(1))

        def pickle_below(self) -> bytes:
            return mray.get(by_pickle.remote())

    actor = Actor.options(runtime_env=switched("0")).remote()
    for call in (actor.pickle.remote(), actor.pickle_below.remote()):
        with pytest.raises(OufOfBandObjectRefSerializationException):
            mray.get(call)


DRIVER = """
import pickle, sys
import mray
mray.init(sys.argv[1], **eval(sys.argv[2]))

@mray.remote
def task():
    return pickle.dumps(mray.put(1))

def tell(name, call):
    try:
        call()
        print(name, "fine")
    except mray.exceptions.OufOfBandObjectRefSerializationException:
        print(name, "refused")

ref = mray.put(1)
tell("driver", lambda: pickle.dumps(ref))
tell("task", lambda: mray.get(task.remote()))
"""


@pytest.mark.parametrize(
    ("variable", "arguments", "expected"),
    [
        ("1", {}, ["driver fine", "task fine"]),
        ("0", {}, ["driver refused", "task fine"]),
        ("1", {"runtime_env": switched("0")}, ["driver fine", "task refused"]),
    ],
)
def test_a_drivers_environment_is_its_own_and_the_jobs_is_the_workers(
    variable: str, arguments: dict[str, Any], expected: list[str]
) -> None:
    session = mray.current.get().node.session_dir
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DRIVER), session, repr(arguments)],
        env={**os.environ, SWITCH: variable}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert run.stdout.splitlines() == expected, run.stderr


def test_a_bad_value_is_told_and_changes_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    from ..waiting import eventually

    assert mray.get(by_pickle.options(runtime_env=switched("perhaps")).remote())
    said: list[str] = []

    def told() -> bool:
        said.extend(capfd.readouterr())
        return f"{SWITCH} = 'perhaps' cannot be used" in "".join(said)

    eventually(told, 10.0, "the worker's message is shown")
