"""Smaller habits of tasks, actors and their processes that programs rely on."""

from __future__ import annotations

import os
import sys
import time

import pytest

pytestmark = pytest.mark.conformance


@pytest.fixture(scope="module")
def ray(engine):
    """A cluster of its own, with a resource that is not a CPU."""
    engine.init(address="local", num_cpus=4, resources={"slot": 1}, log_to_driver=False)
    yield engine
    engine.shutdown()


def test_functions_may_call_one_another_in_turn(ray):
    @ray.remote
    def even(n):
        return True if n == 0 else ray.get(odd.remote(n - 1))

    @ray.remote
    def odd(n):
        return False if n == 0 else ray.get(even.remote(n - 1))

    assert ray.get([even.remote(5), odd.remote(5)], timeout=60) == [False, True]


def test_a_task_that_waits_keeps_all_but_its_cpu(ray, make_gate):
    begun, held = make_gate(), make_gate()
    tell, wait = begun.waiter(), held.waiter()

    @ray.remote
    def slow():
        wait()
        return 1

    @ray.remote(num_cpus=0, resources={"slot": 1})
    def waits(refs):
        tell()
        return ray.get(refs[0]) + 1

    @ray.remote(num_cpus=0, resources={"slot": 1})
    def wants():
        return 3

    first = waits.remote([slow.remote()])
    begun.wait_arrival()
    second = wants.remote()
    assert ray.wait([second], timeout=1.5)[0] == []
    held.open()
    assert ray.get([first, second], timeout=60) == [2, 3]


def test_a_task_knows_what_it_was_given(ray):
    @ray.remote(num_cpus=0.5, resources={"slot": 0.25}, memory=50 * 2**20)
    def given():
        return ray.get_runtime_context().get_assigned_resources()

    assert ray.get(given.remote(), timeout=60) == {"CPU": 0.5, "slot": 0.25, "memory": 50 * 2**20}


def test_the_node_of_the_head_is_marked(ray):
    assert ray.cluster_resources()["node:__internal_head__"] == 1
    address = ray.nodes()[0]["NodeManagerAddress"]
    assert ray.cluster_resources()[f"node:{address}"] == 1

    @ray.remote(num_cpus=0, resources={"node:__internal_head__": 0.001})
    def at_the_head():
        return ray.get_runtime_context().get_node_id()

    assert ray.get(at_the_head.remote(), timeout=60) == ray.nodes()[0]["NodeID"]


def test_memory_is_a_resource(ray):
    have = ray.cluster_resources()["memory"]

    @ray.remote
    def one():
        return 1

    assert ray.get(one.options(memory=have * 0.9).remote(), timeout=60) == 1
    assert ray.wait([one.options(memory=have * 2).remote()], timeout=1.5)[0] == []


# -- what others see of a process


def test_the_title_of_a_process_says_what_it_runs(ray):
    def title():
        with open("/proc/self/comm") as name, open("/proc/self/cmdline", "rb") as words:
            return name.read().strip(), words.read().rstrip(b"\0").decode()

    @ray.remote
    class Titled:
        def title(self):
            return title()

    assert ray.get(ray.remote(title).remote(), timeout=60) == ("ray::title", "ray::title")
    assert ray.get(Titled.remote().title.remote(), timeout=60) == (
        "ray::Titled.tit",
        "ray::Titled.title",
    )


# -- actors


@pytest.fixture
def plain(ray):
    class Plain:
        def pid(self):
            return os.getpid()

        def restarted(self):
            return ray.get_runtime_context().was_current_actor_reconstructed

        def crash(self):
            os._exit(1)

    return ray.remote(num_cpus=0)(Plain)


def test_a_handle_found_by_name_keeps_no_actor(ray, plain, wait_exit):
    actor = plain.options(name="weak").remote()
    pid = ray.get(actor.pid.remote(), timeout=60)
    found = ray.get_actor("weak")
    assert ray.get(found.pid.remote(), timeout=60) == pid
    del actor
    assert wait_exit(pid)
    with pytest.raises(ray.exceptions.ActorDiedError):
        ray.get(found.pid.remote(), timeout=60)
    with pytest.raises(ValueError, match="weak"):
        ray.get_actor("weak")


def test_many_who_get_or_make_an_actor_get_one(ray, plain):
    name = ray.__name__

    @ray.remote(num_cpus=0.25)
    def get_or_make():
        import importlib

        options = {"name": "raced", "get_if_exists": True, "lifetime": "detached"}
        actor = plain.options(**options).remote()
        return importlib.import_module(name).get(actor.pid.remote())

    assert len(set(ray.get([get_or_make.remote() for _ in range(12)], timeout=100))) == 1
    ray.kill(ray.get_actor("raced"))


def test_an_actor_knows_whether_it_was_made_again(ray, plain):
    actor = plain.options(max_restarts=1, max_task_retries=1).remote()
    assert ray.get(actor.restarted.remote(), timeout=60) is False
    crash = actor.crash.options(max_task_retries=0).remote()
    with pytest.raises(ray.exceptions.RayActorError):
        ray.get(crash, timeout=60)
    assert ray.get(actor.restarted.remote(), timeout=60) is True


def test_only_actors_can_exit_as_such(ray):
    @ray.remote
    def leaves():
        ray.actor.exit_actor()

    with pytest.raises(TypeError):
        ray.get(leaves.remote(), timeout=60)
    with pytest.raises(TypeError):
        ray.actor.exit_actor()


def test_methods_may_be_decorated_and_classes_have_attributes(ray):
    def twice(method):
        import functools

        @functools.wraps(method)
        def wrapper(self, *args, **kwargs):
            return [method(self, *args, **kwargs)] * 2

        return wrapper

    class Base:
        shared = 7

        @property
        def doubled(self):
            return 2 * self.shared

    class Decorated(Base):
        @twice
        def add(self, x, y=2):
            return self.doubled + x + y

    actor = ray.remote(Decorated).remote()
    assert ray.get(actor.add.remote(1, y=3), timeout=60) == [18, 18]


@pytest.mark.filterwarnings("ignore:ObjectRef")
def test_a_handle_can_be_pickled_by_the_engines_cloudpickle(ray, plain):
    actor = plain.remote()
    again = ray.cloudpickle.loads(ray.cloudpickle.dumps(actor))
    pids = ray.get([actor.pid.remote(), again.pid.remote()], timeout=60)
    assert pids[0] == pids[1]


def test_a_task_may_fork(ray):
    @ray.remote
    def forks():
        pid = os.fork()
        if pid == 0:
            os._exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert ray.get([forks.remote() for _ in range(3)], timeout=60) == [7, 7, 7]


# -- the import path of workers


def test_workers_import_what_lies_beside_the_script_and_in_its_directory(engine, tmp_path):
    import subprocess

    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "beside.py").write_text("def tell():\n    return 'beside'\n")
    (tmp_path / "scripts" / "script.py").write_text(
        f"""
import sys
import {engine.__name__} as ray
import beside

@ray.remote
def imported():
    import os
    import beside
    return beside.tell(), os.path.basename(os.getcwd())

@ray.remote
class Actor:
    def tell(self):
        return beside.tell()

ray.init(address="local", num_cpus=2, log_to_driver=False)
print(ray.get([imported.remote(), Actor.remote().tell.remote(), ray.remote(beside.tell).remote()]))
"""
    )
    done = subprocess.run(
        [sys.executable, "scripts/script.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == f"[('beside', '{tmp_path.name}'), 'beside', 'beside']"


# -- spilled objects


def test_an_object_on_disk_is_told_to_be_there(engine):
    import numpy

    engine.shutdown()
    engine.init(address="local", num_cpus=1, log_to_driver=False, object_store_memory=78_643_200)
    refs = [engine.put(numpy.zeros(1_250_000)) for _ in range(14)]
    node_id = engine.get_runtime_context().get_node_id()
    give_up_at = time.monotonic() + 30
    while True:
        told = engine.experimental.get_object_locations(refs)
        if any(facts["did_spill"] for facts in told.values()):
            break
        assert time.monotonic() < give_up_at
        time.sleep(0.1)
    assert all(facts["node_ids"] in ([node_id], []) for facts in told.values())
    assert all(facts["object_size"] >= 10_000_000 for facts in told.values())
