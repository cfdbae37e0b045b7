"""Writes COMPATIBILITY.md: every option and public name of Ray Core, and what mray does with it.

    python scripts/compatibility/render.py            write the file
    python scripts/compatibility/render.py --check    exit 1 where it is out of date

Ray's names are in ray_names.json (read_ray.py reads them from an installed Ray). What mray has is
looked up in mray itself, why a name is absent in mray.absent; NOTES has what neither can know. So a
name that comes or goes changes the file, and a test holds the two together. A note in NOTES on what
is no name of either, and a name that is absent without a reason, are errors.
"""

from __future__ import annotations

import importlib
import inspect
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from notes import NOTES

from mray import api, init_arguments, options, runtime_env
from mray.absent import absent_part

HERE = Path(__file__).resolve().parent
TARGET = HERE.parents[1] / "COMPATIBILITY.md"

WORKS, OWN, DIFFERS, REFUSED, ABSENT = "works", "mray's own", "differs", "refused", "absent"

INTRODUCTION = """\
# What mray has of Ray Core

Every option and public name of Ray {version}, and what mray does with it. Written by
`scripts/compatibility/render.py`; a test compares it with mray.

- **works**: as in Ray, as far as the tests of `tests/conformance` on both engines go.
- **differs**: it is there, and the note says what is not as in Ray.
- **refused**: an error names it; it is never ignored.
- **absent**: there is no such name; AttributeError and ModuleNotFoundError say why.
- **mray's own**: Ray does not have it.
"""


class Stale(Exception):
    """NOTES and what is there contradict each other."""


class _Notes:
    """NOTES, and which of them were used."""

    def __init__(self) -> None:
        self.used: set[str] = set()

    def of(self, name: str) -> tuple[str, str]:
        """State and text of the note on a name, "" twice where there is none. A note may stand for
        all names that begin with it: "x.*"."""
        parts = name.split(".")
        patterns = [name, *(".".join([*parts[:n], "*"]) for n in range(len(parts) - 1, 0, -1))]
        for pattern in patterns:
            if pattern in NOTES:
                self.used.add(pattern)
                return NOTES[pattern]
        return "", ""


def render() -> str:
    """The text of COMPATIBILITY.md. Raises Stale."""
    names = json.loads((HERE / "ray_names.json").read_text(encoding="utf-8"))
    notes = _Notes()
    lines = [INTRODUCTION.format(version=names["version"])]
    lines += _options(names, notes)
    lines += _init(names["init arguments"], notes)
    lines += _fields(names["runtime_env fields"], notes)
    lines += _names(names["modules"], names["beside"], notes)
    lines += _members(names["members"], notes)
    unused = sorted(NOTES.keys() - notes.used)
    if unused:
        raise Stale(f"notes on what is no name of Ray or mray: {', '.join(unused)}")
    return "\n".join(lines)


def _options(names: dict[str, Any], notes: _Notes) -> Iterator[str]:
    yield "## Options of tasks, actors and methods\n"
    yield "Given to `@ray.remote`, `@ray.method` and `.options()`.\n"
    kinds = {
        "task": (names["task options"], options.TASK_OPTIONS),
        "actor": (names["actor options"], options.ACTOR_OPTIONS),
        "method": (names["method options"], options.METHOD_OPTIONS),
    }
    every = sorted(
        {name for theirs, ours in kinds.values() for name in {*theirs, *ours}},
        key=lambda name: (name[0] == "_", name),
    )
    rows = []
    for name in every:
        state, note = notes.of(f"options.{name}")
        cells = [_option_state(name, *kind, state) for kind in kinds.values()]
        if REFUSED in cells and not note:
            raise Stale(f"the option {name} is refused, and NOTES says nothing of it")
        rows.append([f"`{name}`", *cells, note])
    yield from _table(["option", "tasks", "actors", "methods", "note"], rows)


def _option_state(name: str, theirs: Iterable[str], ours: Iterable[str], stated: str) -> str:
    if name in ours:
        return stated or (WORKS if name in theirs else OWN)
    return REFUSED if name in theirs else ""


def _init(theirs: list[str], notes: _Notes) -> Iterator[str]:
    yield "## Arguments of `ray.init`\n"
    ours = [name for name in inspect.signature(api.init).parameters if name != "other"]
    rows = []
    for name in [*theirs, *sorted(set(ours) - set(theirs))]:
        state, note = notes.of(f"init.{name}")
        if name in init_arguments.WITHOUT_MEANING:
            accepted = " or ".join(
                f"`{value!r}`" for value in init_arguments.WITHOUT_MEANING[name]
            )
            state, note = REFUSED, f"{note}{'; ' * bool(note)}only {accepted} is taken"
        elif name not in ours and name not in init_arguments.PRIVATE and not state:
            raise Stale(f"init() has no {name}, and NOTES says nothing of it")
        rows.append([f"`{name}`", state or (WORKS if name in theirs else OWN), note])
    yield from _table(["argument", "state", "note"], rows)


def _fields(theirs: list[str], notes: _Notes) -> Iterator[str]:
    yield "## Fields of a runtime environment\n"
    rows = []
    for name in sorted({*theirs, *runtime_env.FIELDS}):
        state, note = notes.of(f"runtime_env.{name}")
        if name not in runtime_env.FIELDS:
            state = REFUSED
        rows.append([f"`{name}`", state or (WORKS if name in theirs else OWN), note])
    yield from _table(["field", "state", "note"], rows)


def _names(
    modules: dict[str, list[str]], beside: dict[str, list[str]], notes: _Notes
) -> Iterator[str]:
    yield "## Names\n"
    yield (
        "Libraries beyond Ray Core (`ray.data`, `ray.train`, `ray.tune`, `ray.serve`, `ray.rllib`) "
        "are absent.\n"
    )
    for module, theirs in sorted(modules.items()):
        place = importlib.import_module(f"mray.{module}".rstrip("."))
        ours = [name for name in _public(place) if name not in theirs]
        rows = []
        for name in theirs:
            state, note = _state(f"{module}.{name}".lstrip("."), place, name, notes)
            rows.append([f"`{name}`", state, note])
        for name in sorted(ours):
            state, note = _state(f"{module}.{name}".lstrip("."), place, name, notes)
            if state == WORKS and name not in beside.get(module, ()):
                state = OWN
            rows.append([f"`{name}`", state, note])
        yield f"### `ray.{module}`\n".replace(".`", "`")
        yield from _table(["name", "state", "note"], rows)


def _public(module: ModuleType) -> list[str]:
    """What a module calls public: __all__, else the classes that it defines."""
    return getattr(module, "__all__", None) or [
        name
        for name, value in vars(module).items()
        if name[0] != "_" and inspect.isclass(value) and value.__module__ == module.__name__
    ]


def _members(classes: dict[str, list[str]], notes: _Notes) -> Iterator[str]:
    yield "## Members of classes\n"
    for path, theirs in sorted(classes.items()):
        module, _, name = path.rpartition(".")
        cls = getattr(importlib.import_module(f"mray.{module}".rstrip(".")), name)
        rows = []
        for member in theirs:
            state, note = _state(f"{path}.{member}", cls, member, notes)
            rows.append([f"`{member}`", state, note])
        yield f"### `ray.{path}`\n"
        yield from _table(["member", "state", "note"], rows)


def _state(path: str, place: object, name: str, notes: _Notes) -> tuple[str, str]:
    state, note = notes.of(path)
    if _has(place, name):
        if path in NOTES and state == ABSENT:
            raise Stale(f"ray.{path} is there, and NOTES calls it absent")
        return (WORKS, "") if state == ABSENT else (state or WORKS, note)
    if absent_part(path)[1]:
        return ABSENT, absent_part(path)[1]
    if not note:
        raise Stale(f"ray.{path} is absent, and neither mray.absent nor NOTES says why")
    return ABSENT, note


def _has(place: object, name: str) -> bool:
    if hasattr(place, name):
        return True
    if not inspect.ismodule(place):
        return False
    try:
        importlib.import_module(f"{place.__name__}.{name}")
    except ModuleNotFoundError:
        return False
    return True


def _table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |".replace("  |", " |")
    yield ""


def main() -> int:
    """Write or check the file; the exit code."""
    try:
        text = render()
    except Stale as error:
        print(f"scripts/compatibility/render.py: {error}", file=sys.stderr)
        return 1
    if sys.argv[1:] != ["--check"]:
        TARGET.write_text(text, encoding="utf-8")
        return 0
    if TARGET.read_text(encoding="utf-8") == text:
        return 0
    print(f"{TARGET.name} is out of date: run scripts/compatibility/render.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
