"""``ray._raylet``: names that programs written for Ray import from its compiled core."""

from __future__ import annotations

from mray.object_ref import ObjectRef
from mray.object_ref_generator import DynamicObjectRefGenerator, ObjectRefGenerator

__all__ = ["DynamicObjectRefGenerator", "ObjectRef", "ObjectRefGenerator"]
