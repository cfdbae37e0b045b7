"""`mray version`. main.py answers the plain form by line(), without importing typer."""

from __future__ import annotations

from mray.version import RAY_VERSION, VERSION


def line() -> str:
    """What `mray version` prints."""
    return f"mray {VERSION}, behaves like Ray {RAY_VERSION}"


def facts() -> dict[str, str]:
    """What `mray version --json` prints."""
    import platform

    return {"mray": VERSION, "ray": RAY_VERSION, "python": platform.python_version()}
