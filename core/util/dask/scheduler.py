"""The scheduler that dask calls with a graph: every dask task becomes a task of the cluster.

Owns the order of submission and which results are kept for how long. The whole graph is submitted
at once, depth first from the keys wanted, and references go from task to task: intermediate results
never come to the driver, and each goes when its last dependent has run. Threads of dask's own have
no part in it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import dask
from dask._task_spec import Alias, DataNode, GraphNode, Task, convert_legacy_graph
from dask.base import get_annotations, persist
from dask.callbacks import Callback
from dask.highlevelgraph import HighLevelGraph
from dask.utils import key_split

from mray import api
from mray.decorator import remote
from mray.object_ref import ObjectRef
from mray.util.dask.callbacks import Hooks, RayDaskCallback, run_between

#: See call_sites.py.
CALLS_FOR_USERS = True

log = logging.getLogger("mray")

Key = Any
Ref = ObjectRef[Any]
#: Arguments of dask's and Ray's schedulers that size the threads which submit; here there are none.
_OF_THREADS: Final = ("chunksize", "num_workers", "pool")
#: States of a key in _in_order: what it depends on comes first; it was given out.
_ON_THE_WAY, _DONE = 1, 2


def _run(node: Any, keys: list[Key], *values: Any) -> Any:
    return node(dict(zip(keys, values, strict=True)))


_task = remote(_run)
_watched_task = remote(run_between)


class _Kept:
    """A result that stays in the cluster. dask may put it deep inside of tasks that it fuses."""

    def __init__(self, ref: Ref) -> None:
        self.ref = ref

    def __dask_tokenize__(self) -> tuple[str, str]:
        # dask would pickle it to tell it from others.
        return "mray.util.dask", self.ref.hex()


def _fetch(kept: _Kept) -> Any:
    return api.get(kept.ref)


def ray_dask_get(
    dsk: Any,
    keys: Any,
    *,
    ray_remote_args: Mapping[str, Any] | None = None,
    ray_persist: bool = False,
    ray_callbacks: Sequence[RayDaskCallback] | None = None,
    **kwargs: Any,
) -> Any:
    """Compute ``keys`` (one key, or nested lists of them) of a dask graph or expression.

    ``ray_remote_args``: options of the tasks, as ``.options()`` takes them; those that
    ``dask.annotate(ray_remote_args=...)`` gives to single tasks come first. ``ray_persist``: the
    results stay in the cluster, and dask tasks that read them are returned. ``ray_callbacks``:
    their hooks are called, beside those of the active ones.

    Returns the values, lists of keys as tuples. Raises what the tasks raised, KeyError for keys
    that are not in the graph, RuntimeError for a graph with a cycle, ValueError or TypeError for
    arguments that mean nothing here.
    """
    _check(kwargs)
    options = _options_of_keys(dsk, dict(ray_remote_args or {}))
    if not isinstance(dsk, Mapping):
        dsk = dsk.__dask_graph__()
    hooks = Hooks(ray_callbacks or ())
    refs = _submitted(convert_legacy_graph(dsk), list(_flat(keys)), options, hooks)
    hooks.all_submitted(list(refs.values()), dsk)
    if ray_persist:
        return _nested(keys, {key: Task(key, _fetch, _Kept(ref)) for key, ref in refs.items()})
    wanted = list(dict.fromkeys(refs.values()))
    values = dict(zip(wanted, api.get(wanted), strict=True))
    result = _nested(keys, {key: values[ref] for key, ref in refs.items()})
    hooks.finish(result)
    return result


#: Ray's name of a scheduler that submits in the caller's thread; here they all do.
ray_dask_get_sync = ray_dask_get


def ray_dask_persist(*collections: Any, **kwargs: Any) -> Any:
    """``dask.persist`` whose results stay in the cluster, and not in the driver's memory."""
    kwargs = {"scheduler": ray_dask_get, **kwargs, "ray_persist": True}
    return persist(*collections, **kwargs)  # type: ignore[no-untyped-call]  # dask's own


def enable_dask_on_ray(
    shuffle: str | None = "tasks", use_shuffle_optimization: bool | None = True
) -> Any:
    """Make this scheduler dask's default, until disable_dask_on_ray() or the end of a ``with``.

    ``shuffle``: how frames are shuffled; "tasks" needs no common disk. There is no shuffle
    optimization to use: the argument is for programs written for Ray.
    """
    return dask.config.set({"scheduler": ray_dask_get, "dataframe.shuffle.method": shuffle})


def disable_dask_on_ray() -> Any:
    """Give dask its own default scheduler and way to shuffle back."""
    return dask.config.set({"scheduler": None, "dataframe.shuffle.method": None})


# ----------------------------------------------------------------------------------- the graph


def _submitted(
    graph: Mapping[Key, GraphNode],
    wanted: list[Key],
    options: Callable[[Key], dict[str, Any]],
    hooks: Hooks,
) -> dict[Key, Ref]:
    """Submit all that the wanted keys need; the references of these keys."""
    order = list(_in_order(graph, wanted))
    uses = Counter(dependency for key in order for dependency in graph[key].dependencies)
    uses.update(wanted)
    refs: dict[Key, Ref] = {}
    for key in order:
        node = graph[key]
        if isinstance(node, DataNode):
            refs[key] = node.value if isinstance(node.value, ObjectRef) else api.put(node.value)
        elif isinstance(node, Task) and node.func is _fetch:
            refs[key] = node.args[0].ref
        elif isinstance(node, Alias):
            refs[key] = refs[node.target]
        else:
            needed = {dependency: refs[dependency] for dependency in node.dependencies}
            refs[key] = _submit(node, key, needed, options(key), hooks)
        for dependency in node.dependencies:
            uses[dependency] -= 1
            if not uses[dependency]:
                del refs[dependency]
    return {key: refs[key] for key in wanted}


def _submit(
    node: GraphNode, key: Key, needed: dict[Key, Ref], options: dict[str, Any], hooks: Hooks
) -> Ref:
    for before in hooks.presubmit:
        instead = before(node, key, needed)
        if instead is not None:
            return api.put(instead)
    name = f"dask:{key_split(key)}"
    ref: Ref
    if hooks.around:
        task = _watched_task.options(name=name, **options)
        ref = task.remote(node, list(needed), key, hooks.around, *needed.values())
    else:
        ref = _named(name, options).remote(node, list(needed), *needed.values())
    for after in hooks.postsubmit:
        after(node, key, needed, ref)
    return ref


def _in_order(graph: Mapping[Key, GraphNode], wanted: list[Key]) -> Iterator[Key]:
    """What the wanted keys need and they themselves, each after all it depends on."""
    state: dict[Key, int] = {}
    for first in wanted:
        stack = [first]
        while stack:
            key = stack[-1]
            if state.get(key) == _DONE:
                stack.pop()
            elif state.get(key) == _ON_THE_WAY:
                state[key] = _DONE
                stack.pop()
                yield key
            else:
                state[key] = _ON_THE_WAY
                for dependency in graph[key].dependencies:
                    if state.get(dependency) == _ON_THE_WAY:
                        raise RuntimeError(f"the graph has a cycle through {dependency!r}")
                    if dependency not in state:
                        stack.append(dependency)


def _flat(keys: Any) -> Iterator[Key]:
    if isinstance(keys, list):
        for key in keys:
            yield from _flat(key)
    else:
        yield keys


def _nested(keys: Any, values: Mapping[Key, Any]) -> Any:
    if isinstance(keys, list):
        return tuple(_nested(key, values) for key in keys)
    return values[keys]


# ----------------------------------------------------------------------------------- options


def _named(name: str, options: dict[str, Any]) -> Any:
    try:
        return _named_and_kept(name, tuple(sorted(options.items())))
    except TypeError:  # Options such as dicts cannot be hashed.
        return _task.options(name=name, **options)


@lru_cache(256)
def _named_and_kept(name: str, options: tuple[tuple[str, Any], ...]) -> Any:
    return _task.options(name=name, **dict(options))


def _options_of_keys(dsk: Any, common: dict[str, Any]) -> Callable[[Key], dict[str, Any]]:
    """The options of each key: the common ones, with what annotations say over them."""
    everywhere = get_annotations()
    _refuse_resources(everywhere)
    common = {**common, **everywhere.get("ray_remote_args", {})}
    own: dict[Key, dict[str, Any]] = {}
    if isinstance(dsk, HighLevelGraph):
        for layer in dsk.layers.values():
            annotations = layer.annotations or {}
            _refuse_resources(annotations)
            if "ray_remote_args" in annotations:
                given = {**common, **annotations["ray_remote_args"]}
                own.update(dict.fromkeys(layer.get_output_keys(), given))
    elif not isinstance(dsk, Mapping):
        annotations = dsk.__dask_annotations__()
        _refuse_resources(annotations)
        for key, given in annotations.get("ray_remote_args", {}).items():
            own[key] = {**common, **given}
    return lambda key: own.get(key, common)


def _refuse_resources(given: Mapping[str, Any] | Sequence[str]) -> None:
    if "resources" in given:
        raise ValueError(
            "resources={...} is not for this scheduler: use "
            'ray_remote_args={"resources": {...}} to say what the tasks need'
        )


def _check(kwargs: dict[str, Any]) -> None:
    _refuse_resources(kwargs)
    for name in kwargs:
        if name not in _OF_THREADS:
            raise TypeError(f"ray_dask_get() got an unexpected keyword argument {name!r}")
    if Callback.active:
        log.warning(
            "dask's callbacks (as of its ProgressBar) are not called: the tasks run in the cluster"
        )
