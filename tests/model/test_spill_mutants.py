"""Rules of spilling broken one by one: the random world, or a scene, must notice each.

A rule that can be broken unnoticed is a rule that nobody tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from mray.machine import InvariantError
from mray.node.objects.copies import Copies
from mray.node.objects.effects import DeleteSpill, Effect, PunchSpill
from mray.node.objects.files import Files
from mray.node.objects.lifecycle import Copy
from mray.node.objects.room import Room
from mray.node.objects.spilling import Spilling
from tests.model.test_spill_model import World
from tests.unit.objects import test_spilling_machine as scenes

_SETTINGS = settings(
    max_examples=400,
    stateful_step_count=60,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

Patch = pytest.MonkeyPatch
_written = Spilling.written
_end_question = Spilling._end_question
_release = Files.release
_gone = Copies._gone


def _pinned_copies_are_vacated(patch: Patch) -> None:
    def written(self: Spilling, file: int, *rest: Any) -> list[Effect]:
        copies = self._writes[file].copies
        effects = _written(self, file, *rest)
        for copy in copies:
            if copy.pins and copy.slot is not None and copy.offset >= 0:
                copy.pins.clear()
                self._copies.vacate(copy)
        return effects

    patch.setattr(Spilling, "written", written)


def _asking_is_enough_to_take_a_place(patch: Patch) -> None:
    def end_question(self: Spilling, copies: dict[bytes, Copy], now: float) -> None:
        for copy in copies.values():
            copy.by_place = False
        _end_question(self, copies, now)

    patch.setattr(Spilling, "_end_question", end_question)


def _a_file_goes_with_its_first_object(patch: Patch) -> None:
    def release(self: Files, slot: Any) -> Effect:
        effect = _release(self, slot)
        if isinstance(effect, PunchSpill):
            return DeleteSpill(effect.disk, effect.file)
        return effect

    patch.setattr(Files, "release", release)


def _a_file_outlives_its_last_object(patch: Patch) -> None:
    def release(self: Files, slot: Any) -> Effect:
        _release(self, slot)
        return PunchSpill(slot.disk, slot.file, slot.at, slot.size)

    patch.setattr(Files, "release", release)


def _damaged_bytes_are_taken(patch: Patch) -> None:
    def read_failed(self: Spilling, number: int, _: str) -> tuple[Copy, list[Effect]]:
        return self.read(number, 0.0), []

    patch.setattr(Spilling, "read_failed", read_failed)


def _what_was_freed_while_it_was_written_stays_on_disk(patch: Patch) -> None:
    def written(self: Spilling, file: int, *rest: Any) -> list[Effect]:
        copies = self._writes[file].copies
        dropped = any(copy.dropped for copy in copies)
        effects = _written(self, file, *rest)
        if dropped:
            self._copies.slots_gone.clear()
        return effects

    patch.setattr(Spilling, "written", written)


def _a_range_is_readable_before_it_is_filled(patch: Patch) -> None:
    patch.setattr(Copy, "here", property(lambda self: self.sealed and self.offset >= 0))


def _a_range_is_given_away_before_it_is_written(patch: Patch) -> None:
    def start(self: Spilling, demand: int, now: float) -> list[Effect]:
        effects = _start(self, demand, now)
        for write in self._writes.values():
            for copy in write.copies:
                if not copy.pins and not copy.dropped:
                    self._space.free(copy.offset)
                    offset = self._space.arena.allocate(copy.size)
                    copy.offset = offset[0] if offset else copy.offset
        return effects

    _start = Spilling._start_writes
    patch.setattr(Spilling, "_start_writes", start)


def _a_failed_write_is_taken_for_done(patch: Patch) -> None:
    def write_failed(self: Spilling, file: int, failure: Any, now: float) -> list[Effect]:
        return self.written(file, [0] * len(self._writes[file].copies), 0.0, now)

    patch.setattr(Spilling, "write_failed", write_failed)


def _what_an_owner_reads_by_place_is_loose(patch: Patch) -> None:
    def track(self: Copies, copy: Copy) -> None:
        copy.by_place = False
        _track(self, copy)

    _track = Copies.track
    patch.setattr(Copies, "track", track)


def _a_restore_that_finds_no_room_is_forgotten(patch: Patch) -> None:
    def end_restore(self: Room, restore: Any) -> list[Effect]:
        self.spilling.leave(restore.copy)
        return []

    patch.setattr(Room, "_end_restore", end_restore)


def _a_place_on_disk_is_kept_by_what_is_gone(patch: Patch) -> None:
    def gone(self: Copies, copy: Copy) -> None:
        slot, copy.slot = copy.slot, None
        _gone(self, copy)
        copy.slot = slot

    patch.setattr(Copies, "_gone", gone)


_MUTANTS: list[Callable[[Patch], None]] = [
    _pinned_copies_are_vacated,
    _asking_is_enough_to_take_a_place,
    _a_file_goes_with_its_first_object,
    _a_file_outlives_its_last_object,
    _what_was_freed_while_it_was_written_stays_on_disk,
    _a_range_is_readable_before_it_is_filled,
    _a_range_is_given_away_before_it_is_written,
    _a_failed_write_is_taken_for_done,
    _what_an_owner_reads_by_place_is_loose,
    _a_restore_that_finds_no_room_is_forgotten,
    _a_place_on_disk_is_kept_by_what_is_gone,
]


def _a_freed_copy_still_waits_for_room(patch: Patch) -> None:
    patch.setattr(Spilling, "leave", lambda *_: None)


def _memory_in_use_is_waited_for(patch: Patch) -> None:
    patch.setattr(Room, "_restore_patience", lambda self, one: self._patience(one.since))


def _nothing_is_waited_for(patch: Patch) -> None:
    patch.setattr(Room, "_restore_patience", lambda self, _: self._now)


def _owners_are_asked_every_second(patch: Patch) -> None:
    def end_question(self: Spilling, copies: dict[bytes, Copy], now: float) -> None:
        for copy in copies.values():
            copy.ask_wait_s = 0.0
        _end_question(self, copies, now)

    patch.setattr(Spilling, "_end_question", end_question)


def _every_failure_is_told(patch: Patch) -> None:
    def failed(self: Files, number: int, *rest: Any) -> list[Effect]:
        self.disks[number].failure = None
        return _failed(self, number, *rest)

    _failed = Files.failed
    patch.setattr(Files, "failed", failed)


def _any_disk_may_be_tried_at_once(patch: Patch) -> None:
    def choose(self: Files, now: float) -> int | None:
        return _choose(self, now + 1e6)

    _choose = Files.choose
    patch.setattr(Files, "choose", choose)


#: Rare in the random world, or no matter of right and wrong there.
_SCENES: list[tuple[Callable[[Patch], None], Callable[[], None]]] = [
    (
        _damaged_bytes_are_taken,
        scenes.test_an_object_whose_bytes_are_damaged_is_lost_and_its_owner_is_told,
    ),
    (_a_freed_copy_still_waits_for_room, scenes.test_a_freed_object_waits_for_room_no_more),
    (
        _memory_in_use_is_waited_for,
        scenes.test_a_restore_goes_to_the_overflow_file_at_once_where_nothing_moves,
    ),
    (_nothing_is_waited_for, scenes.test_a_restore_waits_for_its_grace_where_something_moves),
    (_owners_are_asked_every_second, scenes.test_an_owner_that_refuses_is_asked_again_ever_later),
    (
        _every_failure_is_told,
        scenes.test_a_failed_write_keeps_the_object_and_is_told_once_a_change,
    ),
    (
        _any_disk_may_be_tried_at_once,
        scenes.test_a_disk_that_fails_is_left_alone_for_a_second_and_others_are_used,
    ),
]


@pytest.mark.parametrize("mutant", _MUTANTS, ids=lambda one: one.__name__[1:])
def test_a_broken_rule_is_noticed(mutant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutant(monkeypatch)
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever notices it first
        run_state_machine_as_test(World, settings=_SETTINGS)
    assert not isinstance(caught.value, (AttributeError, TypeError)), caught.value


@pytest.mark.parametrize(("mutant", "scene"), _SCENES, ids=lambda one: one.__name__.lstrip("_"))
def test_a_broken_rule_fails_its_scene(
    mutant: Callable[[Patch], None], scene: Callable[[], None], monkeypatch: Patch
) -> None:
    scene()
    mutant(monkeypatch)
    with pytest.raises((AssertionError, InvariantError, ValueError)):
        scene()
