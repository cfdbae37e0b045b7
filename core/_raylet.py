"""``ray._raylet``: names that programs written for Ray import from its compiled core."""

from __future__ import annotations

from mray.id_types import (
    ActorClassID,
    ActorID,
    BaseID,
    FunctionID,
    JobID,
    NodeID,
    PlacementGroupID,
    TaskID,
    UniqueID,
    WorkerID,
)
from mray.object_ref import ObjectRef
from mray.object_ref_generator import DynamicObjectRefGenerator, ObjectRefGenerator

#: Ray's old name of ObjectRef.
ObjectID = ObjectRef

__all__ = [
    "ActorClassID",
    "ActorID",
    "BaseID",
    "DynamicObjectRefGenerator",
    "FunctionID",
    "JobID",
    "NodeID",
    "ObjectID",
    "ObjectRef",
    "ObjectRefGenerator",
    "PlacementGroupID",
    "TaskID",
    "UniqueID",
    "WorkerID",
]
