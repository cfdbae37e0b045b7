"""The error of a task that could not be run, from why: its worker died, or none can be had."""

from __future__ import annotations

from mray.exceptions import (
    RayError,
    RuntimeEnvSetupError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from mray.wire.messages import DeathCause


def failure_of(name: str, kind: str, text: str, cause: DeathCause | None) -> RayError:
    """For a task of this name. ``kind`` as in LeaseRefused, or group_removed, unschedulable;
    ``cause`` of a worker's death."""
    if cause is not None:
        return WorkerCrashedError(
            task_name=name,
            pid=cause.pid or None,
            node=cause.node_id.hex()[:8],
            exit_code=cause.exit_code,
            signal=cause.signal,
            cause_text=cause.text,
            stderr_tail=cause.stderr_tail,
        )
    if kind == "env_failed":
        return RuntimeEnvSetupError(text)
    if kind == "group_removed":
        return TaskPlacementGroupRemoved(text)
    if kind == "unschedulable":
        return TaskUnschedulableError(f"{name}: {text}")
    return WorkerCrashedError(text, task_name=name, cause_text=text)
