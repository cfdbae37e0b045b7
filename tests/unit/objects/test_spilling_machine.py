"""What goes to disk, what comes back, and what owners are asked, step by step."""

from __future__ import annotations

import pytest

from mray.node.objects.effects import (
    AnswerPins,
    AskPlaces,
    Created,
    DeleteSpill,
    PunchSpill,
    ReadSpill,
    Tell,
    TellLost,
    WriteSpill,
)
from mray.node.objects.files import DiskFailure, Files
from mray.units import MIB
from tests.unit.objects.spill_rig import ME, PAGE, Rig


def test_nothing_is_written_below_the_threshold() -> None:
    rig = Rig(threshold=0.8)
    assert rig.make(b"a", 8)
    assert rig.take(WriteSpill) == []
    assert rig.make(b"b", 1)
    assert len(rig.take(WriteSpill)) == 1


def test_the_longest_unused_goes_first() -> None:
    rig = Rig()
    for name in (b"a", b"b", b"c"):
        rig.make(name, 3)
    rig.pin(b"a")
    rig.unpin(b"a")
    rig.create(b"d", 2)
    (write,) = rig.take(WriteSpill)
    rig.written(write)
    assert [rig.state(name) for name in (b"a", b"b", b"c")] == ["sealed", "spilled", "sealed"]


@pytest.mark.parametrize(
    ("pages", "rules", "files"),
    [
        ([1] * 16, {}, [16]),
        ([1] * 16, {"fused_max": 2}, [2, 2, 2]),
        ([1] * 16, {"fused_max": 2, "workers": 2}, [2]),
        ([1] * 16, {"file_bytes_max": 3 * PAGE}, [3, 3, 3]),
        ([1] * 16, {"bytes_max": 6 * PAGE}, [6]),
        ([2 * MIB // PAGE] * 2, {"pages": 8 * MIB // PAGE}, [1, 1]),
    ],
)
def test_small_objects_share_files_of_a_bounded_size(
    pages: list[int], rules: dict[str, int], files: list[int]
) -> None:
    rig = Rig(**({"pages": 32} | rules))
    for number, size in enumerate(pages):
        assert rig.make(b"%d" % number, size)
    rig.create(b"big", rig.store.capacity_bytes // PAGE)
    assert [len(write.parts) for write in rig.take(WriteSpill)] == files


def test_a_copy_pinned_while_it_is_written_stays_and_then_makes_room_for_nothing() -> None:
    rig = Rig()
    rig.make(b"a", 8)
    rig.create(b"b", 8)
    (write,) = rig.take(WriteSpill)
    assert rig.pin(b"a") is not None
    rig.written(write)
    assert rig.state(b"a") == "sealed"
    rig.unpin(b"a")
    assert rig.state(b"a") == "spilled"
    assert rig.take(WriteSpill) == []


def test_a_copy_freed_while_it_is_written_leaves_no_file() -> None:
    rig = Rig()
    rig.make(b"a", 8)
    rig.create(b"b", 8)
    (write,) = rig.take(WriteSpill)
    rig.free(b"a")
    assert rig.state(b"a") == "gone"
    rig.written(write)
    assert rig.take(DeleteSpill) == [DeleteSpill(0, write.file)]


def test_a_shared_file_is_punched_and_goes_with_its_last_object() -> None:
    rig = Rig(pages=32, batch_bytes=4 * PAGE)
    for name in (b"a", b"b", b"c", b"d"):
        rig.make(name, 1)
    rig.create(b"big", 32)
    (write,) = rig.take(WriteSpill)
    rig.written(write)
    rig.free(b"b", b"a", b"d")
    assert [effect.at for effect in rig.take(PunchSpill)] == [PAGE, 0, 3 * PAGE]
    assert rig.take(DeleteSpill) == []
    rig.free(b"c")
    assert rig.take(DeleteSpill) == [DeleteSpill(0, write.file)]


def test_a_failed_write_keeps_the_object_and_is_told_once_a_change() -> None:
    rig = Rig()
    rig.make(b"a", 8)
    rig.create(b"b", 8)
    told = []
    for full in (False, False, True, True):
        (write,) = rig.take(WriteSpill)
        rig.failed(write, full=full)
        assert rig.state(b"a") == "sealed"
        told.append(len(rig.take(Tell)))
        rig.wait(1.0)
        if rig.refused():
            rig.create(b"b", 8)
    assert told == [1, 0, 1, 0]
    (write,) = rig.take(WriteSpill)
    rig.written(write)
    (news,) = rig.take(Tell)
    assert not news.is_warning


def test_a_write_that_was_under_way_when_another_failed_does_not_make_the_disk_good_again() -> None:
    files = Files(("/d",))
    failure = DiskFailure(True, "it is full")
    assert len(files.failed(0, failure, retry_at=101.0)) == 1
    assert files.worked(0, now=100.5) == []
    assert files.full() == ("it is full",)
    assert files.choose(100.9) is None
    assert files.choose(101.0) == 0
    [told] = files.worked(0, now=101.2)
    assert told == Tell(False, "objects are spilled to /d again")
    assert files.full() == ()


def test_a_disk_that_fails_is_left_alone_for_a_second_and_others_are_used() -> None:
    rig = Rig(disks=("d0", "d1"), workers=2, fused_max=1)
    rig.make(b"a", 4)
    rig.make(b"b", 4)
    rig.create(b"c", 8)
    (write,) = rig.take(WriteSpill)
    rig.failed(write)
    (again,) = rig.take(WriteSpill)
    assert (write.disk, again.disk) == (0, 1)
    rig.written(again)
    (third,) = rig.take(WriteSpill)
    assert third.disk == 1


def test_a_place_is_taken_only_after_its_owner_said_so() -> None:
    rig = Rig()
    rig.make(b"a", 4, writer=ME)
    rig.make(b"b", 4, writer=ME)
    rig.create(b"c", 8)
    (question,) = rig.take(AskPlaces)
    assert (question.owner, question.object_ids) == (ME, (b"a", b"b"))
    assert rig.take(WriteSpill) == []
    rig.give_up(question, b"b")
    (write,) = rig.take(WriteSpill)
    assert [offset for offset, _, _ in write.parts] == [rig.copy(b"b").offset]


def test_an_owner_that_refuses_is_asked_again_ever_later() -> None:
    rig = Rig(overflow_pages=0)
    rig.make(b"a", 8, writer=ME)
    pauses, last = [], rig.now
    for _ in range(400):
        if not rig.store._admission.entries:
            rig.create(b"b", 8)
        for question in rig.take(AskPlaces):
            pauses.append(rig.now - last)
            last = rig.now
            rig.give_up(question)
        rig.wait(0.5)
    assert pauses[:8] == [0, 1, 2, 4, 8, 16, 30, 30]


def test_an_owner_that_says_so_late_or_unasked_is_believed() -> None:
    rig = Rig()
    rig.make(b"a", 8, writer=ME)
    rig.create(b"b", 8)
    (question,) = rig.take(AskPlaces)
    rig.give_up(question)
    rig.note(rig.store.places_given_up(b"somebody", 0, [b"a"], rig.now))
    assert rig.take(WriteSpill) == []
    rig.note(rig.store.places_given_up(ME, 0, [b"a"], rig.now))
    assert len(rig.take(WriteSpill)) == 1


def test_a_restored_copy_makes_room_again_without_a_write() -> None:
    rig = Rig()
    rig.spilled(b"a", 8)
    assert rig.pin(b"a") is None
    (read,) = rig.take(ReadSpill)
    rig.read(read)
    rig.unpin(b"a")
    assert rig.state(b"a") == "sealed"
    assert rig.make(b"b", 8)
    assert (rig.state(b"a"), rig.take(WriteSpill)) == ("spilled", [])


def test_an_object_whose_bytes_are_damaged_is_lost_and_its_owner_is_told() -> None:
    rig = Rig()
    rig.spilled(b"a", 8)
    assert rig.pin(b"a") is None
    (read,) = rig.take(ReadSpill)
    rig.note(rig.store.spill_read_failed(read.number, "damaged", rig.now))
    assert rig.take(TellLost) == [TellLost(ME, b"a", "damaged")]
    (answer,) = rig.take(AnswerPins)
    assert answer.reasons == ("damaged",)
    assert rig.state(b"a") == "gone"


def test_of_a_freed_object_nobody_is_told_that_it_was_damaged() -> None:
    rig = Rig()
    rig.spilled(b"a", 8)
    rig.pin(b"a")
    (read,) = rig.take(ReadSpill)
    rig.free(b"a")
    rig.note(rig.store.spill_read_failed(read.number, "damaged", rig.now))
    assert rig.take(TellLost) == []


def test_a_freed_object_waits_for_room_no_more() -> None:
    rig = Rig()
    rig.spilled(b"a", 8)
    rig.make(b"b", 8)
    rig.pin(b"b")
    rig.make(b"c", 2)
    rig.pin(b"a")
    assert len(rig.store.spilling.queue) == 1
    rig.free(b"a")
    assert len(rig.store.spilling.queue) == 0
    assert rig.state(b"a") == "gone"


def test_a_restore_goes_to_the_overflow_file_at_once_where_nothing_moves() -> None:
    rig = Rig()
    rig.spilled(b"a", 8)
    rig.make(b"b", 8)
    rig.pin(b"b")
    rig.pin(b"a")
    rig.wait(0.0)
    (read,) = rig.take(ReadSpill)
    assert read.offset >= rig.store.space.base


def test_a_restore_waits_for_its_grace_where_something_moves() -> None:
    rig = Rig()
    rig.spilled(b"a", 8)
    rig.make(b"b", 2, writer=ME)
    rig.make(b"c", 6)
    rig.pin(b"c")
    rig.pin(b"a")
    rig.wait(0.0)
    assert rig.take(ReadSpill) == []
    rig.wait(2.5)
    assert len(rig.take(ReadSpill)) == 1


def test_a_slow_write_is_waited_for_but_not_for_ever() -> None:
    rig = Rig(overflow_pages=0, patience_s=30.0)
    rig.make(b"a", 8)
    rig.create(b"b", 8)
    rig.wait(29.0)
    assert rig.refused() == []
    rig.wait(2.0)
    assert rig.refused() == ["Full"]


def test_a_create_fails_for_want_of_disk_where_all_disks_are_full() -> None:
    rig = Rig(overflow_pages=100)
    rig.make(b"a", 8)
    rig.create(b"b", 8)
    (write,) = rig.take(WriteSpill)
    rig.failed(write, full=True)
    rig.wait(1.5)
    for write in rig.take(WriteSpill):
        rig.failed(write, full=True)
    rig.wait(0.6)
    assert rig.refused() == ["OutOfDisk"]


def test_an_object_that_the_system_has_no_pages_for_is_made_on_disk_where_that_is_asked() -> None:
    rig = Rig()
    rig.note(rig.store.create(ME, 7, b"a", PAGE, ME, rig.now, on_disk=True))
    (created,) = rig.take(Created)
    assert created.offset >= rig.store.space.base
    without = Rig(overflow_pages=0)
    without.note(without.store.create(ME, 7, b"a", PAGE, ME, without.now, on_disk=True))
    (created,) = without.take(Created)
    assert created.offset < without.store.space.base


def test_an_allocate_and_free_pattern_is_never_refused_while_there_is_room() -> None:
    """Free memory in pieces is free memory: a big object fits whenever its bytes are free."""
    rig = Rig(pages=64, overflow_pages=0, disks=())
    for turn in range(30):
        names = [b"%d-%d" % (turn, number) for number in range(16)]
        for number, name in enumerate(names):
            assert rig.make(name, 1 + (number * 7 + turn) % 4 if number < 15 else 1)
        rig.free(*names[::2])
        free = (rig.store.capacity_bytes - rig.store.used_bytes) // PAGE
        big = b"big-%d" % turn
        rig.create(big, free)
        rig.wait(0.0)
        rig.note(rig.store.seal(b"task", big, rig.now))
        assert rig.state(big) == "sealed"
        rig.free(big, *names[1::2])
        assert rig.refused() == []
