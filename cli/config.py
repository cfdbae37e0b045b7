"""`mray config`: what the settings are, where each value comes from, and whether all is right.

Reads what a command started here would read; asks no cluster.
"""

from __future__ import annotations

import os
import textwrap
from typing import Annotated, Any

import typer

from mray.cli.failure import FAILED, Failure, WrongUsage
from mray.cli.options import AsJson, ConfigFile
from mray.cli.render import print_json, print_table
from mray.cli.settings import print_warnings, settings
from mray.config import KEYS, ConfigError, KeyInfo, Setting, describe
from mray.config.load import SYSTEM_FILE

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Show, explain and check the settings.\n\n"
    "A value comes from the first of: flag, MRAY_x, RAY_x, ./mray.toml (or --config FILE), "
    "~/.mray/config.toml, /etc/mray/config.toml, default.\n\n"
    "\b\n  mray config list --changed\n  mray config explain RAY_memory_usage_threshold\n",
)


def _complete_key(incomplete: str) -> list[str]:
    return [name for name in KEYS if name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        help="A key, section.key, MRAY_x or RAY_x.",
        metavar="NAME",
        autocompletion=_complete_key,
        show_default=False,
    ),
]


@app.command("list")
def list_settings(
    changed: Annotated[
        bool, typer.Option("--changed", help="Only what is not at its default.")
    ] = False,
    section: Annotated[
        str | None, typer.Option("--section", metavar="NAME", help="Only this section.")
    ] = None,
    config_file: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List every setting with its value and where the value comes from.

    \b
      mray config list --changed
      mray config list --section logs --json
    """
    resolved = settings(config_file)
    sections = list(dict.fromkeys(key.section for key in KEYS.values()))
    if section is not None and section not in sections:
        raise WrongUsage(f"there is no section {section!r}: one of {', '.join(sections)}")
    chosen = [
        setting
        for name, setting in resolved.settings.items()
        if section in (None, KEYS[name].section)
        and not (changed and setting.source.kind == "default")
    ]
    if as_json:
        print_json([_facts(setting) for setting in chosen])
        return
    rows = [[f"{KEYS[s.name].section}.{s.name}", s.text, str(s.source)] for s in chosen]
    if rows:
        print_table(["key", "value", "source"], rows)
    else:
        print("every setting is at its default")
    print_warnings(resolved)


@app.command("get")
def get_setting(name: Name, config_file: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print the value of one setting, as it would be written in a file.

    \b
      mray config get log_rotation_max_bytes
      mray config get RAY_memory_usage_threshold --json
    """
    key = _find(name)
    setting = settings(config_file).settings[key.name]
    if as_json:
        print_json(_facts(setting))
    else:
        print(setting.text)


@app.command("explain")
def explain_setting(name: Name, config_file: ConfigFile = None, as_json: AsJson = False) -> None:
    """Say all there is to say of one setting: meaning, effect, bounds, names, value and source.

    \b
      mray config explain memory_usage_threshold
    """
    key = _find(name)
    setting = settings(config_file).settings[key.name]
    facts = _facts(setting) | {
        "about": key.about,
        "effect": key.effect,
        "expected": key.expected,
        "scope": key.scope,
        "live": key.live,
        "variables": [key.mray_name, *key.ray_names, *key.fallback_names],
        "former_names": list(key.historic_names),
    }
    if as_json:
        print_json(facts)
        return
    scope = {
        "cluster": "the head's value holds in the whole cluster",
        "node": "each node has its own",
        "process": "each driver, worker or command has its own",
    }[key.scope]
    variables = f"{', '.join(facts['variables'])} (the first one set wins)"
    lines = {
        "value": f"{setting.text}  (from: {setting.source})",
        "default": key.show(key.default),
        "type": key.expected,
        "scope": f"{scope}; {'may change live' if key.live else 'fixed at start'}",
        "variables": variables,
        "in a file": "a secret: never" if key.secret else f"[{key.section}] {key.name} = ...",
    }
    if key.historic_names:
        lines["once called"] = ", ".join(key.historic_names)
    print(f"{key.section}.{key.name}")
    print(textwrap.indent(textwrap.fill(f"{key.about} {key.effect}", 76), "  "))
    print()
    for label, text in lines.items():
        print(textwrap.fill(text, 80, initial_indent=f"  {label:<12}", subsequent_indent=" " * 14))


@app.command("check")
def check_settings(config_file: ConfigFile = None, as_json: AsJson = False) -> int:
    """Check files and variables; exit code 1 where a value cannot be used. Warnings are no errors.

    \b
      mray config check --config cluster.toml && mray start --head --config cluster.toml
    """
    try:
        resolved = settings(config_file)
    except ConfigError as error:
        if not as_json:
            raise Failure(str(error)) from error
        print_json(
            {
                "ok": False,
                "error": {
                    "message": str(error),
                    "name": error.name,
                    "expected": error.expected,
                    "source": error.source,
                },
            }
        )
        return FAILED
    if as_json:
        print_json({"ok": True, "warnings": resolved.warnings, "files": resolved.files})
        return 0
    set_count = sum(s.source.kind != "default" for s in resolved.settings.values())
    files = ", ".join(resolved.files) or "no file"
    print(f"ok: {set_count} of {len(resolved.settings)} settings are set; read {files}")
    print_warnings(resolved)
    return 0


@app.command("path")
def show_paths(config_file: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print the files that settings are looked for in, strongest first, and which were read.

    \b
      mray config path
    """
    read = settings(config_file).files
    home = os.environ.get("HOME", "")
    places = [
        config_file or os.path.join(os.getcwd(), "mray.toml"),
        *([os.path.join(home, ".mray", "config.toml")] if home else []),
        SYSTEM_FILE,
    ]
    found = [
        {"path": path, "read": any(os.path.abspath(path) == os.path.abspath(f) for f in read)}
        for path in places
    ]
    if as_json:
        print_json(found)
        return
    for entry in found:
        print(f"{'read      ' if entry['read'] else 'not there '} {entry['path']}")


def _find(name: str) -> KeyInfo:
    try:
        return describe(name)
    except ConfigError as error:
        raise Failure(str(error)) from error


def _facts(setting: Setting) -> dict[str, Any]:  # Any: values of settings have any plain type.
    key = KEYS[setting.name]
    return {
        "name": key.name,
        "section": key.section,
        "value": setting.value,
        "text": setting.text,
        "unit": key.unit,
        "default": None if key.secret else key.default,
        "source": str(setting.source),
        "source_kind": setting.source.kind,
    }
