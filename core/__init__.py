"""mray: Ray Core's API over a small pure-Python cluster runtime.

Public names only. The runtime, ZeroMQ and numpy are imported when a runtime starts.
"""

from __future__ import annotations

if __name__ != "mray":
    raise ImportError("this folder is installed as 'mray'; run: pip install -e .")

from mray import absent, exceptions
from mray.actor import ActorClass, ActorHandle, method
from mray.api import (
    available_resources,
    cluster_resources,
    get,
    get_actor,
    init,
    is_initialized,
    kill,
    nodes,
    put,
    shutdown,
    wait,
)
from mray.cancelling import cancel
from mray.decorator import remote
from mray.object_ref import ObjectRef
from mray.object_ref_generator import DynamicObjectRefGenerator, ObjectRefGenerator
from mray.remote_function import RemoteFunction
from mray.version import RAY_VERSION, VERSION

#: What scripts that compare ray.__version__ expect; mray's own version is the local part. The first
#: three parts between dots are numbers: scripts split there.
__version__ = f"{RAY_VERSION}.post0+mray{VERSION}"

#: Ray's old name of ObjectRef.
ObjectID = ObjectRef

absent.install()

#: Names of mray.id_types.
_IDS = frozenset(
    ("ActorClassID", "ActorID", "FunctionID", "JobID", "NodeID", "PlacementGroupID", "TaskID",
     "UniqueID", "WorkerID")
)  # fmt: skip
_LAZY = {
    "_private": "mray._private",
    "_raylet": "mray._raylet",
    "autoscaler": "mray.autoscaler",
    "actor": "mray.actor",
    "cloudpickle": "mray.cloudpickle",
    "data": "mray.data",
    "runtime_env": "mray.runtime_env",
    "experimental": "mray.experimental",
    "util": "mray.util",
    "runtime_context": "mray.runtime_context",
}


def __getattr__(name: str) -> object:
    if name in ("get_runtime_context", "get_gpu_ids"):
        from mray import runtime_context

        return getattr(runtime_context, name)
    if name in _IDS:
        from mray import id_types

        return getattr(id_types, name)
    if name == "on_memory_pressure":  # Needs msgspec.
        from mray.memory_pressure import on_memory_pressure

        return on_memory_pressure
    if name == "timeline":
        from mray.trace import timeline

        return timeline
    if name in ("SCRIPT_MODE", "WORKER_MODE"):
        from mray._private import worker

        return getattr(worker, name)
    if name in _LAZY:
        import importlib

        return importlib.import_module(_LAZY[name])
    absent.refuse_attribute("", name)


__all__ = [
    "SCRIPT_MODE",
    "WORKER_MODE",
    "ActorClass",
    "ActorClassID",
    "ActorHandle",
    "ActorID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "RemoteFunction",
    "TaskID",
    "UniqueID",
    "WorkerID",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "on_memory_pressure",
    "put",
    "remote",
    "shutdown",
    "timeline",
    "wait",
]
