"""ray._private.worker says which kind of process asks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import mray
from mray import current
from mray._private import worker
from mray._private.worker import global_worker


@pytest.mark.parametrize(
    ("runtime", "mode", "connected"),
    [
        (None, None, False),
        (SimpleNamespace(mode="driver", closed=False), mray.SCRIPT_MODE, True),
        (SimpleNamespace(mode="worker", closed=False), mray.WORKER_MODE, True),
    ],
)
def test_the_mode_is_that_of_the_process(monkeypatch, runtime, mode, connected) -> None:
    monkeypatch.setattr(current, "runtime", runtime)
    assert global_worker.mode == mode
    assert global_worker.connected is connected


def test_modes_are_numbers_as_in_ray() -> None:
    assert (mray.SCRIPT_MODE, mray.WORKER_MODE, worker.LOCAL_MODE) == (0, 1, 2)
    assert mray._private.worker.global_worker is global_worker
