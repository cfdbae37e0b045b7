"""Reads the public names of an installed Ray, names only: `PYTHON read_ray.py > ray_names.json`.

Runs on a Python that has Ray and not mray. Modules are those of Ray Core that programs import.
"""

import importlib
import inspect
import json
import re
import sys

MODULES = (
    "", "actor", "autoscaler.sdk", "cluster_utils", "exceptions", "experimental",
    "experimental.tqdm_ray", "job_submission", "runtime_env", "util", "util.accelerators",
    "util.actor_pool", "util.annotations",
    "util.debug", "util.iter", "util.metrics", "util.multiprocessing", "util.placement_group",
    "util.queue", "util.scheduling_strategies", "util.serialization", "util.state",
)  # fmt: skip
#: Type variables and the like, of no use to programs.
IGNORED = {"F", "T", "U", "V", "__version__", "_config"}
#: Their modules want libraries that an oracle may lack.
EXTRAS = {
    "util.dask": [
        "ProgressBarCallback", "RayDaskCallback", "dataframe_optimize", "disable_dask_on_ray",
        "enable_dask_on_ray", "ray_dask_get", "ray_dask_get_sync",
    ],
    "util.joblib": ["register_ray"],
}  # fmt: skip


def names_of(module):
    """What a module calls public: __all__, else what it defines."""
    public = getattr(module, "__all__", None)
    if not public:
        public = [
            name
            for name, value in vars(module).items()
            if name[0] != "_" and getattr(value, "__module__", None) == module.__name__
        ]
    return sorted(set(public) - IGNORED)


def members_of(cls):
    """The public attributes of a class."""
    return [name for name in dir(cls) if name[0] != "_"]


def taken_by(function):
    """The names that a function takes out of its keyword arguments."""
    return set(re.findall(r'kwargs\.pop\(\s*"(\w+)"', inspect.getsource(function)))


def main():
    """Print the names as JSON."""
    import ray
    from ray._common import ray_option_utils as options

    # The function of this name hides the module.
    groups = importlib.import_module("ray.util.placement_group")
    method = inspect.getsource(ray.actor.method)
    decorated = re.search(r"valid_kwargs = \[(.*?)\]", method, re.DOTALL)
    called = set(inspect.signature(ray.actor.ActorMethod._remote).parameters)
    found = {
        "version": ray.__version__,
        "task options": sorted(options.task_options),
        "actor options": sorted(options.actor_options),
        "method options": sorted(
            (set(re.findall(r'"(\w+)"', decorated[1])) | called) - {"self", "args", "kwargs"}
        ),
        "init arguments": [
            *[name for name in inspect.signature(ray.init).parameters if name != "kwargs"],
            *sorted(taken_by(inspect.unwrap(ray.init))),
        ],
        "runtime_env fields": sorted(
            name for name in ray.runtime_env.RuntimeEnv.known_fields if name[0] != "_"
        ),
        #: What modules call public, and what else is in them: for telling mray's own names.
        "modules": {},
        "beside": {},
        "members": {
            "ActorClass": members_of(ray.actor.ActorClass),
            "ObjectRef": members_of(ray.ObjectRef),
            "ObjectRefGenerator": members_of(ray.ObjectRefGenerator),
            "runtime_context.RuntimeContext": members_of(ray.runtime_context.RuntimeContext),
            "util.ActorPool": members_of(ray.util.ActorPool),
            "util.placement_group.PlacementGroup": members_of(groups.PlacementGroup),
        },
    }
    for name in MODULES:
        module = importlib.import_module(f"ray.{name}".rstrip("."))
        public = found["modules"][name] = names_of(module)
        found["beside"][name] = sorted(
            other for other in dir(module) if other[0] != "_" and other not in public
        )
    found["modules"] |= EXTRAS
    json.dump(found, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main()
