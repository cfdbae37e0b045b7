"""From what a person wrote to a checked value: one text or one TOML value at a time.

Covers: words, sizes, durations, paths and bounds, and the error that explains a refusal. Does not
know precedence. msgspec has the last word on every value, so a bound stands in one place.
"""

from __future__ import annotations

import math
import posixpath
import re
from typing import Final

import msgspec

from mray.config.errors import ConfigError
from mray.config.registry import KeyInfo
from mray.config.sources import Candidate, Source
from mray.rpc import fault_rules
from mray.units import parse_bytes, parse_duration

#: int() would also take "1_000" and digits of other scripts.
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")


def convert(candidate: Candidate, home: str) -> object:
    """The candidate's value in the type of its key.

    In a variable or a flag "250" is a number and "on" a boolean; in a file they are texts. ``home``
    stands for a leading "~". Raises ConfigError on a wrong type or a value out of bounds.
    """
    key, value, source = candidate.key, candidate.value, candidate.source
    if key.problem and isinstance(value, str) and value.strip():
        _check_rules(key, value, source)
    as_text = source.kind in ("flag", "environment")
    try:
        return msgspec.convert(_read(key, value, home, as_text), key.accepts)
    except (ValueError, OverflowError) as error:  # msgspec.ValidationError is a ValueError
        subject = f"{source}: {key.name}" if source.kind == "file" else str(source)
        shown = "" if key.secret else f" = {_short(value)}"
        hint = _hint(key, value, home) if as_text or key.kind == "path" else ""
        raise ConfigError(
            f"{subject}{shown} cannot be used: expected {key.expected}{hint}",
            name=key.name if source.kind == "file" else source.where,
            value=None if key.secret else value,
            expected=key.expected,
            source=str(source),
        ) from (None if key.secret else error)


def _check_rules(key: KeyInfo, text: str, source: Source) -> None:
    """Raise ConfigError where the rules of a setting for tests cannot be used, with the reason."""
    parse = {"rpc_failure": fault_rules.parse_failures, "asio_delay_us": fault_rules.parse_delays}
    try:
        parse[key.problem](text)
    except ValueError as error:
        subject = f"{source}: {key.name}" if source.kind == "file" else str(source)
        raise ConfigError(
            f"{subject} = {_short(text)} cannot be used: {error}",
            name=key.name if source.kind == "file" else source.where,
            value=text,
            expected=str(error),
            source=str(source),
        ) from error


def expand_home(path: str, home: str) -> str:
    """``path`` with a leading "~" replaced; as it is where ``home`` is "" or there is none."""
    if home and (path == "~" or path.startswith("~/")):
        return posixpath.join(home, path[2:]) if path != "~" else home
    return path


def _read(key: KeyInfo, value: object, home: str, as_text: bool) -> object:
    """The value with its text understood, bounds not yet checked. Raises ValueError."""
    if isinstance(value, bool) and key.switch:
        return key.switch[str(value).lower()]
    if not isinstance(value, str):
        return value
    text = value.strip()
    text.encode()  # UnicodeEncodeError where a variable holds bytes that are no text.
    if key.optional and text.lower() == "auto":
        return None
    if as_text and text.lower() in key.switch:
        return key.switch[text.lower()]
    match key.kind:
        case "choice":
            return {choice.lower(): choice for choice in key.choices}.get(text.lower(), text)
        case "bytes":
            return int(text) if as_text and _WHOLE.fullmatch(text) else parse_bytes(text)
        case "duration":
            duration = parse_duration(text, key.duration_unit)
            return _whole(duration) if isinstance(key.default, int) else duration
        case "integer":
            return int(text) if as_text and _WHOLE.fullmatch(text) else value
        case "number":
            return _finite(float(text)) if as_text else value
        case "path":
            # The default may start with "~" and has to be a valid value where there is no HOME.
            path = expand_home(text, home)
            return path if text == key.default else _absolute(path)
        case "text" | "boolean":
            return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"


def _whole(number: float) -> int:
    if number != int(number):  # int() raises OverflowError for infinity.
        raise ValueError(f"{number} is not whole")
    return int(number)


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError(f"{number} is not finite")
    return number


def _absolute(path: str) -> str:
    if not posixpath.isabs(path):
        raise ValueError(f"{path} is not absolute")
    return path


def _hint(key: KeyInfo, value: object, home: str) -> str:
    """What may have gone wrong with a text, to end an error with."""
    if key.secret or not isinstance(value, str):
        return ""
    text = value.strip()
    before, mark, _ = text.partition("#")
    if mark and before.strip() and key.kind not in ("path", "text"):
        comment = text[len(before) :]
        return f"; a comment cannot follow a value here: leave out {comment!r}"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return "; the quotes are part of the value: leave them out"
    if text.startswith("~") and not home:
        return '; "~" stands for nothing because HOME is not set'
    return ""
