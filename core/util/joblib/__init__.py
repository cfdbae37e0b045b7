"""``mray.util.joblib``: joblib's Parallel, and all that is built on it, over the cluster.

Owns the registration only, so that it can be imported without joblib. The backend is backend.py.
"""

from __future__ import annotations

from importlib import import_module

__all__ = ["register_ray"]


def register_ray() -> None:
    """Make ``joblib.parallel_config(backend="ray")`` mean this cluster; ``"mray"`` is the same.

    ImportError where joblib is not installed.
    """
    try:
        parallel = import_module("joblib.parallel")
    except ImportError as error:
        raise ImportError(
            "register_ray() needs joblib, which is not installed: pip install 'mray[joblib]'",
            name="joblib",
        ) from error
    backend = import_module("mray.util.joblib.backend")
    for name in ("ray", "mray"):
        parallel.register_parallel_backend(name, backend.MrayBackend)
