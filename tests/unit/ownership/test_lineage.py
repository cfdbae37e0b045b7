"""What is kept of finished tasks, step by step. tests/model has the random walks."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import pytest

from mray.ids import object_id
from mray.machine import InvariantError
from mray.ownership.entry import Entry
from mray.ownership.kinds import LINEAGE, kinds_of
from mray.ownership.lineage import EVICTED, RETRIES_DISABLED
from mray.ownership.references import References
from mray.wire.messages import Located

HOME = SimpleNamespace(posts=deque(), resolved=deque(), asleep=False)


@pytest.fixture
def references() -> References:
    return References(1)


def task_id(number: int) -> bytes:
    return bytes([number]) + bytes(23)


def result(references: References, number: int, index: int = 1, local: int = 1) -> Entry:
    """A return in a store."""
    made = object_id(task_id(number), index)  # type: ignore[arg-type]
    entry = Entry(made, None, HOME, local)  # type: ignore[arg-type]
    entry.located = Located(b"n", 1000)
    entry.ready = True
    references.entries[made] = entry
    return entry


def finish(
    references: References, number: int, args: list[Entry], returns: list[Entry], size: int = 10
) -> None:
    references.settle_all(references.lineage.keep(task_id(number), "task", size, args, returns))


def test_an_argument_that_can_be_made_again_loses_its_value_and_keeps_its_task(
    references: References,
) -> None:
    a, b = result(references, 1), result(references, 2)
    finish(references, 1, [], [a])
    finish(references, 2, [a], [b])
    references.drop_local(a)
    assert a.freed
    assert [effect.entry for effect in references.take()] == [a]  # type: ignore[union-attr]
    assert list(references.lineage.records) == [task_id(1), task_id(2)]
    assert references.lineage.can_rebuild(a)
    references.drop_local(b)
    assert not references.lineage.records
    assert references.lineage.total_bytes == 0
    references.check()


def test_a_put_argument_keeps_its_value(references: References) -> None:
    put, b = result(references, 1, index=0), result(references, 2)
    finish(references, 2, [put], [b])
    references.drop_local(put)
    assert not put.freed
    assert kinds_of(put) == {LINEAGE: 1}
    references.drop_local(b)
    assert put.freed
    references.check()


def test_an_argument_that_may_not_run_again_keeps_its_value(references: References) -> None:
    a, b = result(references, 1), result(references, 2)
    references.lineage.forgo(task_id(1), RETRIES_DISABLED, [a])
    finish(references, 2, [a], [b])
    references.drop_local(a)
    assert not a.freed
    assert not references.lineage.can_rebuild(a)
    references.drop_local(b)
    assert a.freed
    assert not references.lineage.records


def test_a_borrowed_argument_is_kept(references: References) -> None:
    borrowed, b = result(references, 1), result(references, 2)
    borrowed.owner = SimpleNamespace(process_id=b"other")  # type: ignore[assignment]
    finish(references, 2, [borrowed], [b])
    references.drop_local(borrowed)
    assert not borrowed.freed
    references.drop_local(b)
    assert borrowed.freed


def test_an_actor_is_not_kept_by_its_results(references: References) -> None:
    handle, b = result(references, 1, index=0), result(references, 2)
    handle.is_actor, handle.located = True, None
    finish(references, 2, [handle], [b])
    references.drop_local(handle)
    assert handle.freed


def test_a_record_lives_as_long_as_one_of_its_returns(references: References) -> None:
    first, second = result(references, 1), result(references, 1, index=2)
    finish(references, 1, [], [first, second])
    references.drop_local(first)
    assert references.lineage.records
    references.drop_local(second)
    assert not references.lineage.records


def test_a_long_chain_is_let_go_without_recursion(references: References) -> None:
    last = None
    for number in range(20_000):
        made = object_id(number.to_bytes(24, "little"), 1)  # type: ignore[arg-type]
        entry = Entry(made, None, HOME, 1)  # type: ignore[arg-type]
        entry.located, entry.ready = Located(b"n", 1000), True
        references.entries[made] = entry
        args = [last] if last is not None else []
        references.lineage.keep(number.to_bytes(24, "little"), "task", 10, args, [entry])
        if last is not None:
            references.drop_local(last)
        last = entry
    assert len(references.lineage.records) == 20_000
    assert last is not None
    references.drop_local(last)
    assert not references.lineage.records


def test_beyond_the_cap_the_older_half_goes_and_says_so(references: References) -> None:
    lineage = references.lineage
    lineage.max_bytes = 100
    returns = [result(references, number) for number in range(1, 12)]
    for number, entry in enumerate(returns, 1):
        finish(references, number, [], [entry])
    assert lineage.total_bytes == 50
    assert lineage.evicted == 6
    assert [record.why for record in lineage.records.values()] == [EVICTED] * 6 + [""] * 5
    references.check()


def test_a_dropped_task_lets_go_of_what_only_it_needed(references: References) -> None:
    lineage = references.lineage
    lineage.max_bytes = 30
    put = result(references, 9, index=0)
    b = result(references, 1)
    finish(references, 1, [put], [b], size=20)
    references.drop_local(put)
    assert not put.freed
    finish(references, 2, [], [result(references, 2)], size=20)
    assert put.freed
    assert lineage.records[task_id(1)].task is None


def test_a_value_of_the_evicted_that_still_lives_is_kept_for_those_who_need_it(
    references: References,
) -> None:
    a, b = result(references, 1), result(references, 2)
    finish(references, 1, [], [a], size=1000)
    finish(references, 2, [a], [b])
    references.lineage.max_bytes = 500
    finish(references, 3, [], [result(references, 3)])
    assert references.lineage.records[task_id(1)].why == EVICTED
    references.drop_local(a)
    assert not a.freed


def test_a_second_end_of_a_task_replaces_the_first(references: References) -> None:
    put, a, other = (
        result(references, 9, index=0), result(references, 1), result(references, 1, index=2),
    )  # fmt: skip
    finish(references, 1, [put], [a, other])
    finish(references, 1, [put], [a])
    assert put.pins is not None
    assert put.pins.lineage == 1
    assert references.lineage.total_bytes == 10
    references.drop_local(a)
    assert references.lineage.records, "the other return was not made anew, and is there"
    references.drop_local(other)
    assert not references.lineage.records
    assert put.pins is None


def test_a_miscount_is_noticed(references: References) -> None:
    put, a = result(references, 9, index=0), result(references, 1)
    finish(references, 1, [put], [a])
    assert put.pins is not None
    put.pins.lineage += 1
    with pytest.raises(InvariantError, match="miscounted"):
        references.check()
