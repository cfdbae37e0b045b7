"""``ray.data``, which mray does not have: two names that libraries import when they load.

Modin and others say ``from ray.data import from_pandas_refs`` at the top of a module and call it
only to hand their frames to Ray Data. So the names are here and say what is missing when they are
called; every other name is missing at once, as is each module below.
"""

from __future__ import annotations

from typing import Any, NoReturn

#: As a package has it, so that modules below are looked for, and mray.compat says what is missing.
__path__: list[str] = []

__all__ = ["from_arrow_refs", "from_pandas_refs"]


def from_pandas_refs(*arguments: Any, **options: Any) -> NoReturn:
    """Raise NotImplementedError: there are no datasets to make of frames."""
    _refuse("from_pandas_refs")


def from_arrow_refs(*arguments: Any, **options: Any) -> NoReturn:
    """Raise NotImplementedError: there are no datasets to make of tables."""
    _refuse("from_arrow_refs")


def _refuse(name: str) -> NoReturn:
    raise NotImplementedError(
        f"ray.data.{name}() makes a dataset of Ray Data, and mray provides Ray Core only; "
        "to use it, install Ray and run the script without the alias"
    )


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(f"module 'mray.data' has no attribute {name!r}")
    # Not AttributeError: who asks whether Ray Data is there, asks for ImportError.
    raise ModuleNotFoundError(
        f"mray provides Ray Core only: there is no ray.data.{name}; "
        "to use it, install Ray and run the script without the alias",
        name="ray.data",
    )
