"""The names of an actor, as in Ray: of its class ``Outer.Named`` where that is meant (lists,
errors, handles), ``Named`` before a method's name, in titles of processes and before what it
prints; there its own, where the class has a ``__repr__``."""

from __future__ import annotations

from typing import Final

#: It stands in front of every line.
_SHOWN_CHARS_MAX: Final = 200


def short_name(class_name: str) -> str:
    """The last part of a qualified name."""
    return class_name.rpartition(".")[2]


def shown_repr(actor: object) -> str | None:
    """What an actor that was just made calls itself, on one line; None where its class leaves that
    to us, or cannot say."""
    if type(actor).__repr__ is object.__repr__:
        return None
    try:
        text = repr(actor)
    except Exception:  # The user's code: a name in front of its output is worth no actor.
        return None
    return " ".join(text.split())[:_SHOWN_CHARS_MAX]
