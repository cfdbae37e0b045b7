"""The settings as a table: one KeyInfo a key, and finding a key by any of its names.

Built once, at import, from the annotations in sections.py. Holds no values: load.py does.
"""

from __future__ import annotations

from typing import Any, Final, Literal, get_args, get_origin

from msgspec import Meta, Struct

from mray.config.errors import ConfigError
from mray.config.key import Key, Scope
from mray.config.ray_names import UNSUPPORTED
from mray.config.sections import Config, Secrets
from mray.units import DurationUnit, format_bytes, format_duration

Kind = Literal["bytes", "duration", "integer", "number", "boolean", "choice", "path", "text"]

_TRUE: Final = ("1", "true", "on", "yes")
_FALSE: Final = ("0", "false", "off", "no")


class KeyInfo(Struct, frozen=True, kw_only=True):
    """All that is known of one setting. Everything but ``accepts`` is plain data."""

    name: str
    section: str
    kind: Kind
    default: Any
    #: What the value is, and what turning it does: one sentence each.
    about: str
    effect: str
    scope: Scope
    #: "bytes", "ms", "s", "path", or a noun that is only printed.
    unit: str
    #: Bounds of a number, both inclusive unless ``above`` says that the minimum is not.
    minimum: float | None
    maximum: float | None
    above: bool
    choices: tuple[str, ...]
    #: None is a value, written "auto".
    optional: bool
    #: Boolean words, in lower case, and what they mean here.
    switch: dict[str, bool | str]
    ray_names: tuple[str, ...]
    historic_names: tuple[str, ...]
    fallback_names: tuple[str, ...]
    live: bool
    secret: bool
    problem: str
    #: The annotation, for msgspec.convert.
    accepts: Any

    @property
    def mray_name(self) -> str:
        """The variable that sets it, in the spelling to print; lower case works as well."""
        return f"MRAY_{self.name.upper()}"

    @property
    def duration_unit(self) -> DurationUnit:
        """The unit of a duration. ValueError for any other kind of key."""
        if self.unit == "ms":
            return "ms"
        if self.unit == "s":
            return "s"
        raise ValueError(f"{self.name} is no duration")

    @property
    def type_text(self) -> str:
        """The type in words: 'a size in bytes', 'a duration in ms', 'one of warn, allow'."""
        match self.kind:
            case "bytes":
                words = 'a size in bytes (a number, or text such as "2GiB")'
            case "duration":
                whole = "whole " if isinstance(self.default, int) else ""
                words = f'a duration in {whole}{self.unit} (a number, or text such as "10s")'
            case "integer":
                words = "a whole number"
            case "number":
                words = "a number"
            case "boolean":
                words = "true or false (also 1/0, on/off, yes/no)"
            case "choice":
                words = "one of " + ", ".join(self.choices)
            case "path":
                words = "an absolute path"
            case "text":
                words = "text"
        return words + (' or "auto"' if self.optional else "")

    @property
    def bounds_text(self) -> str:
        """The bounds in words: 'from 0 to 1', 'above 0 s, at most 1 d'; "" where there are none."""
        if self.minimum is None or self.maximum is None:
            return ""
        low, high = self._bound(self.minimum), self._bound(self.maximum)
        if self.above:
            return f"above {low}, at most {high}"
        return f"at least {low}" if self.maximum >= 2**63 - 1 else f"from {low} to {high}"

    @property
    def expected(self) -> str:
        """Type and bounds in words, for errors."""
        return ", ".join(filter(None, (self.type_text, self.bounds_text)))

    def show(self, value: object) -> str:
        """``value`` as people would write it: "100KiB", "250ms", "on", "auto"; secrets masked."""
        if self.secret:
            return "(set)" if value else "(not set)"
        if value is None:
            return "auto"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return self._plain(value) + (self.unit if self.kind == "duration" else "")
        return str(value)

    @property
    def seconds_each(self) -> float:
        """The seconds in one of the unit of a duration."""
        return 0.001 if self.duration_unit == "ms" else 1.0

    def _bound(self, number: float) -> str:
        if self.kind == "duration":
            return format_duration(number * self.seconds_each)
        return self._plain(number)

    def _plain(self, number: float) -> str:
        if self.kind == "bytes":
            return format_bytes(int(number), exact=True)
        return str(int(number)) if number == int(number) else str(number)


def _describe(section: str, name: str, annotation: Any, default: Any) -> KeyInfo:
    """The KeyInfo of one field. Any: annotations have no type that mypy knows."""
    key = next(item for item in annotation.__metadata__ if isinstance(item, Key))
    base, metadata = annotation.__origin__, annotation.__metadata__
    optional = type(None) in get_args(base)
    if optional:
        inner = next(item for item in get_args(base) if item is not type(None))
        base, metadata = inner.__origin__, inner.__metadata__
    bounds = next((item for item in metadata if isinstance(item, Meta)), Meta())
    on, off = key.switch or (True, False)
    kind = _kind(base, key)
    return KeyInfo(
        name=name,
        section=section,
        kind=kind,
        default=default,
        about=key.about,
        effect=key.effect,
        scope=key.scope,
        unit=key.unit,
        minimum=bounds.ge if bounds.gt is None else bounds.gt,
        maximum=bounds.le,
        above=bounds.gt is not None,
        choices=get_args(base) if kind == "choice" else (),
        optional=optional,
        switch=(
            {**dict.fromkeys(_TRUE, on), **dict.fromkeys(_FALSE, off)}
            if kind == "boolean" or key.switch
            else {}
        ),
        ray_names=key.ray,
        historic_names=key.historic,
        fallback_names=key.fallback,
        live=key.live,
        secret=key.secret,
        problem=key.problem,
        accepts=annotation,
    )


def _kind(base: Any, key: Key) -> Kind:
    if get_origin(base) is Literal:
        return "choice"
    if base is bool:
        return "boolean"
    if base is str:
        return "path" if key.unit == "path" else "text"
    if key.unit == "bytes":
        return "bytes"
    if key.unit in ("ms", "s"):
        return "duration"
    return "integer" if base is int else "number"


def _collect() -> dict[str, KeyInfo]:
    keys: dict[str, KeyInfo] = {}
    config = Config()
    sections = [(name, getattr(config, name)) for name in Config.__struct_fields__]
    for section, values in [*sections, ("auth", Secrets())]:
        for name, annotation in type(values).__annotations__.items():
            if name in keys:
                raise TypeError(f"two sections have a key {name}: MRAY_{name} would be ambiguous")
            keys[name] = _describe(section, name, annotation, getattr(values, name))
    return keys


#: Every key by its name, in the order of the sections.
KEYS: Final[dict[str, KeyInfo]] = _collect()

#: Section names, in order.
SECTIONS: Final = tuple(Config.__struct_fields__)

#: Former key names, and what they are called now.
HISTORIC: Final = {old: key.name for key in KEYS.values() for old in key.historic_names}

#: Ray's variables in Ray's exact spelling, former names included, and the key each one sets.
RAY_VARIABLES: Final = {
    **{f"RAY_{old}": new for old, new in HISTORIC.items()},
    **{variable: key.name for key in KEYS.values() for variable in key.ray_names},
}

#: What may follow "MRAY_", in lower case, and the key it sets: key names and Ray's names.
MRAY_SUFFIXES: Final = {
    **{variable.removeprefix("RAY_").lower(): name for variable, name in RAY_VARIABLES.items()},
    **{name: name for name in KEYS},
}

_UNSUPPORTED_LOWER: Final = frozenset(name.lower() for name in UNSUPPORTED)


def find(name: str) -> KeyInfo | None:
    """The key with this name or former name, or None."""
    return KEYS.get(HISTORIC.get(name) or name)


def is_unsupported_ray_setting(variable: str) -> bool:
    """Whether ``variable`` (RAY_x, MRAY_x or x) is a setting of Ray that mray lacks."""
    if variable.startswith("MRAY_"):
        return variable[5:].lower() in _UNSUPPORTED_LOWER
    return variable.removeprefix("RAY_") in UNSUPPORTED


def nearest(name: str, known: list[str]) -> str:
    """The one of ``known`` most like ``name``, or the only one that contains it, or "".

    Case does not matter.
    """
    import difflib  # Only after a mistake: 1.3 ms that no start should pay.

    folded = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.7)
    if not found:
        found = [candidate for candidate in folded if name.lower() in candidate]
    return folded[found[0]] if len(found) == 1 else ""


def did_you_mean(name: str, known: list[str]) -> str:
    """'; did you mean x?' or ""."""
    found = nearest(name, known)
    return f"; did you mean {found}?" if found else ""


def describe(name: str) -> KeyInfo:
    """The key called ``name``: a key, section.key, MRAY_x, RAY_x or a former name.

    Raises ConfigError, with the nearest name, where there is no such key.
    """
    section, _, bare = name.rpartition(".")
    if bare in KEYS and section in ("", KEYS[bare].section):
        return KEYS[bare]
    found = RAY_VARIABLES.get(name) or HISTORIC.get(name)
    if name.startswith("MRAY_"):
        found = MRAY_SUFFIXES.get(name[5:].lower())
    if found is not None:
        return KEYS[found]
    if is_unsupported_ray_setting(name):
        raise ConfigError(
            f"{name} is a setting of Ray that this version of mray does not support",
            name=name,
            expected="a key of mray",
        )
    hint = did_you_mean(bare, [*KEYS, *RAY_VARIABLES])
    raise ConfigError(f"there is no key {name!r}{hint}", name=name, expected="a key of mray")
