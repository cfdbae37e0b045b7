"""Names of Ray that mray does not have, each with the reason, for the text of the error.

Owns the table and the finder that puts the reason into ModuleNotFoundError. Names that neither Ray
nor mray has are no business of this module.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_LIBRARY: Final = "to use it, install Ray and run the script without the alias"
_PYTHON: Final = "mray runs Python only"
_CLIENT: Final = "there is no Ray Client: run the driver on a node, or use mray submit"
_DEBUGGER: Final = "there is no debugger of tasks: `mray stack` shows where they are"
_GRAPHS: Final = "there are no compiled graphs and no channels: call .remote()"
_COLLECTIVE: Final = "use the library below it (torch.distributed, nccl, gloo) inside actors"
_STATE: Final = "use ray.util.state"
_TENSORS: Final = "tensors go through the object store and are read in place"

#: Below "ray.": what is not there -> why, or what to use. A module stands for all below it.
ABSENT: Final[dict[str, str]] = {
    "air": _LIBRARY,
    "llm": _LIBRARY,
    "rllib": _LIBRARY,
    "serve": _LIBRARY,
    "train": _LIBRARY,
    "tune": _LIBRARY,
    "workflow": "Ray has removed it",
    "dag": _GRAPHS,
    "client": _CLIENT,
    "ClientBuilder": _CLIENT,
    "client_builder": _CLIENT,
    "util.client": _CLIENT,
    "util.client_connect": _CLIENT,
    "util.connect": _CLIENT,
    "util.disconnect": _CLIENT,
    "cross_language": _PYTHON,
    "cpp_function": _PYTHON,
    "java_actor_class": _PYTHON,
    "java_function": _PYTHON,
    "Language": _PYTHON,
    "LoggingConfig": "logs are set up by the options of init() and by `mray config`",
    "dashboard": "there is no dashboard: `mray status`, `mray list` and `mray logs`",
    "widgets": "there is no dashboard: `mray status`, `mray list` and `mray logs`",
    "util.collective": _COLLECTIVE,
    "util.pdb": _DEBUGGER,
    "util.rpdb": _DEBUGGER,
    "util.ray_debugpy": _DEBUGGER,
    "util.debugpy": _DEBUGGER,
    "util.spark": "start the cluster by `mray start`",
    "util.tpu": "TPUs are custom resources: --resources '{\"TPU\": 4}'",
    "util.tracing": "there are no traces over processes: `mray timeline` shows when tasks ran",
    "util.get_node_instance_id": "mray knows nothing of clouds: nodes go by get_node_id()",
    "experimental.channel": _GRAPHS,
    "experimental.collective": _COLLECTIVE,
    "experimental.compiled_dag_ref": _GRAPHS,
    "experimental.shuffle": "it is a benchmark of Ray's own",
    "experimental.state": _STATE,
    "experimental.rdt": _TENSORS,
    **dict.fromkeys(
        (
            "experimental.CommunicatorMetadata",
            "experimental.RDTManager",
            "experimental.TensorTransportManager",
            "experimental.TensorTransportMetadata",
            "experimental.deregister_nixl_memory",
            "experimental.register_nixl_memory",
            "experimental.register_nixl_memory_pool",
            "experimental.register_tensor_transport",
            "experimental.set_nixl_cuda_stream",
            "experimental.set_target_device_for_ref",
            "experimental.set_target_for_ref",
            "experimental.wait_tensor_freed",
        ),
        _TENSORS,
    ),
    "job_submission.JobErrorType": "JobDetails.message says in words why a job failed",
    "util.state.StateApiClient": "call the functions of ray.util.state",
    "util.state.list_cluster_events": "`mray logs` and `mray why` tell what happened",
    "util.state.list_runtime_envs": "environments are told by the tasks that wait for them",
}


#: Modules that are there, of which nothing below is.
_LEAVES: Final = {"data": _LIBRARY}


def absent_part(name: str) -> tuple[str, str]:
    """What of ``ray.<name>`` is not there, and why; "" twice for what Ray does not have either."""
    part = name
    while part:
        if part in ABSENT:
            return part, ABSENT[part]
        if part in _LEAVES and part != name:
            return part, _LEAVES[part]
        part = part.rpartition(".")[0]
    return "", ""


def reason_of(name: str) -> str:
    """Why there is no ``ray.<name>``, as a sentence; "" for what Ray does not have either."""
    part, reason = absent_part(name)
    return f"mray provides Ray Core only: there is no ray.{name}; {reason}" if part else ""


def refuse_attribute(module: str, name: str) -> NoReturn:
    """Raise AttributeError for a name that module ``mray.<module>`` ("" for mray) does not have."""
    own = f"mray.{module}" if module else "mray"
    raise AttributeError(
        reason_of(f"{module}.{name}" if module else name)
        or f"module {own!r} has no attribute {name!r}"
    )


class Finder:
    """The last finder: it finds nothing, and says why where it knows. Cost: only of imports that
    fail anyway."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder. Raises ModuleNotFoundError for absent modules."""
        if name.startswith("mray."):
            part, _ = absent_part(name[len("mray.") :])
            if part:
                # Not mray's name: the error would be swallowed by `from mray import train`.
                raise ModuleNotFoundError(reason_of(name[len("mray.") :]), name=f"ray.{part}")
        return None


def install() -> None:
    """Have imports of absent modules say why. Idempotent."""
    if Finder not in sys.meta_path:
        sys.meta_path.append(Finder)
