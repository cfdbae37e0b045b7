"""Serializers of a job: in every process of the job, in time, and in no other job."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import mray
from mray.util import deregister_serializer, register_serializer

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    mray.init(num_cpus=2)
    yield
    mray.shutdown()


def make_class() -> type:
    """A class that nobody can pickle without help; new each time, so tests do not meet."""

    class Locked:
        def __init__(self, x: int) -> None:
            self.x = x
            self.lock = threading.Lock()

    return Locked


def register(cls: type, added: int = 0, scope: Any = "job") -> None:
    register_serializer(
        cls, serializer=lambda a: a.x, deserializer=lambda x: cls(x + added), scope=scope
    )


def make_task(cls: type) -> Any:
    @mray.remote
    def make(x: int) -> Any:
        return {"nested": [cls(x)]}

    return make


def made(task: Any, x: int = 1) -> int:
    found: int = mray.get(task.remote(x))["nested"][0].x
    return found


def test_running_workers_use_it_in_the_next_task_and_drop_it_again() -> None:
    cls = make_class()
    task = make_task(cls)
    with pytest.raises(TypeError, match="lock"):
        made(task)
    register(cls)
    assert made(task) == 1
    assert type(mray.get(task.remote(1))["nested"][0]) is cls
    register(cls, added=10)
    register(cls, added=20)
    assert made(task) == 21
    deregister_serializer(cls, scope="job")
    with pytest.raises(TypeError, match="lock"):
        made(task)


def test_a_local_one_stays_here() -> None:
    cls = make_class()
    register(cls, scope="local")
    try:
        assert mray.get(mray.put(cls(1))).x == 1
        with pytest.raises(TypeError, match="lock"):
            made(make_task(cls))
    finally:
        deregister_serializer(cls)


def test_nested_tasks_new_workers_and_actors_inherit_it() -> None:
    cls = make_class()
    register(cls)
    task = make_task(cls)

    @mray.remote(runtime_env={"env_vars": {"MADE": "LATER"}})
    def outer(x: int) -> Any:
        return mray.get(task.remote(x)), cls(x)

    @mray.remote
    class Actor:
        def __init__(self, given: Any) -> None:
            self.value = cls(given.x + 1)

        def get(self) -> Any:
            return self.value

    inner, own = mray.get(outer.remote(5))
    assert (inner["nested"][0].x, own.x) == (5, 5)
    actor = Actor.remote(cls(7))
    assert mray.get(actor.get.remote()).x == 8
    register(cls, added=100)
    assert mray.get(actor.get.remote()).x == 108


def test_threaded_and_async_actors_use_it_too() -> None:
    cls = make_class()

    @mray.remote
    class Async:
        async def get(self) -> Any:
            return cls(1)

    @mray.remote(max_concurrency=4)
    class Threaded:
        def get(self) -> Any:
            return cls(2)

    actors = [Async.remote(), Threaded.remote()]
    mray.get([actor.__ray_ready__.remote() for actor in actors])
    register(cls)
    calls = [actor.get.remote() for actor in actors for _ in range(8)]
    assert [value.x for value in mray.get(calls)] == [1] * 8 + [2] * 8


def test_a_task_may_register_for_the_job() -> None:
    cls = make_class()

    @mray.remote
    def register_there() -> None:
        register(cls, added=3)

    mray.get(register_there.remote())
    assert mray.get(mray.put(cls(1))).x == 4
    assert made(make_task(cls)) == 4


def test_registering_at_the_same_time_loses_nothing() -> None:
    classes = [make_class() for _ in range(8)]

    @mray.remote
    def register_there(cls: type) -> None:
        register(cls)

    here = [threading.Thread(target=register, args=(cls,)) for cls in classes[:4]]
    for thread in here:
        thread.start()
    mray.get([register_there.remote(cls) for cls in classes[4:]])
    for thread in here:
        thread.join()
    assert [made(make_task(cls)) for cls in classes] == [1] * 8


def test_the_same_once_more_changes_nothing() -> None:
    cls = make_class()
    version = mray.current.get().serializers
    functions = {"serializer": lambda a: a.x, "deserializer": cls}
    register_serializer(cls, **functions, scope="job")
    before = version.version
    register_serializer(cls, **functions, scope="job")
    deregister_serializer(make_class(), scope="job")
    assert version.version == before


DRIVER = """
import sys, threading
import mray

class Locked:
    def __init__(self, x):
        self.x, self.lock = x, threading.Lock()

@mray.remote
def make(x):
    return [Locked(x)]

if sys.argv[1] == "register":
    mray.util.register_serializer(
        Locked, serializer=lambda a: a.x, deserializer=lambda x: Locked(x), scope="job")
mray.init(sys.argv[2])
for life in range(2):
    try:
        print(mray.get(make.remote(1))[0].x)
    except TypeError:
        print("refused")
    mray.shutdown()
    mray.init(sys.argv[2])
"""


def test_registered_before_init_it_holds_in_this_drivers_jobs_and_no_other(tmp_path: Any) -> None:
    script = tmp_path / "driver.py"
    script.write_text(textwrap.dedent(DRIVER))
    address = mray.current.get().node.session_dir
    runs = [
        subprocess.Popen(
            [sys.executable, str(script), what, address], stdout=subprocess.PIPE, text=True
        )
        for what in ("register", "nothing")
    ]
    outputs = [run.communicate(timeout=60)[0].split() for run in runs]
    assert outputs == [["1", "1"], ["refused", "refused"]]
