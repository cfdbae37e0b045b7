"""Progress bars of tasks, drawn by the driver."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

pytest.importorskip("tqdm")

pytestmark = pytest.mark.conformance


@pytest.fixture
def module(engine):
    return importlib.import_module(f"{engine.__name__}.experimental.tqdm_ray")


PROGRAM = """
import {engine} as ray
from {engine}.experimental import tqdm_ray

@ray.remote
def work():
    bar = tqdm_ray.tqdm(desc="in a task", total=30, flush_interval_s=0)
    for _ in range(30):
        bar.update()
    bar.close()

ray.init(num_cpus=1)
ray.get(work.remote())
bar = tqdm_ray.tqdm(range(7), desc="in the driver", flush_interval_s=0)
assert list(bar) == list(range(7))
bar.close()
tqdm_ray.safe_print("printed")
ray.shutdown()
"""


def test_the_driver_draws_the_bars_of_tasks(engine):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(engine=engine.__name__)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "printed" in done.stdout
    assert "in a task: 100%" in done.stderr
    assert "30.0/30.0" in done.stderr
    assert "in the driver: 100%" in done.stderr
    assert "magic" not in done.stdout + done.stderr
    assert "__mray" not in done.stdout + done.stderr


def test_a_bar_counts(module):
    bar = module.tqdm(["a", "b", "c"], desc="three", unit="letters", position=1)
    assert (bar.total, bar.n) == (3, 0)
    assert list(bar) == ["a", "b", "c"]
    assert bar.n == 3
    bar.set_description("more")
    bar.refresh()
    bar.total = 10
    bar.update(4)
    assert (bar.total, bar.n) == (10, 7)
    bar.close()
    assert module.tqdm(iter(())).total is None
    with pytest.raises(ValueError):
        next(iter(module.tqdm(total=3)))
