"""Items leave in order, many in a message, and before the reply; owners hold some of them up."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from mray.runtime import batches
from mray.runtime.calls import OK, Done, Work
from mray.runtime.generators import GeneratorsPart, Slot
from mray.serialization.envelope import NONE
from mray.serialization.pickler import deserialize
from mray.tasks.streams import DYNAMIC, STREAMING
from mray.wire.messages import (
    Address,
    DeathCause,
    ItemsConsumed,
    ItemsYielded,
    ProcessDied,
    RefGroup,
    Returned,
    StreamPart,
    TaskSpec,
    TaskTemplate,
)

OWNER = Address(b"o" * 28, b"n" * 28)
TASK = b"t" * 24
GROUP = RefGroup(OWNER, [b"x" * 28], 7)


class FakeResults:
    """Packs the value ``n`` as the bytes of its number; a list as one with references."""

    def item(self, done: Done, template: TaskTemplate, index: int, value: Any) -> Any:
        refs = [SimpleNamespace(_entry="entry")] if isinstance(value, list) else []
        return b"%d" % index, None, refs

    def packed_error(self, done: Done, template: TaskTemplate, error: BaseException) -> Any:
        return repr(error).encode(), []


class Lender:
    """A process that runs generators, without a process."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.parcels: list[Slot] = []
        self.handlers: dict[type, Any] = {}
        posts: deque[Any] = deque()
        self.rt: Any = SimpleNamespace(
            pump=SimpleNamespace(on=self.handlers.__setitem__),
            on_death=[],
            turn=None,
            mailbox=SimpleNamespace(posts=posts, asleep=False),
            ledger=SimpleNamespace(
                handover=SimpleNamespace(pack=lambda slot, *rest: self.parcels.append(slot))
            ),
            tell=lambda owner, message: self.sent.append(message),
        )
        self.part = GeneratorsPart(
            self.rt,
            FakeResults(),  # type: ignore[arg-type]
            lambda done: self.sent.append(("reply", done.returns)),
        )

    def begin(self, num_returns: int = STREAMING, limit: int = 0, **spec: Any) -> tuple[Done, Work]:
        template = TaskTemplate(1, b"", "g", num_returns, b"job1", {}, backpressure=limit)
        task = TaskSpec(TASK, 1, 0, **spec)
        return Done(OWNER, task, OK), Work(OWNER, template, task)

    def turn(self) -> list[Any]:
        """A round of the loop; what it sent."""
        posts = self.rt.mailbox.posts
        while posts:
            posts.popleft()()
        replies, self.sent = self.sent, []
        self.part.flush()
        sent, self.sent = self.sent + replies, []
        return sent


@pytest.fixture
def lender() -> Lender:
    return Lender()


def part(first: int, *items: int, error: Returned | None = None, attempt: int = 0) -> ItemsYielded:
    """Item n is packed as the object n + 1."""
    returned = [Returned(b"%d" % (item + 1)) for item in items]
    return ItemsYielded([StreamPart(TASK, attempt, first, returned, error)])


def test_all_items_of_a_round_leave_in_one_message_before_the_reply(lender: Lender) -> None:
    done, work = lender.begin()
    lender.part.run(done, work, iter([1, 2, 3]))
    lender.part.finished(done)
    assert len(lender.rt.mailbox.posts) == 1
    assert lender.turn() == [part(1, 1, 2, 3), ("reply", [(NONE, None)])]
    assert lender.part.flows == {}


def test_items_are_numbered_over_messages(lender: Lender) -> None:
    done, work = lender.begin()

    def three() -> Any:
        yield 1
        assert lender.turn() == [part(1, 1)]
        yield 2
        yield 3

    lender.part.run(done, work, three())
    assert lender.turn() == [part(2, 2, 3)]


def test_more_than_a_message_carries_leaves_in_several_in_order(
    lender: Lender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_BYTES", 4_000)
    done, work = lender.begin()
    lender.part.run(done, work, iter(range(1, 101)))
    sent = lender.turn()
    assert len(sent) == 3
    parts = [part for message in sent for part in message.parts]
    assert [one.first for one in parts] == [1, 40, 79]
    items = [item for one in parts for item in one.items]
    assert items == [Returned(b"%d" % (number + 1)) for number in range(1, 101)]


def test_an_item_with_references_holds_up_what_follows(lender: Lender) -> None:
    done, work = lender.begin()
    lender.part.run(done, work, iter([1, ["ref"], 3]))
    lender.part.finished(done)
    assert lender.turn() == [part(1, 1)]
    (slot,) = lender.parcels
    lender.part.delivered(SimpleNamespace(cargo=slot, groups=[[GROUP]]))  # type: ignore[arg-type]
    items, reply = lender.turn()
    held = [Returned(b"3", None, [GROUP]), Returned(b"4")]
    assert items == ItemsYielded([StreamPart(TASK, 0, 2, held)])
    assert reply == ("reply", [(NONE, None)])


def test_an_error_follows_the_items(lender: Lender) -> None:
    done, work = lender.begin()
    lender.part.run(done, work, iter([1]))
    lender.part.fail(done, work, ValueError("late"))
    lender.part.finished(done)
    error = Returned(b"ValueError('late')")
    assert lender.turn() == [part(1, 1, error=error), ("reply", [(NONE, None)])]


def test_a_repeated_run_sends_what_the_owner_lacks(lender: Lender) -> None:
    done, work = lender.begin(attempt=2, skip=2)
    lender.part.run(done, work, iter([1, 2, 3]))
    assert lender.turn() == [part(3, 3, attempt=2)]


def test_items_that_nobody_wants_are_not_sent(lender: Lender) -> None:
    done, work = lender.begin()

    def three() -> Any:
        yield 1
        lender.handlers[ItemsConsumed](OWNER.process_id, ItemsConsumed(TASK, -1))
        yield 2
        yield 3

    lender.part.run(done, work, three())
    lender.part.finished(done)
    assert lender.turn() == [part(1, 1), ("reply", [(NONE, None)])]


def test_only_the_owner_is_heard(lender: Lender) -> None:
    done, work = lender.begin()

    def two() -> Any:
        yield 1
        lender.handlers[ItemsConsumed](b"stranger", ItemsConsumed(TASK, -1))
        yield 2

    lender.part.run(done, work, two())
    assert lender.turn() == [part(1, 1, 2)]


def test_a_generator_is_closed_when_its_caller_is_dead(lender: Lender) -> None:
    done, work = lender.begin()
    ended = []

    def endless() -> Any:
        try:
            while True:
                for hear in lender.rt.on_death:
                    hear(ProcessDied(OWNER.process_id, "driver", b"job1", DeathCause("exit")))
                yield 1
        finally:
            ended.append(True)

    lender.part.run(done, work, endless())
    assert ended == [True]


def test_dynamic_returns_are_the_references_of_all_items(lender: Lender) -> None:
    done, work = lender.begin(DYNAMIC)
    lender.part.run(done, work, iter([1, 2]))
    lender.part.finished(done)
    items, (_, [(data, located)]) = lender.turn()
    assert items == part(1, 1, 2)
    assert located is None
    # Read where it belongs: there references are made of ids.
    assert data.count(TASK + (2).to_bytes(4, "little")) == 1
    assert data.count(TASK + (3).to_bytes(4, "little")) == 1
    assert TASK + (4).to_bytes(4, "little") not in data


def test_what_is_no_generator_is_refused(lender: Lender) -> None:
    done, work = lender.begin()
    with pytest.raises(TypeError, match="g was to return a generator, it returned one of type int"):
        lender.part.run(done, work, 5)
    assert done.flow is None
    assert deserialize(NONE) is None
