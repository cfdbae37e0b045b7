"""Messages to bytes and back, of every type; anything else is a ProtocolError."""

from __future__ import annotations

import types
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mray.wire.codec import WIRE_VERSION, ProtocolError, decode, encode
from mray.wire.messages import Ack, AnyMessage, KvPut, Message, Ping

KINDS: list[type[Message]] = list(typing.get_args(AnyMessage))
INT = st.integers(-(2**63), 2**64 - 1)
PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: INT,
    float: st.floats(allow_nan=False),
    str: st.text(max_size=20),
    bytes: st.binary(max_size=20),
    type(None): st.none(),
}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that a message may hold."""
    if kind in PLAIN:
        return PLAIN[kind]
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.deferred(lambda: structs(kind))
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        inner, (bounds,) = kind.__origin__, kind.__metadata__
        number = st.integers if inner is int else st.floats
        return number(bounds.ge, bounds.le)
    if origin is list:
        return st.lists(values(args[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=2)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(values, args))
    raise AssertionError(f"no values for {kind}")


def structs(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})


def test_every_message_of_the_module_can_be_sent() -> None:
    defined = {kind for kind in Message.__subclasses__() if kind.__module__.endswith("messages")}
    assert defined == set(KINDS)


def test_every_message_has_a_number_of_its_own() -> None:
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert len(set(tags)) == len(tags)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_messages_survive_the_wire(kind: type[Message]) -> None:
    @settings(max_examples=15, deadline=None, database=None, derandomize=True)
    @given(structs(kind))
    def survives(message: Message) -> None:
        data = encode(message)
        assert decode(data) == message
        assert decode(memoryview(data)) == message
        with pytest.raises(ProtocolError):
            decode(data[:-1])

    survives()


def test_a_peer_of_another_version_is_told_apart() -> None:
    data = encode(Ping(1))
    with pytest.raises(ProtocolError, match=f"version {WIRE_VERSION}: first byte 2"):
        decode(b"\x02" + data[1:])


def test_fields_added_by_a_newer_peer_do_no_harm() -> None:
    data = bytes([WIRE_VERSION]) + msgspec.msgpack.encode([1, 7, "added later"])
    assert decode(data) == Ack(7)


VERSION = bytes([WIRE_VERSION])
JUNK = {
    "nothing": b"",
    "version only": VERSION,
    "no version": b"\0\x92\x01\x01",
    "text": b"GET / HTTP/1.1\r\n",
    "unknown tag": VERSION + b"\x92\xcd\xff\xff\x01",
    "tag of the local failure": VERSION + b"\x93\x00\xa1a\xa1b",
    "no tag": VERSION + b"\x90",
    "map": VERSION + b"\x81\x01\x01",
    "wrong type": VERSION + b"\x92\x01\xa1a",
    "negative count": VERSION + b"\x92\x01\xc0",
    "bad utf-8": VERSION + b"\x94\x02\x01\xa2\xff\xfe\xa1a",
    "endless array": VERSION + b"\xdd\xff\xff\xff\xff",
    "endless bytes": VERSION + b"\x92\x32\xc6\xff\xff\xff\xff",
    "endless list of objects": VERSION + b"\x93\x36\x01\xdd\xff\xff\xff\xff",
    "endless map": VERSION + b"\x96\x0c\xc4\x00\xdf\xff\xff\xff\xff",
    "deep nesting": VERSION + b"\x91" * 100_000,
    "deep nesting beyond the last field": VERSION + b"\x93\x01\x01" + b"\x91" * 100_000,
    "trailing bytes": encode(Ack(1)) + b"\x00",
    "unhashable key": VERSION + b"\x96\x0c\xc4\x00\x81\x91\x01\x01\x90\x00\x00",
    "timestamp": VERSION + b"\x92\x01\xd6\xff\0\0\0\0",
    "unknown extension": VERSION + b"\x92\x01\xd4\x05\0",
}


@pytest.mark.parametrize("data", JUNK.values(), ids=JUNK.keys())
def test_junk_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="not an mray message"):
        decode(data)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.binary(max_size=200))
def test_random_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    try:
        message = decode(VERSION + data)
    except ProtocolError:
        return
    assert isinstance(message, Message)


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_a_damaged_message_is_a_message_or_a_protocol_error(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    whole = bytearray(encode(data.draw(structs(kind))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        message = decode(bytes(whole))
    except ProtocolError:
        return
    assert isinstance(message, Message)


def test_bytes_travel_unchanged() -> None:
    payload = bytes(range(256)) * 1000
    assert decode(encode(KvPut(1, "n", b"k", payload, True))) == KvPut(1, "n", b"k", payload, True)
