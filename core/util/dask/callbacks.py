"""RayDaskCallback: hooks around the tasks that a dask graph becomes.

Owns the class and which are active. scheduler.py calls them; those of dask itself are not called,
since its threads have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Final

Hook = Callable[..., Any]

HOOKS: Final = (
    "ray_presubmit",
    "ray_postsubmit",
    "ray_pretask",
    "ray_posttask",
    "ray_postsubmit_all",
    "ray_finish",
)


class RayDaskCallback:
    """What is called around tasks while it is active: in a ``with``, or after register().

    Give functions by these names, or write methods of these names with an underscore before them.

    - ``ray_presubmit(task, key, deps)``, in the driver, before a task is submitted. What it
      returns, if not None, is the result, and the task never runs.
    - ``ray_postsubmit(task, key, deps, object_ref)``, in the driver, after it was.
    - ``ray_pretask(key, object_refs)``, where the task runs, before it.
    - ``ray_posttask(key, result, pre_state)``, there, after it; ``pre_state`` is what ray_pretask
      returned.
    - ``ray_postsubmit_all(object_refs, dsk)``, in the driver, when all of a graph is submitted.
    - ``ray_finish(result)``, in the driver, when the results are there.

    ``deps`` are references by key. Hooks that run with tasks have to be picklable.
    """

    #: Those that are active, in the order they became so.
    ray_active: ClassVar[list[RayDaskCallback]] = []

    def __init__(self, **hooks: Hook) -> None:
        for name, hook in hooks.items():
            if name not in HOOKS:
                raise TypeError(f"there is no hook {name!r}; there are {', '.join(HOOKS)}")
            setattr(self, f"_{name}", hook)

    def __enter__(self) -> RayDaskCallback:  # noqa: PYI034 (as dask's Callback)
        self.register()
        return self

    def __exit__(self, *exc: object) -> None:
        self.unregister()

    def register(self) -> None:
        """Have the hooks called from now on."""
        RayDaskCallback.ray_active.append(self)

    def unregister(self) -> None:
        """Have them called no more. ValueError if they are not."""
        RayDaskCallback.ray_active.remove(self)


class Hooks:
    """The hooks of some callbacks and of all active ones. TypeError for what is none."""

    def __init__(self, callbacks: Iterable[RayDaskCallback]) -> None:
        every = [*RayDaskCallback.ray_active, *callbacks]
        for callback in every:
            if not isinstance(callback, RayDaskCallback):
                raise TypeError(f"ray_callbacks are RayDaskCallbacks, not {callback!r}")
        self._every = every
        self.presubmit = self._named("presubmit")
        self.postsubmit = self._named("postsubmit")
        #: What runs with a task: before it and after it, None for none.
        self.around = [
            pair
            for one in every
            if (pair := (_hook(one, "pretask"), _hook(one, "posttask"))) != (None, None)
        ]

    def _named(self, name: str) -> list[Hook]:
        return [hook for one in self._every if (hook := _hook(one, name)) is not None]

    def all_submitted(self, refs: Any, graph: Any) -> None:
        """All tasks of the graph are submitted; these are the references of the wanted keys."""
        for hook in self._named("postsubmit_all"):
            hook(refs, graph)

    def finish(self, result: Any) -> None:
        """The results are there."""
        for hook in self._named("finish"):
            hook(result)


def _hook(callback: RayDaskCallback, name: str) -> Hook | None:
    hook: Hook | None = getattr(callback, f"_ray_{name}", None)
    return hook


def run_between(
    node: Any,
    keys: list[Any],
    key: Any,
    hooks: list[tuple[Hook | None, Hook | None]],
    *values: Any,
) -> Any:
    """Run a dask task between its hooks."""
    states = [before(key, list(values)) if before is not None else None for before, _ in hooks]
    result = node(dict(zip(keys, values, strict=True)))
    for (_, after), state in zip(hooks, states, strict=True):
        if after is not None:
            after(key, result, state)
    return result
