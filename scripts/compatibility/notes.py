"""What COMPATIBILITY.md says of single names, beyond what mray itself can be asked.

Name -> state ("" for the one that is found out) and note. A name that is there and called absent is
an error. "options.x" is an option, "init.x" an
argument of init(), "runtime_env.x" a field; other names are as below ``ray.``. "x.*" stands for all
below x that has no note of its own.
"""

from __future__ import annotations

from typing import Final

_AUTOSCALER: Final = "mray starts no machines: add nodes by `mray start --address`"
_TENSORS: Final = "tensors go through the object store, read in place"
_DASK: Final = "show progress by a RayDaskCallback, or look at `mray list tasks`"

NOTES: Final[dict[str, tuple[str, str]]] = {
    # -- options
    "options.accelerator_type": ("", "the resource `accelerator_type:NAME`; nodes name theirs"),
    "options.enable_tensor_transport": ("", _TENSORS),
    "options.tensor_transport": ("", _TENSORS),
    "options._num_objects_per_yield": ("", "an item is one object"),
    "options._labels": ("", "of a call they change nothing in Ray either"),
    "options.object_store_memory": (
        "", "of tasks refused, of actors deprecated and nothing is reserved, as in Ray"
    ),
    "options.max_oom_restarts": ("", "restarts of an actor that memory ended"),
    "options.writable_args": ("", "these arguments are private copies that can be written to"),
    # -- init()
    "init.address": ("differs", "`ray://` is refused: there is no Ray Client"),
    "init.object_store_memory": ("", "in bytes; 30 % of the memory by default"),
    "init._metrics_export_port": ("", "`metrics_export_port` in `_system_config`"),
    "init._redis_password": ("differs", "changes nothing: no Redis is asked"),
    "init._redis_username": ("differs", "changes nothing: no Redis is asked"),
    "init._skip_env_hook": ("", "there is no such hook"),
    "init._system_config": ("differs", "mray's own settings; `mray config list` has their names"),
    "init.include_dashboard": ("", "there is no dashboard"),
    "init.local_mode": ("", "call the functions themselves, or `init(num_cpus=1)`"),
    # -- runtime environments
    "runtime_env.conda": ("", "use `pip`, or `py_executable` with an environment that is there"),
    "runtime_env.container": ("", "use `py_executable`"),
    "runtime_env.image_uri": ("", "use `py_executable`"),
    "runtime_env.java_jars": ("", "mray runs Python only"),
    "runtime_env.pip": ("", "packages, or a file of requirements, or a dict with options of pip"),
    "runtime_env.uv": ("", "use `pip`"),
    "runtime_env.py_modules": ("", "local directories, wheels and zips, no remote URIs"),
    "runtime_env.working_dir": ("", "a local directory or zip, no remote URIs"),
    # -- names
    "autoscaler.sdk.*": ("absent", _AUTOSCALER),
    "autoscaler.sdk.request_resources": ("differs", "changes nothing, and says so"),
    "cluster_utils.AutoscalingCluster": ("absent", _AUTOSCALER),
    "data": ("differs", "two names that libraries import, which raise when they are called"),
    "init": (
        "differs",
        "no handler of SIGTERM is set: it ends a driver at once, without exit handlers",
    ),
    "experimental.set_resource": ("", "raises, as in Ray: resources belong to the start of a node"),
    "experimental.*": ("absent", _TENSORS),
    "internal": ("absent", "Ray's own use"),
    "job_submission.JobSubmissionClient": (
        "differs",
        "delete_job() raises NotImplementedError; `entrypoint_num_*` and "
        "`entrypoint_resources` are refused",
    ),
    "job_submission.JobErrorType": ("absent", "errors of jobs are told as text"),
    "util.accelerators.NVIDIA_A100_40G": ("absent", "not there in Ray either, though it lists it"),
    "util.accelerators.NVIDIA_A100_80G": ("absent", "not there in Ray either, though it lists it"),
    "util.accelerators.tpu": ("absent", "TPUs are custom resources"),
    "util.annotations.AnnotationType": ("absent", "decorate with PublicAPI and its like"),
    "util.dask.ProgressBarCallback": ("absent", _DASK),
    "util.dask.dataframe_optimize": ("absent", "dask optimizes frames itself"),
    "util.debug.Suspect": ("absent", "leaks are shown by `mray memory`"),
    "util.serialization.StandaloneSerializationContext": ("absent", "use `ray.cloudpickle`"),
    "util.state.StateApiClient": ("absent", "the functions of `ray.util.state` need no client"),
    "util.state.list_cluster_events": ("absent", "`mray logs raylet` and `mray why` tell"),
    "util.state.list_runtime_envs": ("absent", "a task's is in `mray get tasks`"),
    "util.placement_group.validate_placement_group": ("absent", "placement_group() does it"),
    # -- members
    "ActorClass.bind": ("absent", "there are no compiled graphs: call .remote()"),
    "ObjectRef.from_hex": ("absent", "raises in Ray too: use `from_binary(bytes.fromhex(text))`"),
    "ObjectRef.owner_address": ("absent", "`mray memory` names the owner"),
    "ObjectRef.redis_shard_hash": ("absent", "there is no Redis"),
    "ObjectRef.tensor_transport": ("absent", _TENSORS),
    "runtime_context.RuntimeContext.get_task_function_name": ("absent", "use get_task_name()"),
    "runtime_context.RuntimeContext.get_resource_ids": ("absent", "use get_accelerator_ids()"),
}
