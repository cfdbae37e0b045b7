"""Where settings come from: flags, the environment and files, each read into candidates.

Covers: which names count, which only warn, and what is an error before any value is looked at.
Does not convert values (values.py) nor choose between candidates (load.py). The environment comes
as an argument, so nothing here depends on the process it runs in.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from msgspec import Struct

from mray.config.errors import ConfigError
from mray.config.ray_names import belongs_elsewhere
from mray.config.registry import (
    HISTORIC,
    KEYS,
    MRAY_SUFFIXES,
    RAY_VARIABLES,
    SECTIONS,
    KeyInfo,
    did_you_mean,
    find,
    is_unsupported_ray_setting,
)

#: What gave the flags: a command line (`--object-store-memory`), or keywords of `init()`.
FlagsFrom = Literal["command line", "init"]

_SECTION_LINE: Final = re.compile(r"\s*\[\s*([A-Za-z0-9_-]+)\s*\]")
_KEY_LINE: Final = re.compile(r"\s*(?:([A-Za-z0-9_-]+)\s*\.\s*)?([A-Za-z0-9_-]+)\s*=")


class Source(Struct, frozen=True):
    """Where a value was set. ``where`` is a flag, a variable or "path:line"; "" for a default."""

    kind: Literal["flag", "environment", "file", "default"]
    where: str = ""

    def __str__(self) -> str:
        """For people: "flag --x", "environment variable RAY_x", "/path/mray.toml:3", "default"."""
        match self.kind:
            case "default":
                return "default"
            case "file":
                return self.where
            case "environment":
                return f"environment variable {self.where}"
            case "flag":
                return f"flag {self.where}" if self.where.startswith("-") else self.where


class Candidate(Struct, frozen=True):
    """One value that somebody set, as written."""

    key: KeyInfo
    value: object
    source: Source


class Found(Struct, frozen=True):
    """What one source holds, strongest first (so former names last), and what to warn of."""

    candidates: list[Candidate]
    warnings: list[str]
    #: The file that was read; "" for other sources, and for a file that could not be read.
    file: str = ""


def from_flags(flags: Mapping[str, object], flags_from: FlagsFrom) -> Found:
    """The flags that were given; None stands for "not given".

    Raises ConfigError on a name that is neither a key nor a setting of Ray.
    """
    found = Found([], [])
    for name in sorted(flags, key=HISTORIC.__contains__):
        value, plain = flags[name], name.replace("-", "_")
        if value is None:
            continue
        where = f"--{name.replace('_', '-')}" if flags_from == "command line" else f"init(): {name}"
        key = KEYS.get(MRAY_SUFFIXES.get(plain.lower(), ""))
        if key is not None and key.secret:
            raise ConfigError(
                f"{where}: {key.name} is a secret and may not be given here: other users can read "
                f"a command line; set {key.ray_names[0]}",
                name=name, expected="no secret", source=where,
            )  # fmt: skip
        if key is not None:
            found.candidates.append(Candidate(key, value, Source("flag", where)))
            _warn_if_historic(found, where, plain, key.name)
        elif is_unsupported_ray_setting(plain):
            found.warnings.append(_unsupported(where))
        else:
            raise ConfigError(
                f"{where}: there is no such setting{did_you_mean(plain, list(KEYS))}",
                name=name, value=value, expected="a key of mray", source=where,
            )  # fmt: skip
    return found


def from_environment(environ: Mapping[str, str]) -> Found:
    """What MRAY_x and RAY_x set. An empty variable counts as not set.

    RAY_x must have Ray's exact spelling; MRAY_x may have any case. Unknown names only warn.
    """
    found = Found([], [])
    ranked: list[tuple[int, str, Candidate]] = []
    for variable in sorted(environ):
        value = environ[variable]
        if not variable.startswith(("MRAY_", "RAY_")) or not value.strip():
            continue
        name = (
            MRAY_SUFFIXES.get(variable[5:].lower())
            if variable.startswith("MRAY_")
            else RAY_VARIABLES.get(variable)
        )
        if name is None:
            warning = _unknown_variable(variable, value)
            found.warnings.extend([warning] if warning else [])
            continue
        candidate = Candidate(KEYS[name], value, Source("environment", variable))
        ranked.append((_rank(variable, KEYS[name]), variable, candidate))
        _warn_if_historic(found, variable, variable.partition("_")[2].lower(), name)
    ranked.sort(key=lambda item: item[:2])
    found.candidates.extend(candidate for _, _, candidate in ranked)
    return found


def from_fallbacks(environ: Mapping[str, str]) -> list[Candidate]:
    """What variables of the system set (TMPDIR), for keys that nothing else sets."""
    return [
        Candidate(key, environ[variable], Source("environment", variable))
        for key in KEYS.values()
        for variable in key.fallback_names
        if environ.get(variable, "").strip()
    ]


def from_file(path: str, *, required: bool) -> Found | None:
    """What the TOML file ``path`` sets, or None where there is none and it is not ``required``.

    A file that exists and cannot be read is an error when required, else a warning.
    Raises ConfigError on bad TOML, unknown sections or keys, and secrets.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if required:
            raise ConfigError(
                f"{path} cannot be read: {reason}", expected="a TOML file", source=path
            ) from error
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return None
        return Found([], [f"{path} cannot be read and is left out: {reason}"])
    text, tables = _parse(data, path)
    found = Found([], [], path)
    for section, table in tables.items():
        if section not in SECTIONS:
            raise _unknown_section(path, text, section, table)
        if not isinstance(table, dict):
            raise ConfigError(
                f"{_place(path, text, '', section)}: {section} = {table!r} cannot be used: "
                f"expected a table, [{section}]",
                name=section, value=table, expected="a table", source=path,
            )  # fmt: skip
        for name in sorted(table, key=HISTORIC.__contains__):
            value = table[name]
            where = _place(path, text, section, name)
            key = find(name)
            if key is None or key.section != section or key.secret:
                raise _unknown_key(where, section, name, value)
            found.candidates.append(Candidate(key, value, Source("file", where)))
            _warn_if_historic(found, f"{where}: {name}", name, key.name)
    return found


def _parse(data: bytes, path: str) -> tuple[str, dict[str, Any]]:
    """The text and the tables of a TOML file. Any: TOML values have any type."""
    import tomli  # 2 ms that a start without files does not pay.

    try:
        text = data.decode()
        return text, tomli.loads(text)
    except (ValueError, RecursionError) as error:
        # Bad UTF-8 and a number of 5000 digits are plain ValueErrors and name no line.
        raise ConfigError(
            f"{path} is not valid TOML: {error}", expected="valid TOML", source=path
        ) from error


def _place(path: str, text: str, section: str, name: str) -> str:
    """Where a key stands, "path:line"; the bare path where its line is not plain to see."""
    current = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if header := _SECTION_LINE.match(line):
            current = header[1]
            if section == "" and current == name:
                return f"{path}:{number}"
        elif (entry := _KEY_LINE.match(line)) and (
            ((current or entry[1] or ""), entry[2]) == (section, name)
        ):
            return f"{path}:{number}"
    return path


def _unknown_section(path: str, text: str, section: str, table: object) -> ConfigError:
    key = find(section)
    where = _place(path, text, "", section)
    if key is not None:
        message = f"{where}: the key {section} stands outside its section [{key.section}]"
    else:
        message = f"{where}: there is no section [{section}]{did_you_mean(section, list(SECTIONS))}"
    expected = "one of " + ", ".join(SECTIONS)
    return ConfigError(message, name=section, value=table, expected=expected, source=where)


def _unknown_key(where: str, section: str, name: str, value: object) -> ConfigError:
    key = find(name)
    if key is not None and key.secret:
        message = f"{where}: {name} is a secret and may not stand in a file: set {key.ray_names[0]}"
        return ConfigError(message, name=name, expected="no secret", source=where)
    if key is not None:
        message = f"{where}: the key {name} belongs to [{key.section}], not to [{section}]"
    elif is_unsupported_ray_setting(name):
        message = f"{where}: {name} is a setting of Ray that this version of mray does not support"
    else:
        mine = [known.name for known in KEYS.values() if known.section == section]
        hint = did_you_mean(name, mine) or did_you_mean(name, list(KEYS))
        message = f"{where}: there is no key {name} in [{section}]{hint}"
    return ConfigError(message, name=name, value=value, expected=f"a key of [{section}]",
                       source=where)  # fmt: skip


def _rank(variable: str, key: KeyInfo) -> int:
    """The strength of a variable that sets ``key``; the smallest wins."""
    prefix, _, rest = variable.partition("_")
    if prefix == "MRAY":
        spellings = (key.name, key.name.upper())
        rank = spellings.index(rest) if rest in spellings else 2
        return rank + 10 if rest.lower() in HISTORIC else rank
    return 20 + (key.ray_names.index(variable) if variable in key.ray_names else 10)


def _unknown_variable(variable: str, value: str) -> str:
    """The warning for a variable that sets no key, or "" where it is nobody's mistake."""
    if belongs_elsewhere(variable, value):
        return ""
    if is_unsupported_ray_setting(variable):
        return _unsupported(variable)
    if variable.startswith("MRAY_"):
        known = [key.mray_name for key in KEYS.values()]
    else:
        known = list(RAY_VARIABLES)
    return f"{variable} is no setting and has no effect{did_you_mean(variable, known)}"


def _unsupported(name: str) -> str:
    return f"{name}: known Ray setting, not supported by this version of mray; it has no effect"


def _warn_if_historic(found: Found, where: str, name: str, now: str) -> None:
    if name in HISTORIC:
        found.warnings.append(f"{where} is a former name, taken as {now}: use the new one")
