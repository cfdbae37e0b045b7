"""The engine that the conformance tests talk to: mray, or real Ray as the oracle.

MRAY_CONFORMANCE_ENGINE names it (`mray` by default). scripts/conformance runs the suite on mray and
then, where there is a Python with ray, on Ray: a test that Ray fails describes no behaviour of Ray.
The files run with that Python too, which has neither mray nor the plugins of the other tests.

How to write one: take the fixture `ray` instead of importing it. Define remote functions, and all
that they use, inside the test: workers cannot import test modules. Never wait by sleeping: hold
tasks at a `gate`, wait for processes with `wait_exit`, watch objects through a `glass`. What
differs from Ray on purpose is marked `mray_only` with the reason.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import select
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ENGINE = os.environ.get("MRAY_CONFORMANCE_ENGINE", "mray")

#: More CPUs than the machine may have: they are only counted, and the tests count on them.
CPU_COUNT = 4

#: Longer than anything takes that works; what is waited for, ends the wait.
PATIENCE_S = 60


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "conformance: holds for Ray and for mray")
    config.addinivalue_line("markers", "mray_only(reason): holds for mray and not for Ray")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("mray_only"):
        if ENGINE == "ray":
            pytest.skip(f"differs from Ray: {mark.args[0]}")


def pytest_report_header() -> str:
    return f"conformance engine: {ENGINE}"


@pytest.fixture(scope="session")
def engine() -> ModuleType:
    """The module under test, not connected."""
    if ENGINE == "ray":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    elif ENGINE != "mray":
        raise pytest.UsageError(f"MRAY_CONFORMANCE_ENGINE={ENGINE}: it must be mray or ray")
    return importlib.import_module(ENGINE)


@pytest.fixture(scope="module")
def ray(engine: ModuleType) -> Iterator[ModuleType]:
    """The module under test, connected to a cluster of its own with 4 CPUs, one a test file."""
    engine.init(address="local", num_cpus=CPU_COUNT, log_to_driver=False)
    yield engine
    engine.shutdown()


class Gate:
    """Holds tasks back until the test lets them go. Opening a FIFO waits for its other end."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._path = str(path)
        self._writer: int | None = None

    def waiter(self) -> Callable[[], None]:
        """A function for remote code: it returns once the gate is open."""
        path = self._path

        def wait() -> None:
            import os

            os.close(os.open(path, os.O_RDONLY))

        return wait

    def open(self) -> None:
        """Let everyone through, those who come later too."""
        if self._writer is None:
            # Read and write: does not wait for someone to come.
            self._writer = os.open(self._path, os.O_RDWR)

    def wait_arrival(self) -> None:
        """Open the gate, having waited for someone to stand before it."""
        if self._writer is None:
            self._writer = os.open(self._path, os.O_WRONLY)

    def close(self) -> None:
        if self._writer is not None:
            os.close(self._writer)


@pytest.fixture
def make_gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Makes gates, and opens them at the end so that nothing stays behind one."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate(tmp_path / f"gate{len(gates)}"))
        return gates[-1]

    yield make
    for gate in gates:
        gate.open()
        gate.close()


@pytest.fixture
def gate(make_gate: Callable[[], Gate]) -> Gate:
    return make_gate()


class Tally:
    """Counts, across processes, how often remote code came by."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self._path = path

    def adder(self) -> Callable[[], int]:
        """A function for remote code: it counts one and returns the count so far."""
        path = str(self._path)

        def add() -> int:
            import os

            file = os.open(path, os.O_WRONLY | os.O_APPEND)
            try:
                os.write(file, b"x")
                return os.fstat(file).st_size
            finally:
                os.close(file)

        return add

    @property
    def count(self) -> int:
        return self._path.stat().st_size


@pytest.fixture
def tally(tmp_path: Path) -> Tally:
    return Tally(tmp_path / "tally")


class Hold:
    """Code for remote functions that says it has begun and then takes its time, in small steps:
    Ray interrupts between two steps of Python only."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def body(self) -> Callable[..., str]:
        """The function: how many seconds it takes, and under which name it says it has begun."""
        path = self._path

        def run(seconds: float = 60.0, name: str = "") -> str:
            import time

            with open(path + name, "w"):
                pass
            give_up_at = time.monotonic() + seconds
            while time.monotonic() < give_up_at:
                time.sleep(0.01)
            return "done"

        return run

    def wait(self, name: str = "") -> None:
        """Until it has begun."""
        give_up_at = time.monotonic() + PATIENCE_S
        while not os.path.exists(self._path + name):
            assert time.monotonic() < give_up_at, "it never begins"
            time.sleep(0.01)


@pytest.fixture
def hold(tmp_path: Path) -> Hold:
    return Hold(tmp_path / "begun")


@pytest.fixture
def cancelled(ray: ModuleType) -> Callable[[Any], BaseException]:
    """Waits for the error of a cancelled task."""

    def error(ref: Any) -> BaseException:
        with pytest.raises(ray.exceptions.TaskCancelledError) as caught:
            ray.get(ref, timeout=PATIENCE_S)
        return caught.value

    return error


def _wait_exit(pid: int) -> bool:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(process, select.POLLIN)
        return bool(poller.poll(PATIENCE_S * 1000))
    finally:
        os.close(process)


@pytest.fixture
def wait_exit() -> Callable[[int], bool]:
    """Waits until the process with a pid is gone; False when it will not go."""
    return _wait_exit


class Glass:
    """Watches, from the owner, an object that it does not keep alive.

    A reference that plain pickle wrote is not counted, in Ray and in mray. While the object lives
    it can be read; later a get of it times out (in mray at once).
    """

    def __init__(self, module: ModuleType, ref: Any) -> None:
        self._ray = module
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # mray warns of the pickling.
            self._pickled = pickle.dumps(ref)

    def gone(self) -> bool:
        """Whether the object is freed. It has to be there or gone, not under way."""
        errors = self._ray.exceptions
        try:
            self._ray.get(pickle.loads(self._pickled), timeout=0.5)
        except (errors.GetTimeoutError, errors.ObjectLostError):
            return True
        return False

    def wait_gone(self) -> bool:
        """Wait until the object is freed; False when it stays."""
        give_up_at = time.monotonic() + PATIENCE_S / 3
        while not self.gone():
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.02)
        return True


@pytest.fixture
def glass(ray: ModuleType) -> Callable[[Any], Glass]:
    """Makes watchers of objects that the test owns."""
    return lambda ref: Glass(ray, ref)


@pytest.fixture
def disconnected(engine: ModuleType) -> Iterator[ModuleType]:
    """The module under test, connected by the test itself and disconnected after it."""
    yield engine
    with contextlib.suppress(RuntimeError):
        engine.shutdown()
