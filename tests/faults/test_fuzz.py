"""S8: bytes of every kind against what reads them, for minutes. Prints its seed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import msgspec
import pytest

from mray.rpc.link import Link
from mray.wire.codec import WIRE_VERSION, ProtocolError, decode, encode
from mray.wire.messages import AnyMessage, Message

pytestmark = [pytest.mark.failure, pytest.mark.soak]

SECONDS = float(os.environ.get("PYTEST_FUZZ_S", "150"))


def _damaged(chance: random.Random, data: bytes) -> bytes:
    """The same with bits turned, pieces doubled, cut out, or put in."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(damaged) + 1)
        match chance.randrange(4):
            case 0 if damaged:
                damaged[at % len(damaged)] ^= 1 << chance.randrange(8)
            case 1:
                del damaged[at : at + chance.randrange(8)]
            case 2:
                damaged[at:at] = chance.randbytes(chance.randrange(8))
            case _:
                damaged[at:at] = damaged[at : at + chance.randrange(64)]
    return bytes(damaged)


def _samples(chance: random.Random) -> Iterator[bytes]:
    tags = [kind.__struct_config__.tag for kind in AnyMessage.__args__]
    values = [0, -1, 1, b"", b"x" * 28, "", "name", [], {}, None, 1.5, [b"a"], {"CPU": 10_000}]
    while True:
        fields = [chance.choice(values) for _ in range(chance.randrange(14))]
        yield bytes([WIRE_VERSION]) + msgspec.msgpack.encode([chance.choice(tags), *fields])


def test_no_bytes_make_the_decoder_fail_in_another_way() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    decoded = 0
    until = time.monotonic() + SECONDS
    for sample in _samples(chance):
        for data in (sample, _damaged(chance, sample)):
            try:
                message = decode(data)
            except ProtocolError:
                continue
            assert isinstance(message, Message)
            again = encode(message)
            assert encode(decode(again)) == again
            decoded += 1
        if time.monotonic() > until:
            break
    assert decoded


def test_no_frames_make_a_link_fail_or_give_what_was_not_sent() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        sender, receiver = Link(), Link()
        sent, came, now = [], [], 0.0
        for number in range(50):
            payload = number.to_bytes(4, "little")
            sent.append(payload)
            now += 0.1
            for frame in (sender.send(payload, now), *sender.tick(now)):
                for data in (_damaged(chance, frame), frame):
                    try:
                        received = receiver.receive(data, now)
                    except ValueError:
                        continue
                    came += received.payloads
                    for answer in received.frames:
                        with_luck = chance.random()
                        if with_luck < 0.5:
                            try:
                                sender.receive(answer, now)
                            except ValueError:
                                continue
                sender.check()
                receiver.check()
