"""``ray.util.check_serialize``: the names that programs written for Ray import from there.

The search itself is mray.serialization.inspection.
"""

from mray.serialization.inspection import FailureTuple, inspect_serializability

__all__ = ["FailureTuple", "inspect_serializability"]
