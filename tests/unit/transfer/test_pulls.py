"""The machine that pulls objects: event in, effects out."""

from __future__ import annotations

import pytest

from mray.node.objects.effects import OwnerGone
from mray.node.transfer.effects import Ask, AskOwner, Drop, End, Fail, Place, Seal, Verify
from mray.node.transfer.pulls import ARGUMENTS, GET, WAIT, PullRules, Pulls
from mray.wire.messages import Address, Source

ME, A, B, C = b"me", b"na", b"nb", b"nc"
X, Y, Z = b"xx", b"yy", b"zz"
OWNER = Address(b"owner", A)
#: Ten bytes a chunk, four chunks a window.
RULES = PullRules(quota_bytes=100, chunk_bytes=10, window_bytes=40, stall_s=4.0)


def source(size: int, *nodes: bytes) -> Source:
    return Source(OWNER, size, list(nodes))


@pytest.fixture
def pulls() -> Pulls:
    return Pulls(ME, RULES)


def start(pulls: Pulls, object_id: bytes, size: int, *nodes: bytes, now: float = 0.0) -> list:
    """Have an object pulled, and its place made."""
    pulls.want(object_id, source(size, *nodes), GET, now)
    return pulls.placed(object_id, now)


def feed(pulls: Pulls, number: int, node: bytes, *chunks: int, now: float = 1.0) -> list:
    effects = []
    for chunk in chunks:
        effects += pulls.arrived(number, node, chunk, -1, now)
        pulls.check()
    return effects


def test_first_a_place_is_made_then_a_window_of_chunks_is_asked_for(pulls: Pulls) -> None:
    assert pulls.want(X, source(95, A), GET, 0.0) == [Place(X, 1, 95, OWNER)]
    assert pulls.placed(X, 0.0) == [Ask(A, 1, X, (0, 1, 2, 3), 4)]
    pulls.check()


def test_what_is_wanted_twice_is_pulled_once(pulls: Pulls) -> None:
    start(pulls, X, 20, A)
    assert pulls.want(X, source(20, A), GET, 0.0) == []
    assert pulls.want(X, source(20, A), ARGUMENTS, 0.0) == []
    assert len(pulls) == 1


def test_each_chunk_that_comes_makes_room_for_another(pulls: Pulls) -> None:
    start(pulls, X, 60, A)
    assert feed(pulls, 1, A, 0) == [Ask(A, 1, X, (4,), 4)]
    assert feed(pulls, 1, A, 2, 1) == [Ask(A, 1, X, (5,), 4)]


def test_with_the_last_chunk_the_copy_is_sealed_and_the_source_told(pulls: Pulls) -> None:
    start(pulls, X, 25, A)
    assert feed(pulls, 1, A, 2, 0) == []
    assert feed(pulls, 1, A, 1) == [End(A, 1), Seal(X, 1, OWNER)]
    assert X not in pulls


def test_an_empty_object_has_one_empty_chunk(pulls: Pulls) -> None:
    assert start(pulls, X, 0, A) == [Ask(A, 1, X, (0,), 1)]
    assert feed(pulls, 1, A, 0) == [End(A, 1), Seal(X, 1, OWNER)]


def test_copies_of_chunks_and_chunks_of_former_pulls_change_nothing(pulls: Pulls) -> None:
    start(pulls, X, 95, A)
    feed(pulls, 1, A, 0)
    assert feed(pulls, 1, A, 0, 0) == []
    assert feed(pulls, 7, A, 0) == []
    assert feed(pulls, 1, B, 1) == []
    assert feed(pulls, 1, A, 9, 99, -1) == []


def test_several_nodes_give_one_object_together(pulls: Pulls) -> None:
    effects = start(pulls, X, 95, A, B)
    asked = {effect.node_id: effect.chunks for effect in effects}
    assert sorted(asked[A] + asked[B]) == list(range(8))


def test_an_object_is_pulled_from_few_nodes_at_a_time() -> None:
    pulls = Pulls(ME, PullRules(quota_bytes=1000, chunk_bytes=10, window_bytes=40, sources_max=2))
    assert len(start(pulls, X, 500, A, B, C)) == 2


def test_after_a_death_only_what_is_missing_is_asked_of_another(pulls: Pulls) -> None:
    start(pulls, X, 40, A)
    feed(pulls, 1, A, 0, 2)
    assert pulls.node_gone(A, 1.0) == [AskOwner(X, OWNER)]
    assert pulls.located(X, [A, B], "", 1.0) == [Ask(B, 1, X, (1, 3), 2, (A,))]
    assert feed(pulls, 1, B, 1, 3) == [End(A, 1), End(B, 1), Seal(X, 1, OWNER)]


def test_without_another_node_the_reader_hears_what_each_said(pulls: Pulls) -> None:
    start(pulls, X, 40, A)
    assert pulls.refused(1, A, (), "it is not here", 0.0) == [AskOwner(X, OWNER)]
    [end, fail] = pulls.located(X, [A], "", 0.0)
    assert end == End(A, 1)
    assert isinstance(fail, Fail)
    assert "owner knows of no node" in fail.reason
    assert "it is not here" in fail.reason
    pulls.check()


def test_an_owner_that_does_not_answer_is_asked_again_and_then_no_more(pulls: Pulls) -> None:
    start(pulls, X, 40)
    now, asked = 0.0, 1
    while X in pulls:
        now = max(now, pulls.deadline() or 0.0) + 0.1
        effects = pulls.tick(now)
        pulls.check()
        asked += effects == [AskOwner(X, OWNER)]
        assert now < 100
    assert asked == RULES.locate_max


def test_a_busy_node_names_others_and_is_asked_again_when_they_fail(pulls: Pulls) -> None:
    start(pulls, X, 40, A)
    [ask] = pulls.refused(1, A, [B], "", 0.0)
    assert ask == Ask(B, 1, X, (0, 1, 2, 3), 4)
    feed(pulls, 1, B, 0)
    assert pulls.refused(1, B, (), "it broke", 0.0) == [Ask(A, 1, X, (1, 2, 3), 3, (B,))]


def test_a_silent_node_is_asked_again_and_then_another(pulls: Pulls) -> None:
    start(pulls, X, 40, A)
    feed(pulls, 1, A, 0, now=1.0)
    assert pulls.tick(4.9) == []
    assert pulls.tick(6.0) == [AskOwner(X, OWNER), Ask(A, 1, X, (1, 2, 3), 3)]
    assert pulls.located(X, [A], "", 6.0) == []
    assert pulls.tick(11.0) == [AskOwner(X, OWNER), Ask(A, 1, X, (1, 2, 3), 3)]
    assert pulls.tick(16.0) == [AskOwner(X, OWNER)]
    pulls.check()


def test_while_a_node_is_silent_another_that_the_owner_knows_takes_over(pulls: Pulls) -> None:
    start(pulls, X, 95, A)
    assert AskOwner(X, OWNER) in pulls.tick(6.0)
    assert pulls.located(X, [A, B], "", 6.0) == [Ask(B, 1, X, (0, 1, 2, 3), 4)]
    pulls.check()
    assert feed(pulls, 1, A, 2, now=7.0) == [Ask(B, 1, X, (4,), 4)]


def test_gets_come_before_waits_before_arguments(pulls: Pulls) -> None:
    pulls.want(b"1", source(100, A), ARGUMENTS, 0.0)
    assert pulls.want(b"2", source(90, A), ARGUMENTS, 0.0) == []
    assert pulls.want(b"3", source(80, A), WAIT, 0.0) == [Place(b"3", 3, 80, OWNER)]
    assert pulls.want(b"4", source(70, A), WAIT, 0.0) == []
    assert pulls.want(b"5", source(60, A), GET, 0.0) == [Place(b"5", 5, 60, OWNER)]
    assert pulls.want(b"2", source(90, A), GET, 0.0) == []
    pulls.check()
    started = []
    for object_id in (b"1", b"3", b"5"):
        started += [
            one.object_id
            for one in pulls.give_up(object_id, "freed", 0.0)
            if isinstance(one, Place)
        ]
        pulls.check()
    assert started == [b"2"]


def test_chunks_of_the_more_urgent_are_asked_for_first(pulls: Pulls) -> None:
    pulls.want(X, source(100, A), ARGUMENTS, 0.0)
    pulls.placed(X, 0.0)
    pulls.want(Y, source(20, A), GET, 0.0)
    assert pulls.placed(Y, 0.0) == []
    assert feed(pulls, 1, A, 0) == [Ask(A, 2, Y, (0,), 1)]
    assert feed(pulls, 1, A, 1) == [Ask(A, 2, Y, (1,), 2)]
    assert feed(pulls, 1, A, 2) == [Ask(A, 1, X, (4,), 2)]


def test_one_pull_may_always_run_whatever_its_size(pulls: Pulls) -> None:
    assert pulls.want(X, source(1000, A), GET, 0.0) == [Place(X, 1, 1000, OWNER)]
    assert pulls.want(Y, source(10, A), GET, 0.0) == []
    pulls.placed(X, 0.0)
    assert Place(Y, 2, 10, OWNER) in pulls.give_up(X, "freed", 0.0)


def test_no_room_is_told_with_the_stores_own_reason(pulls: Pulls) -> None:
    why = OwnerGone(X, b"owner")
    pulls.want(X, source(40, A), GET, 0.0)
    [fail] = pulls.no_place(X, why, 0.0)
    assert isinstance(fail, Fail)
    assert fail.why == why


def test_a_pull_that_nobody_wants_any_more_ends(pulls: Pulls) -> None:
    start(pulls, X, 40, A)
    pulls.want(X, source(40, A), ARGUMENTS, 0.0)
    assert pulls.unwant(X, GET, 0.0) == []
    assert pulls.unwant(X, GET, 0.0) == []
    effects = pulls.unwant(X, ARGUMENTS, 0.0)
    assert [type(one) for one in effects] == [End, Fail]
    assert not len(pulls)


def test_the_checksum_of_what_was_spilled_is_compared(pulls: Pulls) -> None:
    start(pulls, X, 20, A)
    pulls.arrived(1, A, 0, 77, 1.0)
    assert pulls.arrived(1, A, 1, 77, 1.0) == [Verify(X, 1, 77)]
    pulls.check()
    assert pulls.verified(1, True, 1.0) == [End(A, 1), Seal(X, 1, OWNER)]


def test_damaged_bytes_are_pulled_anew_from_another_node_under_another_number(
    pulls: Pulls,
) -> None:
    start(pulls, X, 20, A)
    pulls.arrived(1, A, 0, 77, 1.0)
    pulls.arrived(1, A, 1, 77, 1.0)
    assert pulls.verified(1, False, 1.0) == [End(A, 1), Drop(X, 1), Place(X, 2, 20, OWNER)]
    assert pulls.arrived(1, A, 0, 77, 1.0) == []
    assert pulls.placed(X, 1.0) == [AskOwner(X, OWNER)]
    assert pulls.located(X, [B], "", 1.0) == [Ask(B, 2, X, (0, 1), 2, (A,))]
    pulls.check()


def test_what_a_dead_owner_had_is_not_pulled(pulls: Pulls) -> None:
    start(pulls, X, 20, A)
    effects = pulls.owner_gone(b"owner", 1.0)
    assert [type(one) for one in effects] == [End, Fail]


def test_a_size_below_nothing_is_refused_and_changes_nothing(pulls: Pulls) -> None:
    with pytest.raises(ValueError, match="cannot be pulled"):
        pulls.want(X, source(-1, A), GET, 0.0)
    with pytest.raises(ValueError, match="priority 7"):
        pulls.want(X, source(1, A), 7, 0.0)
    assert not len(pulls)
