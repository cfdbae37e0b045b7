"""The two names of an actor's class, as in Ray: ``Outer.Named`` where the class is meant (lists,
errors, handles), ``Named`` before a method's name and in titles of processes."""

from __future__ import annotations


def short_name(class_name: str) -> str:
    """The last part of a qualified name."""
    return class_name.rpartition(".")[2]
