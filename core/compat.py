"""Lets ``import ray`` mean mray: every name of ``ray`` is the same module object as mray's.

Covers: the import hook and when it may be used. Does not decide for a script (launch.py does) and
changes no module. Identity matters: a class imported by either name is one class, so isinstance,
except clauses and pickles agree. So ``mray.__version__`` is also what scripts see as
``ray.__version__``: a version of Ray with mray's own as its local part (mray.version has that).

An installed real Ray is never shadowed unless the caller forces it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Final

from mray.absent import absent_part, reason_of

#: The variable that turns the alias on ("1", also beside a real Ray) or off ("0").
SWITCH: Final = "MRAY_AS_RAY"


class _Alias:
    """Finds and loads ``ray`` and ``ray.x`` as ``mray`` and ``mray.x``: finder and loader."""

    def __init__(self) -> None:
        #: Specs of modules between create_module and exec_module, by the name asked for.
        self._own_specs: dict[str, ModuleSpec | None] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        first, _, rest = name.partition(".")
        if first != "ray":
            return None
        reason = reason_of(rest)
        if reason:
            raise ModuleNotFoundError(reason, name=f"ray.{absent_part(rest)[0]}")
        found = importlib.util.find_spec(_own_name(name))
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(name, self, origin=found.origin, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(_own_name(spec.name))
        self._own_specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just put the alias's spec on the module: give it back its own,
        # by which relative imports, reload() and repr() go.
        assert module.__spec__ is not None
        module.__spec__ = self._own_specs.pop(module.__spec__.name)


def _own_name(name: str) -> str:
    return "m" + name


def real_ray() -> str | None:
    """Where an installed real Ray is, or None. A folder that merely is called ray does not count.

    Looks, imports nothing.
    """
    found = PathFinder.find_spec("ray")
    return found.origin if found is not None and found.loader is not None else None


def installed() -> bool:
    """Whether ``import ray`` means mray in this process."""
    return any(isinstance(finder, _Alias) for finder in sys.meta_path)


def install(*, force: bool = False) -> None:
    """Make ``import ray`` mean mray from now on. Idempotent.

    ``force``: also where a real Ray is installed. Raises ImportError where one is and ``force`` is
    not set, or where it has been imported already.
    """
    if installed():
        return
    imported = sys.modules.get("ray")
    if imported is not None:
        raise ImportError(
            f"Ray was imported already, from {getattr(imported, '__file__', None)}: "
            "turn the alias on before the first `import ray`",
            name="ray",
        )
    place = None if force else real_ray()
    if place is not None:
        raise ImportError(
            f"a real Ray is installed at {place} and is not shadowed unasked: "
            f"use --as-ray, {SWITCH}=1 or install(force=True)",
            name="ray",
            path=place,
        )
    sys.meta_path.insert(0, _Alias())


def forced(environ: Mapping[str, str]) -> bool | None:
    """What MRAY_AS_RAY says: True, False, or None where it says nothing. ValueError on junk."""
    text = environ.get(SWITCH, "").strip().lower()
    if text in ("1", "true", "on", "yes"):
        return True
    if text in ("0", "false", "off", "no"):
        return False
    if text:
        raise ValueError(f"{SWITCH}={environ[SWITCH]!r} cannot be used: expected 1 or 0")
    return None
