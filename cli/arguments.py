"""What people type after options, turned into values: JSON, sizes, labels, filters.

Pure: no file but the one of --runtime-env, no environment. Everything that cannot be read ends as
WrongUsage, which names the option.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mray.cli.failure import WrongUsage
from mray.resources import to_fixed
from mray.runtime_env import checked
from mray.units import parse_bytes

#: Names of resources that have an option of their own.
_OWN_OPTION: Final = {
    "CPU": "--num-cpus", "GPU": "--num-gpus", "memory": "--memory",
    "object_store_memory": "--object-store-memory",
}  # fmt: skip
_LABEL: Final = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?")
_SUBMISSION_ID: Final = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_.]{0,99}")
#: What a runtime environment may hold in this version.
RUNTIME_ENV_KEYS: Final = ("env_vars", "working_dir")


def json_object(text: str, option: str) -> dict[str, Any]:
    """The JSON object in ``text``. Any: JSON."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise WrongUsage(
            f"{option} {text!r} is not JSON: {error}; "
            f"expected an object in quotes, as in {option} '{{\"key\": 1}}'"
        ) from error
    if not isinstance(value, dict):
        raise WrongUsage(f"{option} {text!r} is no JSON object: expected '{{\"key\": ...}}'")
    return value


def resources(text: str) -> dict[str, float]:
    """Custom resources of --resources '{"name": amount}'."""
    found = json_object(text, "--resources")
    for name, amount in found.items():
        if name in _OWN_OPTION:
            raise WrongUsage(f"--resources: {name} is set by {_OWN_OPTION[name]}")
        if isinstance(amount, bool) or not isinstance(amount, int | float):
            raise WrongUsage(f"--resources: the amount of {name!r} is {amount!r}, not a number")
    checked_amounts(found, "--resources")
    return found


def checked_amounts(amounts: Mapping[str, float], option: str) -> None:
    """Refuse amounts that no node can have."""
    try:
        to_fixed(amounts)
    except (ValueError, OverflowError) as error:
        raise WrongUsage(f"{option}: {error}") from error


def size(text: str, option: str) -> int:
    """Bytes of "2GiB" or "1048576"."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise WrongUsage(f"{option}: {error}") from error


def labels(text: str) -> dict[str, str]:
    """Labels of --labels "key=value,key2=value2", or of a JSON object of texts."""
    if text.lstrip().startswith("{"):
        found = json_object(text, "--labels")
    else:
        found = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, equals, value = part.partition("=")
            if not equals:
                raise WrongUsage(f"--labels: {part!r} is not KEY=VALUE")
            if key.strip() in found:
                raise WrongUsage(f"--labels: {key.strip()!r} is given twice")
            found[key.strip()] = value.strip()
    for key, value in found.items():
        if not isinstance(value, str):
            raise WrongUsage(f"--labels: the value of {key!r} is {value!r}, not text")
        if not _LABEL.fullmatch(key) or (value and not _LABEL.fullmatch(value)):
            raise WrongUsage(
                f"--labels: {key}={value} is no label: letters, digits, - _ . and / are allowed, "
                "with a letter or a digit at both ends"
            )
        if key.startswith(("ray.io/", "mray.io/")):
            raise WrongUsage(f"--labels: {key} begins with a prefix that is kept for mray itself")
    return found


def string_map(text: str, option: str) -> dict[str, str]:
    """A JSON object of texts."""
    found = json_object(text, option)
    for key, value in found.items():
        if not isinstance(value, str):
            raise WrongUsage(f"{option}: the value of {key!r} is {value!r}, not text")
    return found


def runtime_env_file(path: str) -> dict[str, Any]:
    """The runtime environment in a .json or .toml file. Any: JSON."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise WrongUsage(f"--runtime-env: {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WrongUsage(f"--runtime-env: {path} is no UTF-8 text: {error}") from error
    if path.endswith((".yaml", ".yml")):
        raise WrongUsage(f"--runtime-env: {path} is YAML, which is not read: use TOML or JSON")
    if not path.endswith(".toml"):
        return json_object(text, f"--runtime-env {path}:")
    import tomli

    try:
        return tomli.loads(text)
    except ValueError as error:
        raise WrongUsage(f"--runtime-env: {path} is not TOML: {error}") from error


def checked_runtime_env(env: Mapping[str, Any], option: str) -> dict[str, Any]:
    """``env`` if mray can make it. Any: JSON."""
    try:
        return checked(env, option)
    except (TypeError, ValueError) as error:
        raise WrongUsage(str(error)) from error


def submission_id(text: str) -> str:
    """A submission id that may be part of a file's name."""
    if not _SUBMISSION_ID.fullmatch(text):
        raise WrongUsage(
            f"--submission-id {text!r} cannot be used: letters, digits, - _ and ., at most 100, "
            "and neither - nor . first"
        )
    return text


def filters(texts: Sequence[str]) -> list[tuple[str, str, str]]:
    """(key, "=" or "!=", value) of each --filter."""
    found = []
    for text in texts:
        match = re.fullmatch(r"\s*([A-Za-z_]+)\s*(!=|=)\s*(.*?)\s*", text)
        if match is None:
            raise WrongUsage(f"--filter {text!r} is neither KEY=VALUE nor KEY!=VALUE")
        found.append((match[1].lower(), match[2], match[3]))
    return found


def matches(facts: Mapping[str, object], wanted: Sequence[tuple[str, str, str]]) -> bool:
    """Whether an entry passes all filters: case does not matter, ids match by prefix of 6+."""
    for key, operator, value in wanted:
        if key not in facts:
            raise WrongUsage(f"--filter: there is no {key!r}; there are {', '.join(facts)}")
        there = str(facts[key]).lower()
        value = value.lower()
        by_prefix = key.endswith("_id") and len(value) >= 6
        equal = there.startswith(value) if by_prefix else there == value
        if equal != (operator == "="):
            return False
    return True
