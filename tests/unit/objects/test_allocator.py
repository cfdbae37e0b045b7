"""Allocator: lowest fit, warm and cold pages, doubtful ranges, cooling, fragmentation."""

from __future__ import annotations

import pytest

from mray.node.objects.allocator import ADDRESS_MULTIPLE, Allocator

PAGE = 4096


def pages(capacity: int, multiple: int = 4) -> Allocator:
    return Allocator(capacity * PAGE, capacity * multiple * PAGE, PAGE)


def take(allocator: Allocator, count: int) -> int:
    """Allocate whole pages and settle; returns the page where they begin."""
    place = allocator.allocate(count * PAGE)
    assert place is not None
    allocator.settle(place[0])
    allocator.check()
    return place[0] // PAGE


def test_a_fresh_arena_is_cold() -> None:
    allocator = pages(10)
    assert allocator.allocate(3 * PAGE) == (0, [(0, 3 * PAGE)])
    assert allocator.cold_parts(0) == [(0, 3 * PAGE)]


def test_sizes_are_rounded_to_pages_and_an_empty_object_takes_one() -> None:
    allocator = pages(10)
    assert allocator.allocate(0) == (0, [(0, PAGE)])
    assert allocator.allocate(PAGE + 1) == (PAGE, [(PAGE, 2 * PAGE)])
    assert allocator.used_bytes == 3 * PAGE


def test_freed_pages_are_reused_warm() -> None:
    allocator = pages(10)
    first = take(allocator, 4)
    take(allocator, 1)
    allocator.free(first * PAGE)
    assert allocator.warm_bytes == 4 * PAGE
    assert allocator.allocate(3 * PAGE) == (0, [])
    assert allocator.warm_bytes == PAGE


def test_the_lowest_hole_that_fits_is_taken() -> None:
    allocator = pages(20)
    starts = [take(allocator, count) for count in (2, 1, 5, 1, 3, 1)]
    for start in (starts[0], starts[2], starts[4]):
        allocator.free(start * PAGE)
    assert take(allocator, 3) == 3
    assert take(allocator, 2) == 0
    assert take(allocator, 2) == 6


def test_only_the_cold_part_of_a_range_is_claimed() -> None:
    allocator = pages(10)
    allocator.free(take(allocator, 2) * PAGE)
    assert allocator.allocate(5 * PAGE) == (0, [(2 * PAGE, 3 * PAGE)])


def test_what_does_not_fit_beside_the_used_bytes_is_declined() -> None:
    allocator = pages(10)
    take(allocator, 8)
    assert allocator.allocate(3 * PAGE) is None
    assert allocator.allocate(2 * PAGE) is not None


def test_free_of_no_range_in_use_is_a_key_error() -> None:
    allocator = pages(10)
    with pytest.raises(KeyError):
        allocator.free(0)
    with pytest.raises(KeyError):
        allocator.settle(PAGE)


def test_a_range_nobody_settled_is_punched_before_it_is_free() -> None:
    allocator = pages(10)
    take(allocator, 2)
    allocator.allocate(8 * PAGE)
    allocator.free(2 * PAGE)
    assert allocator.used_bytes == 10 * PAGE
    assert allocator.allocate(PAGE) is None
    assert allocator.cool(0, 5 * PAGE) == [(2 * PAGE, 5 * PAGE)]
    allocator.check()
    assert allocator.doubtful_bytes == 3 * PAGE
    assert allocator.cool(0, 5 * PAGE) == [(7 * PAGE, 3 * PAGE)]
    assert allocator.used_bytes == 2 * PAGE
    assert allocator.warm_bytes == 0
    allocator.check()


def test_the_warm_part_of_an_unsettled_range_stays_warm() -> None:
    allocator = pages(10)
    allocator.free(take(allocator, 2) * PAGE)
    allocator.allocate(4 * PAGE)
    allocator.free(0)
    assert allocator.warm_bytes == 2 * PAGE
    assert allocator.cool(2 * PAGE, 100 * PAGE) == [(2 * PAGE, 2 * PAGE)]
    allocator.check()


def test_cooling_takes_the_highest_addresses_first() -> None:
    allocator = pages(20)
    starts = [take(allocator, 2) for _ in range(4)]
    for start in (starts[0], starts[3]):
        allocator.free(start * PAGE)
    assert allocator.cool(3 * PAGE, 100 * PAGE) == [(7 * PAGE, PAGE)]
    assert allocator.cool(0, 2 * PAGE) == [(6 * PAGE, PAGE), (PAGE, PAGE)]
    assert allocator.warm_bytes == PAGE
    allocator.check()


def test_cooling_to_a_mark_that_is_no_whole_page_keeps_a_page_more() -> None:
    allocator = pages(10)
    allocator.free(take(allocator, 4) * PAGE)
    assert allocator.cool(PAGE + 1, 100 * PAGE) == [(2 * PAGE, 2 * PAGE)]


def test_pages_never_exceed_the_capacity_once_the_excess_is_cooled() -> None:
    allocator = pages(10)
    low = take(allocator, 4)
    take(allocator, 4)
    allocator.free(low * PAGE)
    # Too long for the warm hole: six cold pages while four warm ones lie idle.
    assert allocator.allocate(6 * PAGE) == (8 * PAGE, [(8 * PAGE, 6 * PAGE)])
    assert allocator.excess_bytes == 4 * PAGE
    allocator.cool(allocator.warm_bytes - allocator.excess_bytes, 100 * PAGE)
    assert allocator.excess_bytes == 0
    assert allocator.used_bytes + allocator.warm_bytes == 10 * PAGE


def test_every_other_object_freed_leaves_room_for_one_of_half_the_capacity() -> None:
    allocator = pages(1000, ADDRESS_MULTIPLE)
    starts = [take(allocator, 1) for _ in range(1000)]
    for start in starts[::2]:
        allocator.free(start * PAGE)
    assert take(allocator, 500) == 1000


def test_an_adversary_cannot_fragment_the_store_into_refusing() -> None:
    """Sizes double; of each two neighbours one is freed, so that no hole ever fits the next."""
    capacity = 1 << 13
    allocator = Allocator(capacity * PAGE, capacity * ADDRESS_MULTIPLE * PAGE, PAGE)
    live: list[tuple[int, int]] = []
    size = 1
    while size <= capacity // 2:
        while allocator.used_bytes + size * PAGE <= allocator.capacity_bytes:
            place = allocator.allocate(size * PAGE)
            assert place is not None, f"refused {size} pages"
            allocator.settle(place[0])
            live.append((place[0], size))
        kept: dict[int, tuple[int, int]] = {}
        for offset, length in live:
            if kept.setdefault(offset // (2 * size * PAGE), (offset, length)) != (offset, length):
                allocator.free(offset)
        live = list(kept.values())
        size *= 2
    allocator.check()


@pytest.mark.parametrize(
    ("capacity", "virtual", "page"), [(0, 100, 10), (15, 100, 10), (20, 10, 10), (20, 45, 10)]
)
def test_sizes_that_make_no_arena_are_refused(capacity: int, virtual: int, page: int) -> None:
    with pytest.raises(ValueError, match=r"arena|whole pages"):
        Allocator(capacity, virtual, page)
