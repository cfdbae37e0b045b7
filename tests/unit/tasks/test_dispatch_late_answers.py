"""Dispatcher: answers that are about what was, and not about what is."""

from __future__ import annotations

from mray.tasks.dispatch import Steal

from .test_dispatch import with_leases


def test_nothing_to_hand_back_says_nothing_of_what_was_sent_after_the_question() -> None:
    owner, _ = with_leases(2, 8, run_us=400)
    owner.reply(2, list(owner.lease(2).inflight.values()), run_us=400, now=0.01)
    assert owner.turn(0.01)[1] == [Steal(owner.lease(1).worker, 2)]
    # It had begun all of them, and is given others before its answer is here.
    owner.reply(1, list(owner.lease(1).inflight.values()), run_us=400, now=0.02)
    owner.submit(4)
    assert {number: len(tasks) for number, tasks in owner.turn(0.02)[0].items()} == {1: 2, 2: 2}
    owner.reply(1, [], now=0.02)
    owner.turn(0.02)
    # The first of them turns out to be long: what is behind it has to be had.
    owner.reply(2, list(owner.lease(2).inflight.values()), run_us=400, now=0.03)
    assert owner.turn(0.03)[1] == [Steal(owner.lease(1).worker, 1)]
