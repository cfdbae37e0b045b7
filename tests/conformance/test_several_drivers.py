"""Several programs on one cluster: what is each one's own, what outlives it, what comes back."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.conformance
PATIENCE_S = 60

HEAD = """
import sys
import {engine} as ray
ray.init(address={address!r}, namespace={namespace!r}, log_to_driver={log!r})
"""


@pytest.fixture(scope="module")
def cluster(engine):
    kind = importlib.import_module(f"{engine.__name__}.cluster_utils").Cluster
    made = kind(initialize_head=True, head_node_args={"num_cpus": 4})
    engine.init(address=made.address, namespace="shared", log_to_driver=False)
    yield made
    engine.shutdown()
    made.shutdown()


@pytest.fixture
def start(engine, cluster, tmp_path):
    """Starts a program that is connected to the cluster."""
    started = []

    def start(program, namespace=None, log=False):
        head = HEAD.format(
            engine=engine.__name__, address=cluster.address, namespace=namespace, log=log
        )
        driver = subprocess.Popen(
            [sys.executable, "-c", head + program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
            env={**os.environ, "RAY_COLOR_PREFIX": "0"} if engine.__name__ == "ray" else None,
        )  # fmt: skip
        started.append(driver)
        return driver

    yield start
    for driver in started:
        driver.kill()
        driver.communicate()


APART = """
@ray.remote
def same():
    return "from {name}"

@ray.remote(num_cpus=0)
class Holder:
    def told(self):
        return "held by {name}"

holder = Holder.options(name="holder").remote()
print(ray.get([same.remote(), holder.told.remote()]), flush=True)
sys.stdin.readline()
print(ray.get([same.remote(), ray.get_actor("holder").told.remote()]), flush=True)
"""


def test_functions_and_names_are_each_ones_own(start):
    drivers = [start(APART.format(name=name)) for name in ("one", "two")]
    told = [driver.stdout.readline() for driver in drivers]
    again = [driver.communicate("\n", timeout=PATIENCE_S)[0] for driver in drivers]
    assert told == again == [f"['from {n}', 'held by {n}']\n" for n in ("one", "two")]


LEAVES = """
@ray.remote(num_cpus=1)
class Kept:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count

kept = Kept.options(name="kept", lifetime="detached").remote()
gone = Kept.options(name="gone").remote()
print(ray.get([kept.add.remote(), gone.add.remote()]), flush=True)
"""


def test_only_detached_actors_outlive_their_program(engine, start):
    ray = engine
    assert start(LEAVES, "shared").communicate(timeout=PATIENCE_S)[0] == "[1, 1]\n"
    kept = ray.get_actor("kept")
    assert ray.get(kept.add.remote(), timeout=PATIENCE_S) == 2
    give_up_at = time.monotonic() + PATIENCE_S
    while ray.available_resources().get("CPU") != 3:
        assert time.monotonic() < give_up_at, "the CPU of what ended comes back"
        time.sleep(0.05)
    with pytest.raises(ValueError, match="gone"):
        ray.get_actor("gone")
    assert (
        start("print(ray.get(ray.get_actor('kept', namespace='shared').add.remote()))").communicate(
            timeout=PATIENCE_S
        )[0]
        == "3\n"
    )
    ray.kill(kept)


PRINTS = """
@ray.remote
def prints():
    print("printed for {name}")

ray.get(prints.remote())
sys.stdin.readline()
"""


def test_output_is_shown_to_the_program_it_belongs_to(start):
    drivers = [start(PRINTS.format(name=name), log=True) for name in ("one", "two")]
    shown = [driver.stdout.readline() for driver in drivers]
    rest = [driver.communicate("\n", timeout=PATIENCE_S)[0] for driver in drivers]
    for name, line, others in zip(("one", "two"), shown, rest, strict=True):
        assert line.endswith(f") printed for {name}\n")
        assert others == ""


def test_idle_workers_that_own_something_are_kept(engine, cluster, tmp_path):
    ray, folder, count = engine, str(tmp_path), 8

    @ray.remote(num_cpus=0)
    def meet(number, value):
        import time

        open(f"{folder}/here{number}", "w").close()
        while len(os.listdir(folder)) < count:
            time.sleep(0.02)
        refs = [] if value is None else [ray.put(value)]
        return os.getpid(), refs

    met = [meet.remote(n, 7 if n % 2 else None) for n in range(count)]
    told = ray.get(met, timeout=PATIENCE_S)
    assert len({pid for pid, _ in told}) == count
    without = [pid for pid, refs in told if not refs]
    give_up_at = time.monotonic() + PATIENCE_S
    while all(os.path.exists(f"/proc/{pid}") for pid in without):
        assert time.monotonic() < give_up_at, "idle workers beyond the CPUs are ended"
        time.sleep(0.05)
    owned = [refs[0] for _, refs in told if refs]
    assert ray.get(owned, timeout=PATIENCE_S) == [7] * 4
