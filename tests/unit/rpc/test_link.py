"""Links: once and in order over a way that loses, doubles and reorders."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mray.rpc.link import (
    ACK_AFTER_BYTES,
    ACK_AFTER_S,
    HEAD_BYTES,
    LINK_BYTE,
    PROBE_AFTER_MAX_S,
    PROBE_AFTER_S,
    Link,
)
from mray.wire.codec import WIRE_VERSION


def test_messages_arrive_in_order() -> None:
    a, b = Link(), Link()
    frames = [a.send(bytes([n]), 0.0) for n in range(3)]
    assert [b.receive(frame, 0.0).payloads for frame in frames] == [[b"\0"], [b"\1"], [b"\2"]]


def test_a_frame_is_told_from_a_message() -> None:
    assert Link().send(b"", 0.0)[0] == LINK_BYTE != WIRE_VERSION


def test_a_copy_is_dropped() -> None:
    a, b = Link(), Link()
    frame = a.send(b"x", 0.0)
    assert b.receive(frame, 0.0).payloads == [b"x"]
    assert b.receive(frame, 0.0).payloads == []


def test_what_is_confirmed_is_not_kept() -> None:
    a, b = Link(), Link()
    b.receive(a.send(b"x", 0.0), 0.0)
    assert a.kept_count == 1
    assert b.deadline() == ACK_AFTER_S
    (confirmation,) = b.tick(ACK_AFTER_S)
    a.receive(confirmation, 0.2)
    assert a.kept_count == 0
    assert a.deadline() is None
    assert b.deadline() is None


def test_an_answer_confirms_without_a_frame_of_its_own() -> None:
    a, b = Link(), Link()
    b.receive(a.send(b"ask", 0.0), 0.0)
    a.receive(b.send(b"answer", 0.05), 0.05)
    assert a.kept_count == 0
    assert b.tick(ACK_AFTER_S) == []


def test_much_is_confirmed_at_once() -> None:
    a, b = Link(), Link()
    got = b.receive(a.send(bytes(ACK_AFTER_BYTES), 0.0), 0.0)
    assert len(got.frames) == 1
    assert b.deadline() is None


def test_a_gap_brings_all_from_there_once() -> None:
    a, b = Link(), Link()
    a.send(b"lost", 0.0)
    second, third = a.send(b"2", 0.0), a.send(b"3", 0.0)
    (gap,) = b.receive(second, 0.0).frames
    assert b.receive(third, 0.0).frames == []
    again = a.receive(gap, 0.0).frames
    assert [p for frame in again for p in b.receive(frame, 0.0).payloads] == [b"lost", b"2", b"3"]


def test_silence_brings_a_question_ever_more_slowly() -> None:
    a = Link()
    a.send(b"x", 0.0)
    assert a.deadline() == PROBE_AFTER_S
    now, pauses = 0.0, []
    for _ in range(6):
        at = a.deadline()
        assert at is not None
        pauses.append(at - now)
        now = at
        (probe,) = a.tick(now)
        assert len(probe) == HEAD_BYTES
    assert pauses == [0.5, 1.0, 2.0, 4.0, PROBE_AFTER_MAX_S, PROBE_AFTER_MAX_S]


def test_a_question_finds_out_what_was_lost() -> None:
    a, b = Link(), Link()
    a.send(b"lost", 0.0)
    (probe,) = a.tick(PROBE_AFTER_S)
    (answer,) = b.receive(probe, 0.6).frames
    (again,) = a.receive(answer, 0.6).frames
    assert b.receive(again, 0.6).payloads == [b"lost"]


def test_a_question_to_a_busy_peer_sends_nothing_again() -> None:
    a, b = Link(), Link()
    frame = a.send(b"x", 0.0)
    (probe,) = a.tick(PROBE_AFTER_S)
    b.receive(frame, 1.0)
    (answer,) = b.receive(probe, 1.0).frames
    assert a.receive(answer, 1.0).frames == []
    assert a.kept_count == 0


def test_what_broke_with_a_connection_comes_again_at_once_from_both_sides() -> None:
    a, b = Link(), Link()
    b.receive(a.send(b"0", 0.0), 0.0)
    a.receive(b.send(b"0", 0.0), 0.0)
    for end in (a, b):
        for number in (b"1", b"2"):
            end.send(number, 0.0)
    got: dict[Link, list[bytes]] = {a: [], b: []}
    under_way = [(b, frame) for frame in a.again()]
    while under_way:
        end, frame = under_way.pop(0)
        received = end.receive(frame, 0.0)
        got[end] += received.payloads
        under_way += [(a if end is b else b, each) for each in received.frames]
    assert got == {a: [b"1", b"2"], b: [b"1", b"2"]}


def test_a_connection_that_lost_nothing_brings_nothing_again() -> None:
    a, b = Link(), Link()
    b.receive(a.send(b"0", 0.0), 0.0)
    a.receive(b.send(b"0", 0.0), 0.0)
    for frame in a.again():
        for answer in b.receive(frame, 0.0).frames:
            assert a.receive(answer, 0.0) == ([], [], False)
    assert (a.kept_count, b.kept_count) == (0, 0)


def test_a_peer_without_memory_is_noticed_and_gets_what_was_not_confirmed() -> None:
    a, b = Link(), Link()
    b.receive(a.send(b"1", 0.0), 0.0)
    a.receive(b.send(b"2", 0.0), 0.0)
    new_b = Link(life=2)
    got = new_b.receive(a.send(b"sent to the former", 0.0), 0.0)
    assert got.payloads == []
    told = a.receive(got.frames[0], 0.0)
    assert told.reset
    (again,) = told.frames
    assert new_b.receive(again, 0.0).payloads == [b"sent to the former"]
    assert new_b.receive(a.send(b"next", 0.0), 0.0).payloads == [b"next"]
    # And what the former life still has under way is not read.
    assert a.receive(b.send(b"stale", 0.0), 0.0).payloads == []
    for link in (a, new_b):
        link.check()


def test_what_was_for_whoever_lives_reaches_the_new_life_once() -> None:
    a, b, new_b = Link(), Link(), Link(life=2)
    early = a.send(b"early", 0.0)
    b.receive(early, 0.0)
    a.receive(b.send(b"hello", 0.0), 0.0)
    # The same bytes reach the new life, which has never heard of them.
    assert new_b.receive(early, 0.0).payloads == [b"early"]
    told = a.receive(new_b.send(b"hello again", 0.0), 0.0)
    assert told.reset
    assert told.payloads == [b"hello again"]
    assert new_b.receive(a.send(b"next", 0.0), 0.0).payloads == [b"next"]


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        bytes([LINK_BYTE]),
        bytes([LINK_BYTE, 9]) + bytes(HEAD_BYTES),
        bytes([LINK_BYTE, 0]) + bytes(HEAD_BYTES),
        bytes([1, 0]) + b"\1" * HEAD_BYTES,
    ],
)
def test_junk_is_an_error_and_changes_nothing(junk: bytes) -> None:
    link = Link()
    link.send(b"x", 0.0)
    with pytest.raises(ValueError, match="frame"):
        link.receive(junk, 0.0)
    link.check()
    assert link.kept_count == 1


def test_more_confirmed_than_sent_is_an_error() -> None:
    a, b = Link(), Link()
    for _ in range(3):
        frame = a.send(b"x", 0.0)
        b.receive(frame, 0.0)
    other = Link()
    with pytest.raises(ValueError, match="confirms 3 of 0"):
        other.receive(b.send(b"y", 0.0), 0.0)
    other.check()


class _Way:
    """Two ends and a bad way between them, on virtual time."""

    def __init__(self, seed: int, loss: float, copies: float, disorder: float) -> None:
        self.draw = random.Random(seed)
        self.loss, self.copies, self.disorder = loss, copies, disorder
        self.ends = [Link(), Link()]
        self.got: list[list[bytes]] = [[], []]
        self.sent: list[list[bytes]] = [[], []]
        self.under_way: list[tuple[float, int, int, bytes]] = []
        self.now = 0.0
        self.number = 0

    def carry(self, to: int, frames: list[bytes]) -> None:
        for frame in frames:
            while self.draw.random() >= self.loss:
                late = self.draw.random() * 0.3 if self.draw.random() < self.disorder else 0.0
                self.number += 1
                self.under_way.append((self.now + 0.01 + late, self.number, to, frame))
                if self.draw.random() >= self.copies:
                    break

    def say(self, end: int) -> None:
        payload = f"{end}-{len(self.sent[end])}".encode()
        self.sent[end].append(payload)
        self.carry(1 - end, [self.ends[end].send(payload, self.now)])

    def break_line(self, dialler: int) -> None:
        """What is under way is lost; one end makes the connection again."""
        self.under_way.clear()
        self.carry(1 - dialler, self.ends[dialler].again())

    def step(self) -> bool:
        """Whether anything was left to happen."""
        self.under_way.sort(reverse=True)
        next_at = self.under_way[-1][0] if self.under_way else None
        for end, link in enumerate(self.ends):
            due = link.deadline()
            if due is not None and (next_at is None or due < next_at):
                self.now = max(self.now, due)
                self.carry(1 - end, link.tick(self.now))
                return True
        if next_at is None:
            return False
        at, _, to, frame = self.under_way.pop()
        self.now = max(self.now, at)
        received = self.ends[to].receive(frame, self.now)
        assert not received.reset
        self.got[to] += received.payloads
        self.carry(1 - to, received.frames)
        for link in self.ends:
            link.check()
        return True


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([0.0, 0.1, 0.5]),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from([0.0, 0.5]),
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 5)), max_size=60),
)
def test_all_arrives_once_and_in_order_whatever_the_way_does(
    seed: int,
    loss: float,
    copies: float,
    disorder: float,
    script: list[tuple[int, int]],
) -> None:
    way = _Way(seed, loss, copies, disorder)
    for end, steps in script:
        if steps == 5:
            way.break_line(end)
        way.say(end)
        for _ in range(steps):
            way.step()
    for _ in range(100_000):
        if not way.step():
            break
    assert way.got[1] == way.sent[0]
    assert way.got[0] == way.sent[1]
    # At rest: nothing kept, and no timer that would wake an idle process.
    assert [link.kept_count for link in way.ends] == [0, 0]
    assert [link.deadline() for link in way.ends] == [None, None]
