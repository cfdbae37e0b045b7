"""How many threads numerical libraries are told to have."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.conformance


def test_numerical_libraries_are_told_of_the_cpus(ray):
    """Unless the user says how many threads they may have."""

    def threads():
        import os

        return os.environ.get("OMP_NUM_THREADS")

    task = ray.remote(threads)
    counts = [1, 2, 4, 0, 0.5, 1.5, 1]
    told = [ray.get(task.options(num_cpus=count).remote(), timeout=60) for count in counts]
    assert told == ["1", "2", "4", "1", "1", "1", "1"]

    @ray.remote
    class Actor:
        def threads(self):
            return threads()

    for options, count in (({}, "1"), ({"num_cpus": 3}, "3")):
        actor = Actor.options(**options).remote()
        assert ray.get(actor.threads.remote(), timeout=60) == count
        ray.kill(actor)
    env = {"env_vars": {"OMP_NUM_THREADS": "5"}}
    assert ray.get(task.options(num_cpus=2, runtime_env=env).remote(), timeout=60) == "5"
