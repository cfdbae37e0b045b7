"""@remote on classes: ActorClass, ActorHandle, method handles, @method, exit_actor.

Owns what users hold in their hands. A handle keeps its actor alive through the reference inside
it, by the same counting as any object's; one from get_actor() does not.
"""

from __future__ import annotations

import inspect
import time
import warnings
from typing import Any

import msgspec

from mray import current
from mray.call_sites import capture
from mray.exceptions import RaySystemError
from mray.former import cluster_now, refuse_handle
from mray.ids import object_id
from mray.object_ref import ObjectRef
from mray.options import (
    ACTOR_OPTIONS,
    METHOD_OPTIONS,
    actor_resources_of,
    backpressure_of,
    refuse_decorators,
    returns_of,
    validate,
    yields,
)
from mray.remote_function import Signature
from mray.tasks.writable import changed, options_of
from mray.wire.messages import ActorSpec

#: See call_sites.py.
CALLS_FOR_USERS = True
_OPTIONS_ATTRIBUTE = "__ray_method_options__"
_ANY_PARAMETERS = [("args", 2, False), ("kwargs", 4, False)]
#: Methods every actor has.
_BUILT_IN = ("__ray_ready__", "__ray_call__", "__ray_terminate__")


def method(*bare: Any, **options: Any) -> Any:
    """Options of one actor method: ``@method(num_returns=2)``; alone it changes nothing."""
    if bare:
        if len(bare) > 1 or options or not callable(bare[0]):
            raise TypeError("@method takes options by name, as in @method(num_returns=2)")
        return bare[0]
    validate(options, METHOD_OPTIONS, "@method")

    def mark(function: Any) -> Any:
        returns_of(options, yields(function), f"@method on {getattr(function, '__name__', '?')}")
        setattr(function, _OPTIONS_ATTRIBUTE, options)
        return function

    return mark


class ActorClassInheritanceException(TypeError):
    """A class was to inherit from an actor class."""


class ActorClass:
    """A class whose ``.remote()`` makes an actor."""

    def __init__(self, cls: Any, options: Any = None, *rest: Any) -> None:
        if rest or not isinstance(cls, type):
            raise ActorClassInheritanceException(
                "an actor class cannot be inherited from: inherit from the plain class and "
                "decorate both with @remote"
            )
        options = options or {}
        validate(options, ACTOR_OPTIONS, f"actor class {cls.__name__}")
        if options.get("get_if_exists") and not options.get("name"):
            raise ValueError("get_if_exists needs a name")
        self._class = cls
        self._options = options
        methods = _methods_of(cls)
        self._is_async = any(facts.get("is_async") for facts in methods.values())
        self._groups = list(options.get("concurrency_groups") or ())
        _check_groups(methods, self._groups, cls.__name__)
        self._methods = {name: self._shared(facts) for name, facts in methods.items()}
        if options.get("object_store_memory") is not None:
            warnings.warn(
                f"{cls.__name__}: object_store_memory reserves nothing for an actor, and is "
                "deprecated: what does not fit into the store is spilled",
                DeprecationWarning,
                stacklevel=3,
            )
        self._check = Signature(inspect.getattr_static(cls, "__init__"), skip_first=True)
        self._worker_options = options_of(
            options, self._check.parameters(), f"{cls.__name__}.__init__()"
        )
        self._made: tuple[Any, bytes] = (None, b"")
        self.__name__ = cls.__name__
        self.__doc__ = cls.__doc__
        self.__module__ = cls.__module__
        self.__qualname__ = cls.__qualname__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{self.__name__} is an actor class: make an actor with {self.__name__}.remote()"
        )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_made"] = (None, b"")
        return state

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name in ("_class", "_options", "_methods"):
            raise AttributeError(name)
        return getattr(self._class, name)

    def options(self, **options: Any) -> ActorClass:
        """The same class with other options for the actors made through the result."""
        refuse_decorators(options, f"actor class {self.__name__}")
        return ActorClass(self._class, {**self._options, **options})

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> ActorHandle:
        """Ray's older form of ``.options(...).remote(...)``."""
        return self.options(**options).remote(*(args or ()), **(kwargs or {}))

    @property
    def _is_concurrent(self) -> bool:
        """Whether calls of one caller may run side by side in the default group."""
        return self._is_async or (self._options.get("max_concurrency") or 1) > 1

    def _shared(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The facts of a method with what the options of the actor say of all methods."""
        options = self._options
        shared: dict[str, Any] = {}
        if options.get("enable_task_events") is False:
            shared["enable_task_events"] = False
        overtakes = options.get("allow_out_of_order_execution")
        if self._is_concurrent if overtakes is None else overtakes:
            shared["unordered"] = True
        most = options.get("_actor_generator_backpressure_num_objects") or 0
        if most > 0 and facts.get("yields"):
            shared["actor_backpressure"] = most
        return {**shared, **facts} if shared else facts

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle:
        """Make an actor; its handle, at once. Constructor errors surface in its first calls."""
        from mray.ownership.references import Entry
        from mray.runtime.arguments import pack_arguments
        from mray.scheduling import placing_of

        rt = current.get()
        options = self._options
        if inspect.isabstract(self._class):
            names = sorted(vars(self._class)["__abstractmethods__"])
            raise TypeError(f"{self.__name__} is abstract, it lacks {names}: it has no instances")
        if options.get("allow_out_of_order_execution") is False and self._is_concurrent:
            kind = "async" if self._is_async else "threaded"
            raise ValueError(
                f"{self.__name__} is {kind}: its calls run side by side, and "
                "allow_out_of_order_execution=False cannot be kept"
            )
        name = options.get("name") or ""
        namespace = options.get("namespace") or rt.namespace
        if name and options.get("get_if_exists"):
            existing = rt.actors.find(name, namespace)
            if existing is not None:
                return handle_of(existing)
        self._check(args, kwargs)
        made, key = self._made
        if made is not rt:
            key = rt.tasks.export(self._class, f"the actor class {self.__name__}")
            self._made = (rt, key)
        packed = pack_arguments(rt, f"{self.__name__}.__init__", args, kwargs)
        actor_id, task_id = rt.ids.actor(), rt.ids.task()
        is_async = self._is_async
        concurrency = options.get("max_concurrency") or (1000 if is_async else 1)
        held, placement = actor_resources_of(options)
        place = placing_of(rt, options, f"the actor {self.__name__}", held, placement)
        retries = options.get("max_task_retries") or 0
        detached = options.get("lifetime") == "detached"
        limit = options.get("max_pending_calls") or -1
        methods = self._methods
        recorded = options.get("enable_task_events") is not False
        groups = self._groups
        shape = msgspec.msgpack.encode((self.__qualname__, methods, retries, limit, groups))
        spec = ActorSpec(
            actor_id, rt.job_id, rt.address, key, self.__qualname__, task_id, b"", [], None, None,
            place.needs(held), place.needs(placement), options.get("max_restarts") or 0,
            retries, concurrency, name, namespace, detached,
            rt.environment_of(options.get("runtime_env")), is_async, shape,
            self._worker_options, rt.serializers.version, options.get("max_oom_restarts") or 0,
            place.group, place.captures, place.where,
        )  # fmt: skip
        entry = Entry(object_id(task_id, 1), None, rt.mailbox, 0 if detached else 1)
        entry.is_actor = True
        entry.ready = True
        entry.name = self.__name__
        entry.born = time.monotonic()
        if rt.objects.records_sites:
            entry.call_site = capture(1)
        ref: ObjectRef[Any] | None = None
        if not detached:
            rt.references.entries[entry.object_id] = entry
            ref = ObjectRef(entry)
        existing = rt.actors.create(
            spec, packed, entry, bool(options.get("get_if_exists")), recorded
        )
        if existing is not None:
            return handle_of(existing)
        return _handle(limit, actor_id, self.__qualname__, methods, retries, ref, groups)


def _methods_of(cls: type) -> dict[str, dict[str, Any]]:
    """The callable members of a class and their options."""
    methods: dict[str, dict[str, Any]] = {}
    for name, member in inspect.getmembers(cls, callable):
        if name == "__init__" or (name.startswith("__") and not inspect.isfunction(member)):
            continue
        options = {
            key: value
            for key, value in getattr(member, _OPTIONS_ATTRIBUTE, {}).items()
            if value is not None
        }
        if "retry_exceptions" in options and not isinstance(options["retry_exceptions"], bool):
            from mray.runtime.tasks import pickled_types

            options["retry_exceptions"] = pickled_types(options["retry_exceptions"])
        if inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member):
            options["is_async"] = True
        if yields(member):
            options["yields"] = True
            options["num_returns"] = returns_of(options, True, f"{cls.__name__}.{name}")
        plain = isinstance(inspect.getattr_static(cls, name), (staticmethod, classmethod))
        parameters = Signature(member, skip_first=not plain).parameters()
        options["parameters"] = parameters
        if options.pop("writable_args", None) or options.get("concurrency_group"):
            marked = getattr(member, _OPTIONS_ATTRIBUTE)
            options["worker_options"] = options_of(marked, parameters, f"{cls.__name__}.{name}()")
        methods[name] = options
    for name in _BUILT_IN:
        methods[name] = {"parameters": _ANY_PARAMETERS}
    return methods


def _check_groups(methods: dict[str, dict[str, Any]], groups: list[str], what: str) -> None:
    """Raise ValueError for a method in a concurrency group that the actor does not have."""
    for name, facts in methods.items():
        group = facts.get("concurrency_group")
        if group and group not in groups:
            raise ValueError(_no_group(f"{what}.{name}", group, groups))


def _no_group(what: str, group: str, groups: list[str]) -> str:
    return f"{what}: the actor has no concurrency group {group!r}; it has {groups or 'none'}"


class ActorHandle:
    """A handle of an actor: its methods have ``.remote()``."""

    __slots__ = (
        "__dict__", "__weakref__", "_actor_id", "_class_name", "_cluster", "_groups", "_methods",
        "_ref", "_retries", "_templates",
    )  # fmt: skip

    def __init__(
        self,
        actor_id: bytes,
        class_name: str,
        methods: dict[str, dict[str, Any]],
        retries: int,
        ref: ObjectRef[Any] | None,
        groups: list[str],
    ) -> None:
        self._actor_id = actor_id
        #: Names of its concurrency groups.
        self._groups = groups
        #: Of methods called without options: the connection, and what it knows them by.
        self._templates: dict[str, tuple[Any, Any]] = {}
        self._class_name = class_name
        self._methods = methods
        self._retries = retries
        self._ref = ref
        #: See former.py.
        self._cluster = cluster_now()

    def __getattr__(self, name: str) -> ActorMethod:
        options = self._methods.get(name)
        if options is None:
            raise AttributeError(f"the actor class {self._class_name} has no method {name!r}")
        return ActorMethod(self, name, options)

    def __dir__(self) -> list[str]:
        return [name for name in self._methods if not name.startswith("__")]

    @property
    def _ray_actor_id(self) -> Any:
        return self._actor_id

    def __hash__(self) -> int:
        return hash(self._actor_id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ActorHandle):
            return self._actor_id == other._actor_id
        return NotImplemented

    def __repr__(self) -> str:
        return f"Actor({self._class_name}, {self._actor_id.hex()})"

    def __reduce__(self) -> Any:
        return ActorHandle, (
            self._actor_id, self._class_name, self._methods, self._retries, self._ref, self._groups,
        )  # fmt: skip


class ActorMethod:
    """One method of one actor."""

    __slots__ = ("_handle", "_is_changed", "_name", "_options")

    def __init__(
        self, handle: ActorHandle, name: str, options: dict[str, Any], is_changed: bool = False
    ) -> None:
        self._handle = handle
        self._name = name
        self._options = options
        #: The options are not those that the handle has for the method.
        self._is_changed = is_changed

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"actor methods run remotely: call {self._handle._class_name}.{self._name}.remote()"
        )

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method; the reference of its result (a list with several, None with none)."""
        handle = self._handle
        runtime = current.runtime
        if runtime is None:
            raise RaySystemError(f"{handle!r} cannot be called: this process is not connected")
        made = None if self._is_changed else handle._templates.get(self._name)
        if made is None or made[0] is not runtime:
            refuse_handle(handle, runtime)
            made = runtime, self._template(runtime)
            if not self._is_changed:
                handle._templates[self._name] = made
        template = made[1]
        if args or kwargs or template.check.needs_arguments:
            template.check(args, kwargs)
        ref = handle._ref
        refs = runtime.tasks.call(
            template, args, kwargs, handle._actor_id, ref._entry if ref is not None else None
        )
        if len(refs) == 1:
            return refs[0]
        return refs or None

    def _template(self, runtime: Any) -> Any:
        handle, options = self._handle, self._options
        returns = options.get("num_returns", 1)
        return runtime.actors.method_template(
            handle._class_name,
            self._name,
            returns,
            options.get("max_task_retries", handle._retries),
            _retry_bytes(options.get("retry_exceptions")),
            options.get("worker_options", b""),
            options["parameters"],
            backpressure_of(options, returns),
            options.get("enable_task_events") is not False,
            options.get("unordered", False),
        )

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options for the calls made through the result."""
        what = f"{self._handle._class_name}.{self._name}"
        validate(options, METHOD_OPTIONS, what)
        if "num_returns" in options:
            is_generator = self._options.get("yields", False)
            options["num_returns"] = returns_of(options, is_generator, what)
        group, groups = options.get("concurrency_group"), self._handle._groups
        if group and group not in groups:
            raise ValueError(_no_group(what, group, groups))
        if "writable_args" in options or group is not None:
            parameters, present = self._options["parameters"], self._options.get("worker_options")
            options["worker_options"] = changed(present or b"", options, parameters, f"{what}()")
            options.pop("writable_args", None)
        return type(self)(self._handle, self._name, {**self._options, **options}, True)

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Ray's older form of ``.options(...).remote(...)``."""
        target = self.options(**options) if options else self
        return target.remote(*(args or ()), **(kwargs or {}))


def _retry_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if value is True:
        return b"*"
    if not value:
        return b""
    from mray.runtime.tasks import pickled_types

    return pickled_types(value)


def handle_of(spec: ActorSpec) -> ActorHandle:
    """A handle made from what the head knows; it does not keep the actor alive."""
    class_name, methods, retries, limit, groups = msgspec.msgpack.decode(spec.handle)
    return _handle(limit, spec.actor_id, class_name, methods, retries, None, groups)


def _handle(limit: int, *parts: Any) -> ActorHandle:
    if limit < 0:
        return ActorHandle(*parts)
    from mray.actor_limits import LimitedHandle

    return LimitedHandle(limit, *parts)


def exit_actor() -> None:
    """End the present actor, on purpose, after this call. TypeError outside of an actor."""
    from mray.runtime.executor import ExitActor

    if current.runtime is None or current.runtime.actor_spec is None:
        raise TypeError("exit_actor() can only be called in an actor")
    raise ExitActor(0)
