"""What a setting says of itself beside its type and bounds, and what sections of settings are.

Owns neither a setting (sections.py) nor how values are found (load.py).
"""

from typing import Literal, TypeAlias

from msgspec import Struct

#: cluster: the head's value holds everywhere. node: each node has its own. process: each driver,
#: worker or command has its own.
Scope: TypeAlias = Literal["cluster", "node", "process"]


class Key(Struct, frozen=True):
    """What an annotation says of its field beside type and bounds."""

    #: What the value is, one sentence.
    about: str
    #: What turning it does, one sentence.
    effect: str
    scope: Scope
    #: "bytes" and "ms"/"s" take "2GiB" and "250ms"; "path" takes "~/"; else only printed.
    unit: str = ""
    #: Ray's variables for it, in Ray's exact spelling, strongest first.
    ray: tuple[str, ...] = ()
    #: Former names of the key (Ray's), taken with a warning.
    historic: tuple[str, ...] = ()
    #: Variables that belong to the system: they count only where nothing else sets the key.
    fallback: tuple[str, ...] = ()
    #: For a choice: what 1/true/on/yes and 0/false/off/no mean.
    switch: tuple[str, str] | None = None
    #: Which of values.py's checks has the last word on a text.
    problem: str = ""
    #: May change while the cluster runs.
    live: bool = False
    #: Never shown, never in a file, never in Config.
    secret: bool = False


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that belong together."""
