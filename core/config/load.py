"""Loads the configuration: one value a key, and where it came from.

Precedence: flag > MRAY_x > RAY_x > ./mray.toml (or the file of `--config`) > ~/.mray/config.toml >
/etc/mray/config.toml > the system's TMPDIR > default. Every value that was set is checked, also
one that a stronger source hides: a bad value never waits for the day it wins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from mray.config.registry import KEYS, KeyInfo
from mray.config.sections import Config, Secrets
from mray.config.sources import (
    Candidate,
    FlagsFrom,
    Source,
    from_environment,
    from_fallbacks,
    from_file,
    from_flags,
)
from mray.config.values import convert, expand_home

SYSTEM_FILE: Final = "/etc/mray/config.toml"

_DEFAULT: Final = Source("default")


class Setting(Struct, frozen=True):
    """The value of one key and its source. ``text`` is the value as people write it."""

    name: str
    value: Any
    text: str
    source: Source


class Resolved(Struct, frozen=True, kw_only=True):
    """The outcome of loading."""

    config: Config
    secrets: Secrets
    #: By key name, all keys, in the order of the sections. The value of a secret is masked.
    settings: dict[str, Setting]
    #: Sentences to print, none of them fatal.
    warnings: tuple[str, ...]
    #: The files that were read, strongest first.
    files: tuple[str, ...]


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    config_file: str | os.PathLike[str] | None = None,
    working_dir: str | os.PathLike[str] = ".",
    system_file: str | os.PathLike[str] = SYSTEM_FILE,
    flags_from: FlagsFrom = "command line",
) -> Resolved:
    """The configuration of this process.

    ``flags``: values by key name, None where not given. ``environ``: pass os.environ.
    ``config_file`` takes the place of ``working_dir``/mray.toml and must exist. Raises ConfigError,
    and nothing else, on anything that cannot be used; what is merely odd ends in ``warnings``.
    """
    home = environ.get("HOME", "")
    layers = [from_flags(flags, flags_from), from_environment(environ)]
    for path, required in _file_paths(home, config_file, working_dir, system_file):
        found = from_file(path, required=required)
        if found is not None:
            layers.append(found)
    warnings = [warning for layer in layers for warning in layer.warnings]
    values: dict[str, tuple[object, Source]] = {}
    for layer in layers:
        values = _settle(layer.candidates, home, warnings) | values
    # TMPDIR is not ours: what is odd about it matters only where it counts.
    fallbacks = [found for found in from_fallbacks(environ) if found.key.name not in values]
    values = _settle(fallbacks, home, warnings) | values
    return _assemble(values, home, warnings, [layer.file for layer in layers if layer.file])


def load_secrets(environ: Mapping[str, str]) -> Secrets:
    """The secrets alone, for a process that was sent its Config. Raises ConfigError as load()."""
    found = [item for item in from_environment(environ).candidates if item.key.secret]
    values = _settle(found, home="", warnings=[])
    return _secrets({name: value for name, (value, _) in values.items()})


def conflicts(local: Resolved, cluster: Config) -> list[str]:
    """A warning for each cluster-wide key that was set here to another value than the head's."""
    theirs = _flat(cluster)
    return [
        f"{name} = {setting.text} ({setting.source}) is not used here: "
        f"the head says {KEYS[name].show(theirs[name])} and {name} is cluster-wide"
        for name, setting in local.settings.items()
        if KEYS[name].scope == "cluster"
        and setting.source.kind != "default"
        and setting.value != theirs[name]
    ]


def adopt(local: Config, cluster: Config) -> Config:
    """``local`` with the cluster-wide keys taken from ``cluster``: what a joining process uses."""
    mine, theirs = _flat(local), _flat(cluster)
    return _config({n: (theirs if KEYS[n].scope == "cluster" else mine)[n] for n in mine})


def keep_own(cluster: Config, local: Resolved) -> Config:
    """``cluster``, as a driver was sent it, with what was set for this process itself."""
    own = {
        name: setting.value
        for name, setting in local.settings.items()
        if KEYS[name].scope == "process" and setting.source.kind != "default"
    }
    return _config(_flat(cluster) | own)


def keep_environment(sent: Config, environ: Mapping[str, str]) -> tuple[Config, list[str]]:
    """``sent``, as a worker was, with what its own environment sets for single processes.

    ``environ``: what was added for this worker, as ``runtime_env`` says. Also returns warnings.
    Raises ConfigError for a bad value.
    """
    warnings: list[str] = []
    candidates = [c for c in from_environment(environ).candidates if c.key.scope == "process"]
    if not candidates:
        return sent, warnings
    found = _settle(candidates, home="", warnings=warnings)
    own = {name: value for name, (value, _) in found.items()}
    return _config(_flat(sent) | own), warnings


def _file_paths(
    home: str,
    config_file: str | os.PathLike[str] | None,
    working_dir: str | os.PathLike[str],
    system_file: str | os.PathLike[str],
) -> list[tuple[str, bool]]:
    """The files to look for, strongest first, and whether each must exist."""
    if config_file is not None:
        paths = [(expand_home(os.fspath(config_file), home), True)]
    else:
        paths = [(os.path.join(working_dir, "mray.toml"), False)]
    if home:
        paths.append((os.path.join(home, ".mray", "config.toml"), False))
    return [*paths, (os.fspath(system_file), False)]


def _settle(
    candidates: list[Candidate], home: str, warnings: list[str]
) -> dict[str, tuple[object, Source]]:
    """The values of one layer by key name. Two names that disagree add a warning."""
    values: dict[str, tuple[object, Source]] = {}
    for candidate in candidates:
        key, value = candidate.key, convert(candidate, home)
        winning, winner = values.setdefault(key.name, (value, candidate.source))
        if winning != value:
            warnings.append(
                f"{winner.where} and {candidate.source.where} differ: "
                f"{winner.where} = {key.show(winning)} wins over {key.show(value)}"
            )
    return values


def _assemble(
    values: Mapping[str, tuple[object, Source]], home: str, warnings: list[str], files: list[str]
) -> Resolved:
    chosen: dict[str, object] = {}
    settings: dict[str, Setting] = {}
    for name, key in KEYS.items():
        value, source = values.get(name) or (_default(key, home), _DEFAULT)
        chosen[name] = value
        text = key.show(value)
        settings[name] = Setting(name, text if key.secret else value, text, source)
    return Resolved(
        config=_config(chosen),
        secrets=_secrets({name: chosen[name] for name in Secrets.__struct_fields__}),
        settings=settings,
        warnings=tuple(warnings),
        files=tuple(files),
    )


def _default(key: KeyInfo, home: str) -> object:
    return expand_home(key.default, home) if key.kind == "path" else key.default


def _flat(config: Config) -> dict[str, Any]:
    """The values of ``config`` by key name, in the order of the sections."""
    return {
        name: value
        for section in Config.__struct_fields__
        for name, value in msgspec.structs.asdict(getattr(config, section)).items()
    }


def _config(values: Mapping[str, object]) -> Config:
    """The Config that holds ``values``, already checked, by key name."""
    sections: dict[str, Any] = {}
    for section in Config.__struct_fields__:
        struct = type(getattr(Config(), section))
        sections[section] = struct(**{name: values[name] for name in struct.__struct_fields__})
    return Config(**sections)


def _secrets(values: Mapping[str, Any]) -> Secrets:
    return Secrets(**values)
