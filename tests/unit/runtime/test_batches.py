"""Calls and replies are cut into messages that a peer takes."""

from __future__ import annotations

import pytest

from mray.runtime import batches
from mray.runtime.batches import cut_calls, cut_items, cut_parts, cut_replies, too_big
from mray.wire.codec import MESSAGE_BYTES_MAX, encode
from mray.wire.messages import (
    Address,
    Argument,
    ItemsYielded,
    PushTasks,
    RefInfo,
    Returned,
    StreamPart,
    TaskReplies,
    TaskReply,
    TaskSpec,
)

MIB = 1024 * 1024
#: Never copied: a hundred of it are one mebibyte.
VALUE = bytes(MIB)


def call(number: int, args: bytes = b"", *values: bytes) -> TaskSpec:
    deps = [Argument(RefInfo(b"o" * 28, None), value) for value in values]
    return TaskSpec(number.to_bytes(24, "big"), 1, number, args, deps)


def test_what_fits_into_one_message_is_one() -> None:
    calls = [call(number, b"x" * 100, b"y" * 100) for number in range(1000)]
    assert list(cut_calls(calls)) == [calls]
    assert list(cut_calls(calls[:1])) == [calls[:1]]


@pytest.mark.parametrize("values", [0, 3], ids=["arguments", "values of references"])
def test_many_big_calls_leave_in_order_in_messages_that_are_taken(values: int) -> None:
    calls = [call(number, VALUE, *[VALUE] * values) for number in range(100)]
    parts = cut_calls(calls)
    assert [spec for part in parts for spec in part] == calls
    assert len(parts) > 1
    owner = Address(b"p" * 17, b"n" * 16)
    for part in parts:
        assert len(encode(PushTasks(owner, [], part))) < batches.BATCH_BYTES + MIB


def test_a_call_bigger_than_a_batch_is_alone() -> None:
    calls = [call(1), call(2, b"", *[VALUE] * 40), call(3)]
    assert [len(part) for part in cut_calls(calls)] == [1, 1, 1]


def test_a_call_that_no_peer_would_take_is_known() -> None:
    assert not too_big(call(1, b"", *[VALUE] * 500))
    assert "a message may have 511 MiB" in too_big(call(1, b"", *[VALUE] * 512))
    assert batches.CALL_BYTES_MAX < MESSAGE_BYTES_MAX


def test_replies_are_cut_too() -> None:
    few = [TaskReply(b"t", 0, [Returned(b"v")])] * 40
    assert list(cut_replies(few)) == [few]
    many = [TaskReply(bytes([n]), 0, [Returned(VALUE), Returned(VALUE)]) for n in range(100)]
    parts = cut_replies(many)
    assert [reply for part in parts for reply in part] == many
    assert all(len(encode(TaskReplies(part, []))) < batches.BATCH_BYTES + 2 * MIB for part in parts)


def test_few_replies_are_cut_where_each_of_them_is_big() -> None:
    big = [TaskReply(bytes([n]), 0, [Returned(VALUE)] * 20) for n in range(30)]
    parts = cut_replies(big)
    assert [reply for part in parts for reply in part] == big
    assert all(len(encode(TaskReplies(part, []))) < batches.BATCH_BYTES for part in parts)


def test_items_of_many_generators_are_cut_as_well_as_those_of_one() -> None:
    items = [Returned(VALUE)] * 100
    assert [len(part) for part in cut_items(items)] == [31, 31, 31, 7]
    failed = [StreamPart(bytes([n]), 0, 1, items[:20], Returned(VALUE)) for n in range(30)]
    parts = cut_parts(failed)
    assert [part for together in parts for part in together] == failed
    assert all(len(encode(ItemsYielded(part))) < batches.BATCH_BYTES for part in parts)
    assert list(cut_parts(failed[:1])) == [failed[:1]]
