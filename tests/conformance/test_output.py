"""What tasks and actors print, as the driver shows it: programs of their own, read from outside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.conformance

HEAD = """
import os, sys
import {engine} as ray
"""


#: Ray drops what it has not shown when the driver ends: it ends once it is told to.
WAIT = "sys.stdin.readline()\nray.shutdown()\n"


@pytest.fixture
def run(engine, tmp_path):
    """Runs a program until it has shown so many lines of workers, and to its end; its lines on
    standard output and on standard error."""

    def run(program, count, **env):
        if engine.__name__ == "ray":
            env |= {"RAY_COLOR_PREFIX": "0", "RAY_DEDUP_LOGS": "0"}
        out, err = tmp_path / "out", tmp_path / "err"
        with (
            out.open("w") as to_out,
            err.open("w") as to_err,
            subprocess.Popen(
                [sys.executable, "-c", HEAD.format(engine=engine.__name__) + program + WAIT],
                stdin=subprocess.PIPE, stdout=to_out, stderr=to_err, text=True, cwd=tmp_path,
                env={**os.environ, **env},
            ) as driver,
        ):  # fmt: skip
            give_up_at = time.monotonic() + 60
            while driver.poll() is None and time.monotonic() < give_up_at:
                shown = out.read_text() + err.read_text()
                if len(without_pids(shown.splitlines())) >= count and "done" in shown:
                    break
                time.sleep(0.05)
            driver.communicate("\n", timeout=60)
        assert driver.returncode == 0, out.read_text()[-2000:] + err.read_text()[-2000:]
        return out.read_text().splitlines(), err.read_text().splitlines()

    return run


def without_pids(lines):
    """The lines of workers, with P for their pids."""
    return sorted(re.sub(r"pid=\d+", "pid=P", line) for line in lines if "pid=" in line)


def test_lines_say_which_task_or_actor_printed_them(run):
    out, err = run(
        """
@ray.remote
def task():
    print("a task")
    print("to errors", file=sys.stderr)

@ray.remote
class Plain:
    def __init__(self):
        print("a constructor")

    def say(self, text):
        print(text)

class Outer:
    class Inner:
        def say(self, text):
            print(text)

@ray.remote
class Waits:
    async def say(self, text):
        print(text)

def outer():
    def nested():
        print("nested")
    return nested

@ray.remote
def silent():
    return 1

ray.init(address="local", num_cpus=2)
ray.get([silent.remote() for _ in range(10)])
ray.get(task.remote())
ray.get(task.options(name="called").remote())
ray.get(ray.remote(outer()).remote())
ray.get(ray.remote(lambda: print("a lambda")).remote())
plain = Plain.remote()
ray.get(plain.say.remote("a method"))
ray.get(plain.say.options(name="renamed").remote("a renamed call"))
named = Plain.options(name="name", num_cpus=0).remote()
ray.get(named.say.remote("a named actor"))
threaded = Plain.options(max_concurrency=2, num_cpus=0).remote()
ray.get(threaded.say.remote("a threaded actor"))
inner = ray.remote(Outer.Inner).remote()
ray.get(inner.say.remote("an inner class"))
waits = Waits.remote()
ray.get(waits.say.remote("an async actor"))
print("done")
""",
        13,
    )
    assert without_pids(out) == sorted(
        [
            "(task pid=P) a task",
            "(called pid=P) a task",
            "(nested pid=P) nested",
            "(<lambda> pid=P) a lambda",
            *["(Plain pid=P) a constructor"] * 3,
            "(Plain pid=P) a method",
            "(Plain pid=P) a renamed call",
            "(Plain pid=P) a named actor",
            "(Plain pid=P) a threaded actor",
            "(Inner pid=P) an inner class",
            "(Waits pid=P) an async actor",
        ]
    )
    assert without_pids(err) == ["(called pid=P) to errors", "(task pid=P) to errors"]


def test_an_actor_may_say_what_it_is_called(run):
    out, _ = run(
        """
class Base:
    def __repr__(self):
        return f"Base({self.number})"

@ray.remote
class Counter(Base):
    def __init__(self):
        self.number = 1
        print("made")

    def add(self):
        self.number += 1
        print("added")

ray.init(address="local", num_cpus=1)
counter = Counter.remote()
ray.get([counter.add.remote(), counter.add.remote()])
print("done")
""",
        3,
    )
    # Asked once: right after it was made.
    assert without_pids(out) == [
        "(Base(1) pid=P) added",
        "(Base(1) pid=P) added",
        "(Counter pid=P) made",
    ]


PRINTS = """
@ray.remote
def prints():
    print("said")

ray.init(address="local", num_cpus=1{options})
ray.get(prints.remote())
print("done")
"""


def test_the_environment_switches_it_off(run):
    out, _ = run(PRINTS.format(options=""), 0, RAY_LOG_TO_DRIVER="0")
    assert not any("said" in line for line in out)


def test_an_argument_switches_it_off(run):
    out, _ = run(PRINTS.format(options=", log_to_driver=False"), 0)
    assert not any("said" in line for line in out)


def test_a_node_of_the_same_address_is_not_named(run):
    out, _ = run(
        """
import importlib
Cluster = importlib.import_module(f"{ray.__name__}.cluster_utils").Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1, resources={"there": 1})
cluster.wait_for_nodes()
ray.init(address=cluster.address)

@ray.remote(resources={"there": 1})
def there():
    print("from there")

ray.get(there.remote())
print("done")
""",
        1,
    )
    assert without_pids(out) == ["(there pid=P) from there"]
