"""A process's own table as views: totals of all, views of the biggest, in slices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mray.call_sites import capture
from mray.ownership.entry import Entry
from mray.ownership.references import References
from mray.runtime import reference_report
from mray.runtime.reference_report import ReferenceReports, Survey
from mray.serialization.failures import error_envelope
from mray.wire.messages import Address, GetReferences, Located

ME, OTHER = b"m" * 28, Address(b"o" * 28, b"n" * 28)
HOME: Any = None


class FakePump:
    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.later: list[Any] = []
        self.handlers: dict[type, Any] = {}

    def on(self, kind, handler):
        self.handlers[kind] = handler

    def clock(self):
        return 100.0

    def call_soon(self, call):
        self.later.append(call)

    def send(self, to, message):
        self.sent.append(message)


@pytest.fixture
def rt() -> Any:
    return SimpleNamespace(
        pump=FakePump(),
        process_id=ME,
        title="step",
        references=References(1),
        store=SimpleNamespace(in_place=list),
        objects=SimpleNamespace(reason=lambda entry: "needs 1 GPU"),
    )


def add(rt: Any, object_id: bytes, **facts: Any) -> Entry:
    owner = facts.pop("owner", None)
    entry = Entry(object_id, owner, HOME, facts.pop("local", 1))
    for key, value in facts.items():
        setattr(entry, key, value)
    rt.references.entries[object_id] = entry
    return entry


def look(rt: Any, limit: int = 100) -> Any:
    survey = Survey(rt, limit)
    while not survey.step():
        continue
    return survey.views(7)


def test_what_is_known_of_an_object(rt):
    site = capture(0)
    add(rt, b"a", data=b"12345", ready=True, born=90.0, call_site=site, name="put", inside=2)
    found = look(rt)
    (view,) = found.views
    assert (found.rid, found.title, found.object_count) == (7, "step", 1)
    assert view.kinds == {"LOCAL_REFERENCE": 1, "CAPTURED_IN_OBJECT": 2}
    assert (view.owner_id, view.name, view.size_bytes, view.state) == (ME, "put", 5, "ready")
    assert (view.age_s, view.in_store) == (10.0, False)
    assert "test_what_is_known_of_an_object" in view.call_site
    assert found.sites == [(view.call_site, 1, 5)]


def test_states(rt):
    add(rt, b"a")
    add(rt, b"b", owner=OTHER)
    add(rt, b"c", data=error_envelope(ValueError("no")), ready=True)
    add(rt, b"d", located=Located(b"n" * 28, 500), ready=True)
    add(rt, b"e", is_actor=True, ready=True, held=1)
    views = {view.object_id: view for view in look(rt).views}
    assert {key: view.state for key, view in views.items()} == {
        b"a": "pending", b"b": "unread", b"c": "error", b"d": "ready", b"e": "ready",
    }  # fmt: skip
    assert (views[b"a"].reason, views[b"b"].reason) == ("needs 1 GPU", "")
    assert (views[b"a"].size_bytes, views[b"d"].size_bytes, views[b"d"].in_store) == (-1, 500, True)
    assert views[b"b"].owner_id == OTHER.process_id
    assert views[b"e"].kinds == {"ACTOR_HANDLE": 1, "USED_BY_PENDING_TASK": 1}
    assert {view.age_s for view in views.values()} == {-1.0}


def test_the_error_that_a_borrower_got_is_not_the_objects_size(rt):
    add(rt, b"a", owner=OTHER, data=error_envelope(ValueError("gone")), ready=True)
    (view,) = look(rt).views
    assert (view.state, view.size_bytes) == ("error", -1)


def test_the_biggest_are_shown_and_all_are_counted(rt):
    for number in range(10):
        add(rt, b"%d" % number, data=b"x" * number, ready=True)
    found = look(rt, limit=2)
    assert [view.object_id for view in found.views] == [b"9", b"8"]
    assert found.object_count == 10
    assert found.kinds == {"LOCAL_REFERENCE": 10}


def test_borrowers_are_named_with_their_registrations(rt):
    entry = add(rt, b"a", local=0, data=b"1", ready=True)
    entry.borrowers = {OTHER.process_id: {1, 2}}
    (view,) = look(rt).views
    assert view.borrowers == [(OTHER.process_id, 2)]
    assert view.kinds == {"BORROWED": 1}


def test_values_read_in_place_are_shown_with_and_without_an_entry(rt):
    add(rt, b"a", located=Located(b"n" * 28, 500), ready=True)
    rt.store.in_place = lambda: [(b"a", 500), (b"gone", 800)]
    found = look(rt)
    kinds = {view.object_id: view.kinds for view in found.views}
    assert kinds[b"a"] == {"LOCAL_REFERENCE": 1, "PINNED_IN_MEMORY": 1}
    assert kinds[b"gone"] == {"PINNED_IN_MEMORY": 1}
    assert found.object_count == 2
    assert found.kinds["PINNED_IN_MEMORY"] == 2


def test_a_big_table_is_read_in_slices_between_rounds_of_the_loop(rt, monkeypatch):
    monkeypatch.setattr(reference_report, "_SLICE", 4)
    for number in range(10):
        add(rt, b"%d" % number, data=b"x" * number, ready=True)
    ReferenceReports(rt)
    rt.pump.handlers[GetReferences](OTHER.process_id, GetReferences(3, 3))
    rounds = 1
    while rt.pump.later:
        assert not rt.pump.sent
        rt.pump.later.pop()()
        rounds += 1
    assert rounds == 3
    (answer,) = rt.pump.sent
    assert [view.object_id for view in answer.views] == [b"9", b"8", b"7"]


def test_an_entry_that_goes_while_others_are_read_is_left_out(rt):
    entry = add(rt, b"a", data=b"1", ready=True)
    survey = Survey(rt, 10)
    rt.references.drop_local(entry)
    assert survey.step()
    assert survey.views(1).object_count == 0
