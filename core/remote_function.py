"""@remote on functions: RemoteFunction, its options and its calls."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mray import current
from mray.options import (
    TASK_OPTIONS,
    backpressure_of,
    refuse_decorators,
    refuse_store_memory,
    resources_of,
    returns_of,
    validate,
    yields,
)
from mray.tasks.writable import options_of

#: See call_sites.py.
CALLS_FOR_USERS = True


class RemoteFunction:
    """A function whose ``.remote()`` runs it as a task."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        what = f"remote function {function.__name__}"
        if inspect.iscoroutinefunction(function):
            raise ValueError(
                f"the {what} is `async def`, which only methods of actors may be: make it a plain "
                "function that calls asyncio.run()"
            )
        validate(options, TASK_OPTIONS, what)
        refuse_store_memory(options, what)
        self._function = function
        self._options = options
        #: As Ray shows a task: in titles, before its lines, in errors and lists.
        self._name = function.__name__
        self._check = Signature(function)
        #: num_returns as it goes on the wire.
        self._returns = returns_of(options, yields(function), f"remote function {self._name}")
        self._worker_options = b""
        if options.get("writable_args"):
            parameters = self._check.parameters()
            self._worker_options = options_of(options, parameters, f"{self._name}()")
        #: (runtime, template): a template belongs to one connection.
        self._made: tuple[Any, Any] = (None, None)
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"{self._name} is a remote function: call {self._name}.remote() to run it as a task, "
            f"or {self._name}._function() to run it here"
        )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state["_made"] = (None, None)
        return state

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Submit a task; the reference of its result (a list with several, None with none), of a
        generator function an ObjectRefGenerator."""
        runtime = current.runtime or current.get()
        made, template = self._made
        if made is not runtime.scope:
            template = self._template(runtime)
        if args or kwargs or self._check.needs_arguments:
            self._check(args, kwargs)
        refs = runtime.tasks.call(template, args, kwargs)
        if len(refs) == 1:
            return refs[0]
        return refs or None

    def _template(self, runtime: Any) -> Any:
        from mray.runtime.tasks import pickled_types
        from mray.scheduling import placing_of

        options = self._options
        key = runtime.tasks.export(self._function, f"the remote function {self._name}")
        retries = options.get("max_retries")
        name = options.get("name") or self._name
        resources = resources_of(options, 1.0)
        template = runtime.tasks.template(
            key,
            name,
            num_returns=self._returns,
            resources=resources,
            max_retries=runtime.config.tasks.task_max_retries if retries is None else retries,
            retry_exceptions=pickled_types(options.get("retry_exceptions")),
            max_calls=options.get("max_calls") or 0,
            runtime_env=runtime.environment_of(options.get("runtime_env")),
            options=self._worker_options,
            backpressure=backpressure_of(options, self._returns),
            placing=placing_of(runtime, options, f"the task {name}", resources),
        )
        template.recorded = options.get("enable_task_events") is not False
        self._made = (runtime.scope, template)
        return template

    def options(self, **options: Any) -> RemoteFunction:
        """The same function with other options for the calls made through the result."""
        refuse_decorators(options, f"remote function {self._name}")
        return RemoteFunction(self._function, {**self._options, **options})

    def _remote(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Ray's older form of ``.options(...).remote(...)``."""
        function = self.options(**options) if options else self
        return function.remote(*(args or ()), **(kwargs or {}))


class Signature:
    """Checks arguments against a function's signature, fast for the plain cases."""

    __slots__ = ("_most", "_name", "_signature", "needs_arguments")

    def __init__(self, function: Callable[..., Any], skip_first: bool = False) -> None:
        self._name = getattr(function, "__qualname__", repr(function))
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            signature = inspect.Signature(
                [
                    inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                    inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
                ]
            )
            skip_first = False
        parameters = list(signature.parameters.values())
        if (
            skip_first
            and parameters
            and parameters[0].kind
            in (
                inspect.Parameter.POSITIONAL_ONLY,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
            )
        ):
            parameters = parameters[1:]
        self._signature = signature.replace(parameters=parameters)
        plain = all(
            p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and p.default is p.empty
            for p in parameters
        )
        #: With only plain parameters, the number of positional arguments says it all.
        self._most = len(parameters) if plain else -1
        self.needs_arguments = any(
            p.default is p.empty
            and p.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            for p in parameters
        )

    @classmethod
    def of_parameters(cls, name: str, parameters: Any) -> Signature:
        """The same from what ``parameters()`` returned in another process."""
        made = cls.__new__(cls)
        made._name = name
        made._signature = inspect.Signature(
            [
                inspect.Parameter(
                    parameter,
                    inspect._ParameterKind(kind),
                    default=None if optional else inspect.Parameter.empty,
                )
                for parameter, kind, optional in parameters
            ]
        )
        made._most = -1
        made.needs_arguments = any(
            not optional and kind not in (2, 4) for _, kind, optional in parameters
        )
        if all(kind == 1 and not optional for _, kind, optional in parameters):
            made._most = len(parameters)
        return made

    def parameters(self) -> list[tuple[str, int, bool]]:
        """(name, kind, has a default) of each parameter: plain values that travel."""
        return [
            (p.name, int(p.kind), p.default is not p.empty)
            for p in self._signature.parameters.values()
        ]

    def __call__(self, args: Any, kwargs: Any) -> None:
        """Raise TypeError if a call with these arguments would."""
        if len(args) == self._most and not kwargs:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}: {error}") from None
