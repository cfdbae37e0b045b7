"""A row of objects is read in groups: few questions, bounded memory, each error its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from mray.exceptions import ObjectStoreFullError
from mray.store.ahead import GROUP_BYTES_MAX, GROUP_MAX, ReadAhead
from mray.units import MIB


class Store:
    """Notes what it is asked for. Holds what is in ``objects``."""

    def __init__(self, *object_ids: bytes) -> None:
        self.objects = set(object_ids)
        self.questions: list[list[bytes]] = []
        #: More than so many at once are refused.
        self.together_max = 10**6

    def get(self, object_id: bytes) -> memoryview | None:
        return self.get_many((object_id,))[0]

    def get_many(self, object_ids: Sequence[bytes]) -> list[memoryview | None]:
        self.questions.append(list(object_ids))
        if len(object_ids) > self.together_max:
            raise ObjectStoreFullError("full")
        return [memoryview(one) if one in self.objects else None for one in object_ids]


def read(store: Store, row: list[tuple[bytes, int]]) -> list[bytes | None]:
    ahead = ReadAhead(cast(Any, store), row)
    views = [ahead.view(object_id) for object_id, _ in row]
    return [None if view is None else bytes(view) for view in views]


IDS = [b"%d" % number for number in range(200)]


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([1], [1]),
        ([1, 1, 1], [3]),
        ([8 * MIB] * 9, [4, 4, 1]),
        ([GROUP_BYTES_MAX, 1, 1], [1, 2]),
        ([100 * MIB, 100 * MIB], [1, 1]),
        ([1, 100 * MIB, 1, 1], [1, 1, 2]),
        ([1] * (2 * GROUP_MAX + 1), [GROUP_MAX, GROUP_MAX, 1]),
    ],
)
def test_objects_are_asked_for_in_groups_in_order(sizes: list[int], groups: list[int]) -> None:
    store = Store(*IDS)
    ids = IDS[: len(sizes)]
    assert read(store, list(zip(ids, sizes, strict=True))) == ids
    assert [len(question) for question in store.questions] == groups
    assert [one for question in store.questions for one in question] == ids


def test_an_object_that_comes_twice_is_asked_for_once() -> None:
    store = Store(*IDS)
    assert read(store, [(b"1", 5), (b"2", 5), (b"1", 5), (b"2", 5)]) == [b"1", b"2", b"1", b"2"]
    assert store.questions == [[b"1", b"2"]]


def test_an_object_of_an_earlier_group_is_read_again() -> None:
    store = Store(*IDS)
    row = [(b"1", 8), (b"2", GROUP_BYTES_MAX), (b"1", 8), (b"3", 8)]
    assert read(store, row) == [b"1", b"2", b"1", b"3"]


def test_what_is_not_there_is_told_without_asking_again() -> None:
    store = Store(b"1", b"3")
    assert read(store, [(b"1", 5), (b"2", 5), (b"3", 5)]) == [b"1", None, b"3"]
    assert len(store.questions) == 1


def test_what_has_no_room_together_is_read_one_by_one() -> None:
    store = Store(*IDS)
    store.together_max = 1
    assert read(store, [(b"1", 5), (b"2", 5), (b"3", 5)]) == [b"1", b"2", b"3"]
    assert store.questions == [[b"1", b"2", b"3"], [b"1"], [b"2"], [b"3"]]


def test_the_row_is_not_looked_at_before_it_is_needed() -> None:
    def row() -> Any:
        raise AssertionError("looked at")
        yield

    ReadAhead(cast(Any, Store()), row())
