"""Calls, replies and items that leave together, cut into messages that a peer takes.

A message above ``MESSAGE_BYTES_MAX`` is refused unread, and who sent it hears nothing of that. Each
call may carry 100 KiB and more: thousands that waited for an actor's start, in one message, would
never arrive. So a batch is cut long before that; a call that is too big alone fails, and results.py
sees to it that no reply is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mray.units import format_bytes
from mray.wire.codec import MESSAGE_BYTES_MAX
from mray.wire.messages import Returned, StreamPart, TaskReply, TaskSpec

T = TypeVar("T")

#: About what one message carries: enough that its own cost is nothing, little enough that both ends
#: can hold it twice.
BATCH_BYTES = 32 * 1024 * 1024
#: The most that one call may carry, with room for what surrounds it.
CALL_BYTES_MAX = MESSAGE_BYTES_MAX - 1024 * 1024
#: The most that several values in one reply may take: the rest goes to the store.
REPLY_BYTES_MAX = 10 * 1024 * 1024
#: The most that exceptions in one reply may take: what describes them stands in for bigger ones.
ERROR_BYTES_MAX = CALL_BYTES_MAX // 2
#: A call or reply without its values, and an argument.
_CALL_BYTES = 100
_ARGUMENT_BYTES = 100
#: So many items are no message too big: each is small enough to travel.
_FEW_ITEMS = 32


def spec_bytes(spec: TaskSpec) -> int:
    """About what a call takes on the wire."""
    size = _CALL_BYTES + len(spec.args)
    for argument in spec.deps:
        size += _ARGUMENT_BYTES + (len(argument.data) if argument.data is not None else 0)
    return size


def reply_bytes(reply: TaskReply) -> int:
    """About what a reply takes on the wire, without the references in it."""
    return _CALL_BYTES + sum(map(returned_bytes, reply.returns))


def returned_bytes(returned: Returned) -> int:
    """About what a value takes on the wire, without the references in it."""
    return _CALL_BYTES + (len(returned.data) if returned.data is not None else 0)


def part_bytes(part: StreamPart) -> int:
    """About what items of a generator take on the wire, and the error behind them."""
    size = _CALL_BYTES + sum(map(returned_bytes, part.items))
    return size if part.error is None else size + returned_bytes(part.error)


def cut_calls(specs: list[TaskSpec]) -> Sequence[list[TaskSpec]]:
    """The same calls in the same order, in batches for one message each."""
    # On the way of every call: without a function call for each.
    size = _CALL_BYTES * len(specs) + sum([len(spec.args) for spec in specs])
    if size <= BATCH_BYTES and not sum([len(spec.deps) for spec in specs]):
        return (specs,)
    return _cut(specs, spec_bytes)


def cut_replies(replies: list[TaskReply]) -> Sequence[list[TaskReply]]:
    """The same for replies."""
    if len(replies) == 1:
        return (replies,)
    # On the way of every call, as above.
    values = [returned.data for reply in replies for returned in reply.returns]
    size = _CALL_BYTES * (len(replies) + len(values)) + sum(map(len, filter(None, values)))
    if size <= BATCH_BYTES:
        return (replies,)
    return _cut(replies, reply_bytes)


def cut_items(items: list[Returned]) -> Sequence[list[Returned]]:
    """The same for what a generator has yielded."""
    return (items,) if len(items) <= _FEW_ITEMS else _cut(items, returned_bytes)


def cut_parts(parts: list[StreamPart]) -> Sequence[list[StreamPart]]:
    """The same for what several generators have yielded, whose items are cut already."""
    return (parts,) if len(parts) == 1 else _cut(parts, part_bytes)


def _cut(things: list[T], size_of: Callable[[T], int]) -> list[list[T]]:
    """One that is bigger than a batch is alone."""
    batches: list[list[T]] = [[]]
    left = BATCH_BYTES
    for thing in things:
        size = size_of(thing)
        if size > left and batches[-1]:
            batches.append([])
            left = BATCH_BYTES
        batches[-1].append(thing)
        left -= size
    return batches


def too_big(spec: TaskSpec) -> str:
    """Why a call cannot be sent at all; "" if it can."""
    size = spec_bytes(spec)
    if size <= CALL_BYTES_MAX:
        return ""
    return (
        f"the arguments are {format_bytes(size)} together, and a message may have "
        f"{format_bytes(CALL_BYTES_MAX)}: small values of references travel with the call. Pass a "
        "list of the references, and get() them in the task, or put() the values as one object"
    )
