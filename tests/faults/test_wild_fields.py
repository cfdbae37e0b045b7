"""Well-formed messages with wild fields, from a peer that is let in: nobody's timers suffer.

Every message that a daemon handles, each field in turn NaN, infinite, negative, huge or of a wrong
length. The daemons live, requests that break a bound are refused at once, and who asks beside that
is served.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import mray
from mray import current
from mray.rpc.client import AskError, Client
from mray.wire import messages as m
from mray.wire.codec import WIRE_VERSION, ProtocolError, decode, encode

from .conftest import Begin

pytestmark = pytest.mark.failure

WILD: list[Any] = [
    math.nan, math.inf, -math.inf, -1, -1.0, 2**63, b"", b"x" * 5, b"x" * 65_536, "y" * 65_536, "",
]  # fmt: skip
#: Whoever may send these may end the daemon by them, or the nodes and processes that they name.
MAY_END = {
    m.Shutdown, m.DrainNode, m.NodeGone, m.NodeRegistered, m.RegisterNode, m.RegisterAgain,
    m.JobGone, m.ProcessDied,
}  # fmt: skip


def _value(kind: msgspec.inspect.Type) -> Any:
    """A value of a type, as MessagePack has it."""
    match kind:
        case msgspec.inspect.BytesType():
            return b"w" * 28
        case msgspec.inspect.StrType():
            return "w"
        case msgspec.inspect.BoolType():
            return False
        case msgspec.inspect.IntType():
            return 1
        case msgspec.inspect.FloatType():
            return 0.0
        case msgspec.inspect.ListType() | msgspec.inspect.CollectionType():
            return [_value(kind.item_type)]
        case msgspec.inspect.TupleType(item_types=items):
            return [_value(item) for item in items]
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return {_value(key): _value(value)}
        case msgspec.inspect.UnionType():
            return None
        case msgspec.inspect.StructType(fields=fields, tag=tag):
            values = [_value(field.type) for field in fields]
            return values if tag is None else [tag, *values]
    raise TypeError(kind)


def _mutants(kind: type[m.Message]) -> list[bytes]:
    """Messages of a type, each with one wild field, also inside what its fields hold."""
    plain = _value(msgspec.inspect.type_info(kind))
    found: list[bytes] = []

    def walk(node: Any) -> None:
        places = range(len(node)) if isinstance(node, list) else list(node)
        for place in places:
            kept = node[place]
            if node is plain and place == 0:
                continue  # The tag.
            for wild in WILD:
                node[place] = wild
                found.append(bytes([WIRE_VERSION]) + msgspec.msgpack.encode(plain))
            node[place] = kept
            if isinstance(kept, list | dict):
                walk(kept)

    walk(plain)
    return found


def test_a_sample_of_every_message_is_one() -> None:
    for kind in get_args(m.AnyMessage):
        data = msgspec.msgpack.encode(_value(msgspec.inspect.type_info(kind)))
        assert type(decode(bytes([WIRE_VERSION]) + data)) is kind


@pytest.mark.parametrize("wild", [math.nan, math.inf, -1.0, 1e300])
def test_no_duration_on_the_wire_is_nan_endless_or_negative(wild: float) -> None:
    kinds = {"wait_s", "grace_s", "deadline_s", "away_s"}
    tried = 0
    for kind in get_args(m.AnyMessage):
        plain = _value(msgspec.inspect.type_info(kind))
        for number, name in enumerate(kind.__struct_fields__, 1):
            if name in kinds and kind is not m.HeadState:
                data = [*plain[:number], wild, *plain[number + 1 :]]
                with pytest.raises(ProtocolError):
                    decode(bytes([WIRE_VERSION]) + msgspec.msgpack.encode(data))
                tried += 1
    assert tried >= 10


def test_wild_fields_end_no_daemon_and_keep_nobody_from_being_served(begin: Begin) -> None:
    begin()
    rt = current.get()
    logs = Path(rt.node.log_dir)
    for address in (rt.head, rt.node.address):
        with Client() as guest, Client() as good:
            peer = guest.reach(f"ipc://{address.ipc}")
            friend = good.reach(f"ipc://{address.ipc}")
            for kind in get_args(m.AnyMessage):
                if kind in MAY_END:
                    continue
                for mutant in _mutants(kind):
                    guest.pump.door.send(peer, mutant)
                guest.pump.run_once(0.0)
                assert good.ask(friend, m.Ping, m.Ack, 10.0)
            # Timers ring still, and in time.
            begun = time.monotonic()
            if address is rt.head:
                good.ask(friend, lambda rid: m.KvGet(rid, "t", b"none", 0.1), m.KvValue, 10.0)
            else:
                good.ask(
                    friend, lambda rid: m.ReadLog(rid, "raylet.err", 0, 10, 0.1), m.LogChunk, 10.0
                )
            assert time.monotonic() - begun >= 0.1
            with pytest.raises(AskError, match="float"):
                good.ask(friend, _wild_wait(address is rt.head), m.Ack, 10.0)
    task = mray.remote(lambda x: x + 1)
    assert mray.get([task.remote(i) for i in range(20)], timeout=30) == list(range(1, 21))
    for name in ("gcs_server.out", "raylet.out"):
        text = (logs / name).read_text(errors="replace")
        assert "a call in the event loop failed" not in text, text[-3000:]
        assert "InvariantError" not in text, text[-3000:]
        # What is refused never comes back with what others say.
        assert "Heartbeat from" not in text, text[-3000:]


def _wild_wait(head: bool) -> Any:
    if head:
        return lambda rid: m.KvGet(rid, "t", b"none", math.nan)
    return lambda rid: m.ReadLog(rid, "raylet.err", 0, 10, math.inf)


def test_a_request_that_breaks_a_bound_is_told_by_its_number() -> None:
    with pytest.raises(ProtocolError, match="float") as caught:
        decode(encode(m.KvGet(7, "n", b"k", -2.0)))
    assert (caught.value.kind, caught.value.rid) == (m.KvGet, 7)
    for data in (b"", b"\x01", b"\x01\xc1", encode(m.CancelTask(b"", 1, 2))):  # type: ignore[arg-type]
        with pytest.raises(ProtocolError) as caught:
            decode(data)
        assert caught.value.kind is None
