"""Clusters whose daemons are watched: what a fault leaves behind is found by quiescent.py."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mray
from mray import current
from mray.session_files import Session

from ..quiescent import UNPICKLE_HOOK, UNPICKLED, Watch, assert_quiescent

#: Starts a cluster of this process and watches it.
Begin = Callable[..., Watch]


@pytest.fixture(scope="module")
def begin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Begin]:
    """``begin(num_cpus=2, …)`` is init(), and the watch of the warm cluster. Daemons tell of what
    they unpickle. The cluster ends with the test file."""
    with pytest.MonkeyPatch.context() as patch:
        path = os.pathsep.join(filter(None, (UNPICKLE_HOOK, os.environ.get("PYTHONPATH"))))
        patch.setenv("PYTHONPATH", path)
        patch.setenv(UNPICKLED, str(tmp_path_factory.mktemp("unpickled") / "classes"))

        def start(**options: object) -> Watch:
            options.setdefault("num_cpus", 2)
            options.setdefault("log_to_driver", False)
            mray.init(**options)  # type: ignore[arg-type]
            warm_up()
            return Watch()

        yield start
        mray.shutdown()


def warm_up() -> None:
    """Every CPU has its worker, and each has run something."""
    import time

    import numpy

    def work(x: int) -> int:
        time.sleep(0.05)
        return x

    task = mray.remote(work)
    count = int(mray.cluster_resources()["CPU"])
    assert mray.get([task.remote(i) for i in range(2 * count)], timeout=30)
    assert mray.get(mray.put(numpy.zeros(1 << 20, "uint8"))).nbytes == 1 << 20


@pytest.fixture(scope="module")
def watch(begin: Begin) -> Watch:
    """A cluster of two CPUs, for all tests of a file."""
    return begin()


@pytest.fixture
def at_rest(watch: Watch, request: pytest.FixtureRequest) -> Iterator[None]:
    """After the test the cluster has to come to rest."""
    yield
    gc.collect()
    marker = request.node.get_closest_marker("log_lines")
    assert_quiescent(watch, allowed=marker.args if marker else ())


@pytest.fixture
def session() -> Session:
    """The session of the cluster that this process is connected to."""
    return Session(current.get().node.session_dir)


@pytest.fixture
def note(tmp_path: Path) -> Callable[[str], None]:
    """Write a line that other processes wait for."""
    return lambda name: (tmp_path / name).touch()
