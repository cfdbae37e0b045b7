"""The table of commands, each imported when it is typed.

Covers: which module has which command, and parsing that is quick. Each module of the table has an
``app``, a typer.Typer with one command or with a group of them.

typer checks every value with pydantic, also plain text, and importing that takes 50 ms: twice the
rest of a command like `mray status`. Values that are their own type already are let through here
before it comes to that; everything else goes typer's way.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

#: Command -> module, in the order of `mray --help`.
MODULES: Final = {
    "start": "mray.cli.start",
    "stop": "mray.cli.stop",
    "status": "mray.cli.status",
    "submit": "mray.cli.submit",
    "run": "mray.cli.run",
    "job": "mray.cli.job",
    "logs": "mray.cli.logs",
    "list": "mray.cli.listing",
    "get": "mray.cli.getting",
    "summary": "mray.cli.summary",
    "timeline": "mray.cli.timeline",
    "why": "mray.cli.why",
    "stack": "mray.cli.stack",
    "drain": "mray.cli.drain",
    "memory": "mray.cli.memory",
    "oom": "mray.cli.oom",
    "metrics": "mray.cli.metrics",
    "config": "mray.cli.config",
    "health-check": "mray.cli.health",
    "get-auth-token": "mray.cli.token",
    "microbenchmark": "mray.cli.microbenchmark",
    "version": "mray.cli.about",
}


# typer's contexts and commands are private types of its vendored click, hence Any in this module.


class CommandTable(TyperGroup):
    """The commands of MODULES, loaded one by one."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in MODULES:
            return None
        if cmd_name not in self.commands:
            command = get_command(importlib.import_module(MODULES[cmd_name]).app)
            command.name = cmd_name
            _quicken(command)
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in MODULES:
            for name in MODULES:  # The names to suggest one of.
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)


_app = typer.Typer(
    cls=CommandTable,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
)


@_app.callback()
def mray(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version of mray and end.")
    ] = False,
) -> None:
    """Run Python tasks and actors over a cluster of processes.

    A first cluster, a program on it, and the end of it:

    \b
      mray start --head
      mray submit job.py
      mray stop
    """
    if version:
        from mray.cli.version import line

        print(line())
        raise typer.Exit


def make_command() -> Any:
    """The command `mray`, to call ``main(words, standalone_mode=False)`` on."""
    command = get_command(_app)
    _quicken(command)
    return command


def _quicken(command: Any) -> None:
    """Let the parameters of a command, and of its inner commands, take plain values quickly."""
    all_params = command.get_params

    def get_params(ctx: Any) -> list[Any]:
        params: list[Any] = all_params(ctx)  # With --help, which is made late.
        for parameter in params:
            if "process_value" not in vars(parameter):
                parameter.process_value = _quick(parameter, parameter.process_value)
        return params

    command.get_params = get_params
    for inner in (getattr(command, "commands", None) or {}).values():
        _quicken(inner)


def _quick(parameter: Any, slow: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``process_value`` of a parameter that lets plain values through and leaves others to typer:
    numbers that were typed are text still."""
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    many = getattr(parameter, "multiple", False) or getattr(parameter, "nargs", 1) != 1

    def process_value(ctx: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            value = () if many else None
        elif many:
            texts = isinstance(value, list | tuple) and all(type(text) is str for text in value)
            if kind != list[str] or not texts or not value:
                return slow(ctx, value)
            value = tuple(value)
        elif type(value) is not kind:
            return slow(ctx, value)
        return parameter.callback(ctx, parameter, value) if parameter.callback else value

    return process_value
