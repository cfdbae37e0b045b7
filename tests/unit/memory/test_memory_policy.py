"""Whom the memory monitor ends: tables of the documented order, and permutations of the input."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mray.node.memory.policy import Candidate, Choice, Rules, first, rank
from mray.units import GIB, MIB

NOW = 100.0
CLASSES = ["own_limit", "idle", "retriable", "not_retriable"]


def candidate(number: int, owner: bytes = b"a", **facts: Any) -> Candidate:
    facts = {
        "kind": "task", "name": f"f{number}", "retriable": True, "started_at": float(number),
        "private_bytes": GIB, **facts,
    }  # fmt: skip
    return Candidate(worker_id=bytes([number]), pid=number, owner_id=owner, **facts)


def numbers(choices: list[Choice]) -> list[int]:
    return [choice.candidate.pid for choice in choices]


def test_two_owners_with_four_tasks_each_are_taken_from_in_turn_newest_first() -> None:
    tasks = [candidate(n, b"a" if n % 2 else b"b") for n in range(1, 9)]
    # As many: the owner whose earliest task began later (b: 2), its newest (8). Then a has more.
    assert numbers(rank(tasks, Rules(), NOW)) == [8, 7, 6, 5, 4, 3, 2, 1]


def test_the_owner_with_most_tasks_loses_its_newest() -> None:
    tasks = [candidate(n, b"a") for n in (1, 2, 3)] + [candidate(9, b"b")]
    assert numbers(rank(tasks, Rules(), NOW)) == [3, 2, 9, 1]


def test_a_tie_goes_to_the_owner_whose_earliest_task_began_later() -> None:
    tasks = [candidate(1, b"a"), candidate(9, b"a"), candidate(2, b"b"), candidate(3, b"b")]
    assert first(tasks, Rules(), NOW).candidate.pid == 3  # type: ignore[union-attr]


def test_retriable_ones_go_before_others_however_old() -> None:
    actor = candidate(9, b"a", kind="actor", retriable=False)
    again = candidate(1, b"b", kind="actor", retriable=True)
    assert numbers(rank([actor, again], Rules(), NOW)) == [1, 9]


def test_what_cannot_be_retried_goes_newest_first_whoever_owns_it() -> None:
    tasks = [candidate(n, bytes([n % 2]), retriable=False) for n in (1, 2, 3, 5)]
    choices = rank(tasks, Rules(), NOW)
    assert numbers(choices) == [5, 3, 2, 1]
    assert not any(choice.should_retry for choice in choices)


def test_the_last_task_of_an_owner_is_not_retried() -> None:
    for policy in ("group_by_owner", "time"):
        rules = Rules(policy=policy)  # type: ignore[arg-type]
        older, newer = rank([candidate(1), candidate(2)], rules, NOW)[::-1]
        assert newer.should_retry
        assert not older.should_retry
        assert older.retry_reason == "not retried: last task of its owner on this node"


def test_the_time_policy_takes_the_newest_whoever_owns_it() -> None:
    tasks = [candidate(n, b"a") for n in (1, 2, 3)] + [candidate(9, b"b")]
    assert numbers(rank(tasks, Rules(policy="time"), NOW)) == [9, 3, 2, 1]


def test_a_task_that_needs_more_than_the_node_may_use_is_not_retried() -> None:
    tasks = [candidate(1), candidate(2, private_bytes=5 * GIB)]
    choice = first(tasks, Rules(budget_bytes=4 * GIB), NOW)
    assert choice is not None
    assert (choice.should_retry, "alone" in choice.retry_reason) == (False, True)


def test_a_worker_over_its_own_limit_goes_first_only_where_that_is_enforced() -> None:
    greedy = candidate(1, retriable=False, requested_bytes=100 * MIB, private_bytes=300 * MIB)
    tasks = [greedy, candidate(2), candidate(3)]
    choice = first(tasks, Rules(enforce_own_limit=True), NOW)
    assert choice is not None
    assert (choice.rule, choice.candidate.pid) == ("own_limit", 1)
    assert first(tasks, Rules(), NOW).candidate.pid == 3  # type: ignore[union-attr]


def test_big_idle_workers_go_before_any_that_work_and_small_ones_never() -> None:
    idle = [
        candidate(n, kind="idle", private_bytes=size)
        for n, size in ((1, 2 * GIB), (2, 3 * GIB), (3, 10 * MIB))
    ]
    assert numbers(rank([*idle, candidate(8)], Rules(), NOW)) == [2, 1, 8]


def test_the_newest_is_passed_over_where_its_end_would_free_nothing() -> None:
    budget = 230 * GIB
    rules = Rules(min_kill_bytes=budget // 100, budget_bytes=budget)
    hog = candidate(1, private_bytes=200 * GIB)
    tiny = candidate(9, private_bytes=50 * MIB)
    choice = first([tiny, hog], rules, NOW)
    assert choice is not None
    assert choice.candidate is hog
    assert "passed over 1" in choice.why


def test_where_all_are_small_the_documented_order_holds() -> None:
    tasks = [candidate(n, private_bytes=n * MIB) for n in (1, 2, 3)]
    assert numbers(rank(tasks, Rules(min_kill_bytes=GIB), NOW)) == [3, 2, 1]


def test_nobody_to_end_is_no_choice() -> None:
    assert first([], Rules(), NOW) is None
    assert first([candidate(1, kind="idle", private_bytes=MIB)], Rules(), NOW) is None


def test_every_order_of_a_snapshot_gives_the_same_ranks() -> None:
    snapshot = [
        candidate(1, b"a", started_at=5.0),
        candidate(2, b"b", started_at=5.0),
        candidate(3, b"a", retriable=False, started_at=5.0),
        candidate(4, b"b", kind="idle", private_bytes=2 * GIB),
        candidate(5, b"c", private_bytes=MIB),
    ]
    rules = Rules(min_kill_bytes=10 * MIB)
    ranks = {tuple(numbers(rank(p, rules, NOW))) for p in itertools.permutations(snapshot)}
    assert len(ranks) == 1


CANDIDATES = st.lists(
    st.builds(
        lambda number, owner, kind, retriable, at, size, asked: candidate(
            number, bytes([owner]), kind=kind, retriable=retriable, started_at=float(at),
            private_bytes=size * 100 * MIB, requested_bytes=asked * 100 * MIB,
        ),
        st.integers(1, 250), st.integers(0, 3), st.sampled_from(["task", "actor", "idle"]),
        st.booleans(), st.integers(0, 5), st.integers(0, 30), st.integers(0, 30),
    ),
    max_size=12,
    unique_by=lambda c: c.pid,
)  # fmt: skip


@given(CANDIDATES, st.sampled_from(["group_by_owner", "time"]), st.booleans(), st.randoms())
def test_ranks_are_complete_ordered_by_class_and_blind_to_the_order_of_the_input(
    snapshot: list[Candidate], policy: Any, enforce: bool, random: Any
) -> None:
    rules = Rules(policy=policy, enforce_own_limit=enforce, min_kill_bytes=200 * MIB)
    choices = rank(snapshot, rules, NOW)
    shuffled = snapshot.copy()
    random.shuffle(shuffled)
    assert rank(shuffled, rules, NOW) == choices
    assert choices[:1] == [c for c in [first(snapshot, rules, NOW)] if c is not None]
    left_out = set(map(id, snapshot)) - {id(choice.candidate) for choice in choices}
    assert all(c.kind == "idle" and c.private_bytes < GIB for c in snapshot if id(c) in left_out)
    classes = [CLASSES.index(choice.rule) for choice in choices]
    assert classes == sorted(classes)
    for choice in choices:
        assert not choice.should_retry or choice.candidate.retriable
