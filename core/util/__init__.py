"""``mray.util``: what users import beside the core API."""

from mray.serialization.inspection import inspect_serializability
from mray.util.serialization import deregister_serializer, register_serializer

__all__ = ["deregister_serializer", "inspect_serializability", "register_serializer"]
