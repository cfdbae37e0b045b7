"""What a worker takes from its peers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mray.runtime.worker import Worker
from mray.wire.messages import Address, PushTasks, TaskSpec, TaskTemplate

OWNER, STRANGER = b"o" * 28, b"s" * 28


@pytest.mark.parametrize(("sender", "taken"), [(OWNER, 1), (STRANGER, 0)])
def test_tasks_are_taken_of_their_owner_alone(sender: bytes, taken: int) -> None:
    # Replies go to the owner that is named: one that cannot be dialled would hold up all others'.
    put: list[Any] = []
    worker: Any = SimpleNamespace(
        _templates={}, _blocked=False, _kick=lambda: None,
        executor=SimpleNamespace(actor_spec=None, pending={}, put=put.append),
        rt=SimpleNamespace(
            address=Address(b"w", b"n"), serializers=SimpleNamespace(wanted=0),
        ),
    )  # fmt: skip
    template = TaskTemplate(1, b"f", "f", 1, b"job1", {})
    tasks = [TaskSpec(b"t" * 24, 1, 0)]
    Worker._push(worker, sender, PushTasks(Address(OWNER, b"n"), [template], tasks))
    assert len(put) == len(worker.executor.pending) == taken
    assert len(worker._templates) == taken
