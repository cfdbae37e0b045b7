"""Messages to and from bytes: a version byte, then msgpack of the tagged struct.

Junk is a ProtocolError for that one peer, never a crash: the decoder validates every field against
the message's type, and nothing here ever unpickles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import msgspec

from mray.wire.messages import AnyMessage, Message

#: First byte of every message. A peer of another version is refused before anything is decoded.
WIRE_VERSION = 1
_VERSION = bytes([WIRE_VERSION])
#: Larger messages are refused unread: big values travel through the store, not through sockets.
MESSAGE_BYTES_MAX = 512 * 1024 * 1024

_encode = msgspec.msgpack.Encoder().encode
#: By tag: the messages whose first field is the number of a request.
_KINDS: dict[object, type[Message]] = {
    kind.__struct_config__.tag: kind
    for kind in get_args(AnyMessage)
    if kind.__struct_fields__[:1] == ("rid",)
}
_decode: Callable[[memoryview], Message] = msgspec.msgpack.Decoder(AnyMessage).decode


class ProtocolError(ValueError):
    """A peer sent bytes that are no message of this version. ``kind`` and ``rid`` are told where
    they are a request, but for a field that is not as it has to be."""

    kind: type[Message] | None = None
    rid = 0


def encode(message: Message) -> bytes:
    """The bytes of a message."""
    return _VERSION + _encode(message)


def decode(data: bytes | memoryview) -> Message:
    """The message in ``data``; ProtocolError if there is none."""
    if not data or data[0] != WIRE_VERSION:
        first = data[0] if data else None
        raise ProtocolError(f"not an mray message of version {WIRE_VERSION}: first byte {first}")
    try:
        return _decode(memoryview(data)[1:])
    except Exception as error:
        # Not msgspec's errors only: text that is no UTF-8 is a UnicodeDecodeError, for one. No code
        # of ours runs in there, so whatever it is, it is about the bytes.
        wrong = ProtocolError(f"not an mray message: {error}")
        _name_request(wrong, data)
        raise wrong from error


def _name_request(wrong: ProtocolError, data: bytes | memoryview) -> None:
    """Say which request it was meant to be, where that can be told: its asker waits."""
    try:
        fields = msgspec.msgpack.decode(memoryview(data)[1:])
    except Exception:
        return  # No msgpack at all.
    if not isinstance(fields, list) or len(fields) < 2 or not isinstance(fields[0], int):
        return
    kind = _KINDS.get(fields[0])
    if kind is not None and isinstance(fields[1], int) and 0 <= fields[1] < 1 << 63:
        wrong.kind, wrong.rid = kind, fields[1]
