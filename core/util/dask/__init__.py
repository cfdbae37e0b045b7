"""``mray.util.dask``: dask's collections computed by tasks of the cluster.

Owns the names; scheduler.py is what dask calls. Unlike Ray's, importing it changes nothing in dask.
"""

try:
    import dask  # noqa: F401 (looks whether it is there)
except ImportError as error:
    raise ImportError(
        "mray.util.dask needs dask, which is not installed: pip install 'mray[dask]'", name="dask"
    ) from error

from mray.util.dask.callbacks import RayDaskCallback
from mray.util.dask.scheduler import (
    disable_dask_on_ray,
    enable_dask_on_ray,
    ray_dask_get,
    ray_dask_get_sync,
    ray_dask_persist,
)

__all__ = [
    "RayDaskCallback",
    "disable_dask_on_ray",
    "enable_dask_on_ray",
    "ray_dask_get",
    "ray_dask_get_sync",
    "ray_dask_persist",
]
