"""The results of mray.util.state: one class for each kind, with Ray's names of fields.

Values. A field that is told only with ``detail=True`` is None without. A field of Ray's that mray
knows nothing of is left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass
class StateSchema:
    """Base: fields are read as attributes or by ``[...]``."""

    def __getitem__(self, name: str) -> Any:
        if name not in self.columns():
            raise KeyError(f"{type(self).__name__} has no field {name!r}")
        return getattr(self, name)

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or ``default`` where there is none of this name."""
        return getattr(self, name) if name in self.columns() else default

    @classmethod
    def columns(cls) -> set[str]:
        """The names of all fields."""
        return {field.name for field in fields(cls)}

    def asdict(self) -> dict[str, Any]:
        """The fields as a dict."""
        return asdict(self)


@dataclass
class TaskState(StateSchema):
    """An attempt of a task."""

    task_id: str
    attempt_number: int
    name: str
    state: str
    job_id: str
    actor_id: str | None
    type: str
    func_or_class_name: str
    parent_task_id: str
    node_id: str | None
    worker_id: str | None
    worker_pid: int | None
    error_type: str | None
    duration_s: float | None = None
    #: Why it has not ended.
    waits_for: str | None = None
    required_resources: dict[str, float] | None = None
    creation_time_ms: int | None = None
    start_time_ms: int | None = None
    end_time_ms: int | None = None
    error_message: str | None = None
    events: list[dict[str, Any]] | None = None
    owner_id: str | None = None
    peak_memory_bytes: int | None = None


@dataclass
class ActorState(StateSchema):
    """An actor."""

    actor_id: str
    class_name: str
    state: str
    job_id: str
    name: str
    node_id: str | None
    pid: int | None
    #: Why it is not alive yet.
    waits_for: str | None = None
    worker_id: str | None = None
    num_restarts: int | None = None
    restarts_left: int | None = None
    death_cause: dict[str, Any] | None = None


@dataclass
class NodeState(StateSchema):
    """A node."""

    node_id: str
    node_ip: str
    is_head_node: bool
    state: str
    state_message: str | None
    node_name: str
    resources_total: dict[str, float]
    labels: dict[str, str]


@dataclass
class WorkerState(StateSchema):
    """A worker or driver. ``worker_type``: WORKER or DRIVER. ``exit_type``: of one that has ended,
    what mray.worker_exits says."""

    worker_id: str
    is_alive: bool
    worker_type: str
    exit_type: str | None
    node_id: str
    ip: str
    pid: int
    state: str
    job_id: str | None = None
    actor_id: str | None = None
    age_s: float | None = None
    exit_detail: str | None = None


@dataclass
class JobState(StateSchema):
    """A job: a driver, submitted or not. ``type``: SUBMISSION or DRIVER."""

    job_id: str | None
    submission_id: str | None
    type: str
    status: str
    entrypoint: str
    message: str
    start_time: int | None
    end_time: int | None
    metadata: dict[str, str]
    driver_exit_code: int | None
    driver_node_id: str | None


@dataclass
class ObjectState(StateSchema):
    """An object as one process holds it in one way."""

    object_id: str
    object_size: int | None
    task_status: str
    reference_type: str
    call_site: str
    type: str
    pid: int
    ip: str


@dataclass
class PlacementGroupState(StateSchema):
    """A placement group."""

    placement_group_id: str
    name: str
    creator_job_id: str
    state: str
    #: Why it is not created, or why it was removed.
    reason: str | None = None
    #: Index, resources and node of each.
    bundles: list[dict[str, Any]] | None = None
    is_detached: bool | None = None
    strategy: str | None = None
    stats: dict[str, Any] | None = None
