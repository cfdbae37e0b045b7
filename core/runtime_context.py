"""What a running task can ask about itself: get_runtime_context()."""

from __future__ import annotations

import json
import os
from typing import Any

from mray import current
from mray.actor import ActorHandle, handle_of
from mray.id_types import ActorID, JobID, NodeID, PlacementGroupID, TaskID
from mray.ids import NIL_ACTOR
from mray.placement import plain
from mray.resources import to_float
from mray.runtime.accelerators import OTHER_KINDS
from mray.runtime.calls import cancelled, present_work
from mray.runtime_env import RuntimeEnv


class RuntimeContext:
    """Ids and names of this process and what it runs. Ids are hex strings, as in Ray."""

    def get_job_id(self) -> str:
        """The job's id."""
        return current.get().job_id.hex()

    def get_node_id(self) -> str:
        """The id of the node this process runs on."""
        return current.get().node.node_id.hex()

    def get_worker_id(self) -> str:
        """The id of this process."""
        return current.get().process_id.hex()

    def get_task_id(self) -> str | None:
        """The id of the task this thread runs, None in a driver."""
        work = present_work()
        return work.spec.task_id.hex() if work is not None else None

    def get_task_name(self) -> str | None:
        """The name of the task this thread runs, None in a driver."""
        work = present_work()
        return work.template.name if work is not None else None

    def get_actor_id(self) -> str | None:
        """The id of the actor this process is, None if it is none."""
        spec = current.get().actor_spec
        return spec.actor_id.hex() if spec is not None else None

    def get_actor_name(self) -> str | None:
        """The name of the actor this process is, None if it has none."""
        spec = current.get().actor_spec
        return spec.name if spec is not None else None

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task or actor holds."""
        spec = current.get().actor_spec
        if spec is not None:
            return to_float(plain(spec.resources))
        work = present_work()
        return to_float(work.template.resources) if work is not None else {}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The devices of the running task or actor, by kind; in a driver none. mray hands out GPUs
        only, the other kinds of Ray's are there and empty."""
        ids: dict[str, list[str]] = {"GPU": [str(device) for device in get_gpu_ids()]}
        return ids | {kind: [] for kind in OTHER_KINDS}

    def get_placement_group_id(self) -> str | None:
        """The id of the placement group that the task or actor runs in, None for none."""
        return current.get().placing.current_group().hex() or None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what is submitted here runs in the same placement group."""
        return bool(current.get().scope_group)

    def is_canceled(self) -> bool:
        """Whether the running task was cancelled: for those that cannot be interrupted, to end
        early. RuntimeError in a driver and in an async actor, whose calls get CancelledError."""
        rt = current.get()
        if rt.mode != "worker":
            raise RuntimeError("is_canceled() is for tasks and actors: this process is a driver")
        if rt.actor_spec is not None and rt.actor_spec.is_async:
            raise RuntimeError("is_canceled() is not for async actors: they get CancelledError")
        work = present_work()
        return work is not None and work.spec.task_id in cancelled

    @property
    def runtime_env(self) -> RuntimeEnv:
        """The environment of this process, what was local in it replaced by its package."""
        return RuntimeEnv.read(current.get().environment)

    def get_runtime_env_string(self) -> str:
        """The same as JSON."""
        return json.dumps(self.runtime_env, sort_keys=True)

    @property
    def namespace(self) -> str:
        """The namespace names of actors are looked up in."""
        return current.get().namespace

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor has been restarted."""
        return current.get().incarnation > 0

    def get_node_labels(self) -> dict[str, str]:
        """The labels of the node this process runs on."""
        return dict(current.get().node.labels)

    def get_session_name(self) -> str:
        """The name of the cluster's session on this node."""
        return os.path.basename(current.get().node.session_dir.rstrip("/"))

    def get_temp_dir(self) -> str:
        """The directory that sessions are made under on this node."""
        return os.path.dirname(current.get().node.session_dir.rstrip("/"))

    @property
    def job_id(self) -> JobID:
        """The job's id."""
        return JobID(current.get().job_id)

    @property
    def node_id(self) -> NodeID:
        """The id of the node this process runs on."""
        return NodeID(current.get().node.node_id)

    @property
    def task_id(self) -> TaskID:
        """The id of the task this thread runs. AssertionError in a driver, as in Ray."""
        work = present_work()
        assert work is not None, "a driver runs no task: get_task_id() says None there"
        return TaskID(work.spec.task_id)

    @property
    def actor_id(self) -> ActorID:
        """The id of the actor this process is. AssertionError in a driver, as in Ray; the id of
        nothing in a task."""
        rt = current.get()
        assert rt.mode == "worker", "a driver is no actor: get_actor_id() says None there"
        return ActorID(rt.actor_spec.actor_id) if rt.actor_spec is not None else ActorID.nil()

    @property
    def current_placement_group_id(self) -> PlacementGroupID:
        """The id of the placement group that the task or actor runs in; that of nothing if none."""
        group = current.get().placing.current_group()
        return PlacementGroupID(group) if group else PlacementGroupID.nil()

    @property
    def current_actor(self) -> ActorHandle:
        """A handle of the actor this process is. RuntimeError in a task or driver."""
        spec = current.get().actor_spec
        if spec is None:
            raise RuntimeError("this process is no actor")
        return handle_of(spec)

    @property
    def gcs_address(self) -> str:
        """The head's address."""
        head = current.get().head
        return head.tcp or head.ipc

    def get(self) -> dict[str, Any]:
        """The main ids in one dict."""
        return {
            "job_id": self.get_job_id(),
            "node_id": self.get_node_id(),
            "worker_id": self.get_worker_id(),
            "task_id": self.get_task_id(),
            "actor_id": self.get_actor_id() or NIL_ACTOR.hex(),
            "pid": os.getpid(),
            "namespace": self.namespace,
        }


def get_gpu_ids() -> list[int] | list[str]:
    """The GPUs of the running task or actor, in a driver none: numbers, or what was named by the
    CUDA_VISIBLE_DEVICES that this process was started with."""
    held = current.get().accelerators
    return held.gpu_ids() if held is not None else []


def get_runtime_context() -> RuntimeContext:
    """The context of the calling thread; starts mray in a driver that has not."""
    current.get()
    return RuntimeContext()
