"""What runs at the end of an actor's process: ``__ray_shutdown__``, then exit handlers."""

from __future__ import annotations

import os
import signal
import sys
import time

import pytest

pytestmark = pytest.mark.conformance

LIMIT_MS = 1500


@pytest.fixture(scope="module")
def ray(engine):
    """A cluster of its own, whose actors have little time for their last word."""
    settings = {"actor_graceful_shutdown_timeout_ms": LIMIT_MS}
    engine.init(address="local", num_cpus=4, log_to_driver=False, _system_config=settings)
    yield engine
    engine.shutdown()


@pytest.fixture
def notes(tmp_path):
    """A file that remote code adds lines to, and what it says."""
    path = tmp_path / "notes"
    path.touch()
    return path


@pytest.fixture
def leaver(ray, notes):
    """A class of actors that note what runs at their end, and know many ways to go."""
    path = str(notes)

    class Leaver:
        def __init__(self, last_word=None):
            import atexit

            self.last_word = last_word
            atexit.register(self.note, "atexit")

        def note(self, what):
            with open(path, "a") as file:
                file.write(f"{what}\n")

        def __ray_shutdown__(self):
            import threading

            here = threading.current_thread() is threading.main_thread()
            self.note("shutdown" if here else "shutdown in another thread")
            if self.last_word is not None:
                self.last_word()

        def pid(self):
            return os.getpid()

        def leave(self):
            ray.actor.exit_actor()

        def end(self, code):
            sys.exit(code)

    return Leaver


BOTH = ["shutdown", "atexit"]


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("how", ["leave", "end0", "end1", "terminate", "scope", "sigterm"])
def test_both_run_when_the_process_ends_by_itself(ray, leaver, notes, wait_exit, how, limit):
    actor = ray.remote(num_cpus=0, max_concurrency=limit)(leaver).remote()
    pid = ray.get(actor.pid.remote(), timeout=60)
    if how == "leave":
        actor.leave.remote()
    elif how.startswith("end"):
        actor.end.remote(int(how[-1]))
    elif how == "terminate":
        actor.__ray_terminate__.remote()
    elif how == "sigterm":
        os.kill(pid, signal.SIGTERM)
    else:
        del actor
    assert wait_exit(pid)
    assert notes.read_text().split() == BOTH


@pytest.mark.parametrize("how", ["leave", "scope"])
def test_async_actors_have_them_too(ray, leaver, notes, wait_exit, how):
    class Waits(leaver):
        async def leave(self):
            ray.actor.exit_actor()

    actor = ray.remote(num_cpus=0)(Waits).remote()
    pid = ray.get(actor.pid.remote(), timeout=60)
    if how == "leave":
        actor.leave.remote()
    del actor
    assert wait_exit(pid)
    assert notes.read_text().split() == BOTH


@pytest.mark.parametrize("restarts", [0, 1])
def test_none_runs_in_an_actor_that_is_killed(ray, leaver, notes, wait_exit, restarts):
    actor = ray.remote(num_cpus=0, max_restarts=restarts)(leaver).remote()
    pid = ray.get(actor.pid.remote(), timeout=60)
    ray.kill(actor, no_restart=not restarts)
    assert wait_exit(pid)
    assert notes.read_text() == ""


def test_a_hook_that_raises_is_followed_by_the_handlers(ray, leaver, notes, wait_exit):
    def raises():
        raise ValueError("no last word")

    actor = ray.remote(num_cpus=0)(leaver).remote(raises)
    pid = ray.get(actor.pid.remote(), timeout=60)
    actor.__ray_terminate__.remote()
    assert wait_exit(pid)
    assert notes.read_text().split() == BOTH


@pytest.mark.mray_only("Ray 2.60 waits for it, whatever actor_graceful_shutdown_timeout_ms says")
def test_a_hook_that_does_not_end_is_cut_off(ray, leaver, notes, wait_exit):
    def hangs():
        import time

        time.sleep(600)

    actor = ray.remote(num_cpus=0)(leaver).remote(hangs)
    pid = ray.get(actor.pid.remote(), timeout=60)
    begun = time.monotonic()
    del actor
    assert wait_exit(pid)
    assert time.monotonic() - begun >= LIMIT_MS / 1000
    assert notes.read_text().split() == ["shutdown"]


def test_a_hook_may_use_the_actor_and_the_cluster(ray, leaver, notes, wait_exit):
    @ray.remote(num_cpus=0)
    class Keeper:
        def __init__(self):
            self.kept = None

        def keep(self, value):
            self.kept = value

        def told(self):
            return self.kept

    class Saves(leaver):
        def __init__(self, keeper):
            super().__init__()
            self.keeper, self.count = keeper, 7

        def __ray_shutdown__(self):
            me = ray.get_runtime_context().get_actor_id()
            ray.get(self.keeper.keep.remote((me, self.count)))

    keeper = Keeper.remote()
    actor = ray.remote(num_cpus=0)(Saves).remote(keeper)
    pid, actor_id = ray.get(actor.pid.remote(), timeout=60), actor._actor_id.hex()
    actor.__ray_terminate__.remote()
    assert wait_exit(pid)
    assert ray.get(keeper.told.remote(), timeout=60) == (actor_id, 7)


def test_exit_handlers_of_tasks_run_when_their_worker_retires(ray, notes, wait_exit):
    path = str(notes)

    @ray.remote(max_calls=1)
    def task():
        import atexit

        def last():
            with open(path, "a") as file:
                file.write("atexit")

        atexit.register(last)
        return os.getpid()

    assert wait_exit(ray.get(task.remote(), timeout=60))
    assert notes.read_text() == "atexit"
