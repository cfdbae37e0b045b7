"""What a node's store refuses, as the exceptions that users meet."""

from __future__ import annotations

from mray import exceptions
from mray.wire.messages import Message, Refused


def refused(message: Refused, object_id: bytes = b"", size: int | None = None) -> Exception:
    """The exception that a refusal names."""
    match message.kind:
        case "ObjectStoreFullError":
            return exceptions.ObjectStoreFullError(message.text, requested_bytes=size)
        case "OutOfDiskError":
            return exceptions.OutOfDiskError(message.text)
        case "OwnerDiedError":
            return exceptions.OwnerDiedError(object_id.hex(), reason=message.text)
        case "ValueError":
            return ValueError(message.text)
        case kind:
            return exceptions.RaySystemError(f"the object store refused ({kind}): {message.text}")


def unexpected(message: Message) -> Exception:
    """The exception for an answer to another question."""
    return exceptions.RaySystemError(
        f"the object store answered with {type(message).__name__}, which answers something else"
    )
