"""The last that have ended, and how many ended of what."""

from __future__ import annotations

from mray.node.workers.ended import Ended
from mray.wire.messages import DeathCause, WorkerView


def view(pid: int) -> WorkerView:
    return WorkerView(b"w", pid, "leased", b"", b"", b"", {}, 5.0)


def test_the_newest_comes_first_and_knows_how_long_ago_it_ended():
    ended = Ended()
    gone = DeathCause("exit", exit_code=1)
    ended.add("worker", view(1), gone, now=10.0)
    ended.add("worker", view(2), gone, now=12.0)
    ended.add("driver", view(3), gone, now=13.0)
    told = list(ended.views("worker", now=15.0))
    assert [(one.pid, one.state, one.cause, one.ended_s) for one in told] == [
        (2, "dead", gone, 3.0),
        (1, "dead", gone, 5.0),
    ]
    assert [one.pid for one in ended.views("driver", now=15.0)] == [3]


def test_the_oldest_are_forgotten_but_counted():
    ended = Ended(ended_max=2)
    for pid in range(5):
        ended.add("worker", view(pid), DeathCause("exit"), now=pid)
    assert [one.pid for one in ended.views("worker", now=9)] == [4, 3]
    assert ended.by_cause == {"exit": 5}


def test_ends_for_want_of_memory_are_counted_by_who_ended_them():
    ended = Ended()
    ended.add("worker", view(1), DeathCause("killed", oom=b"facts"), now=0)
    ended.add("worker", view(2), DeathCause("kernel_oom", oom=b"facts"), now=0)
    ended.add("worker", view(3), DeathCause("killed"), now=0)
    ended.add("driver", view(4), DeathCause("kernel_oom"), now=0)
    assert ended.by_evictor == {"monitor": 1, "kernel": 1}
    assert ended.by_cause == {"killed": 2, "kernel_oom": 1}
