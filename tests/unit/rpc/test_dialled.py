"""By which names processes are dialled, when again, and what waits meanwhile."""

from __future__ import annotations

import random

import pytest

from mray.rpc.dialled import AGAIN_S, NEVER, REFUSED_MAX_S, REFUSED_S, STOOD_MAX_S, Dialled
from mray.rpc.endpoints import is_same_endpoint

HERE, THERE = "tcp://127.0.0.1:1000", "tcp://127.0.0.1:2000"
A, B = b"a" * 28, b"b" * 28


def test_the_first_name_is_the_process_id_and_later_ones_are_never_used_twice() -> None:
    dialled = Dialled()
    line = dialled.add(A, HERE, b"us")
    names = [line.name]
    assert line.name == A
    now = 0.0
    for _ in range(100):
        dialled.ended(HERE, now)
        assert not line.name
        assert dialled.names == {}
        now = dialled.next_due
        assert dialled.due(now) == [line]
        names.append(line.name)
        assert dialled.names == {line.name: A}
        dialled.check()
    assert len(set(names)) == len(names)
    assert all(0 < len(name) < 256 and name[0] for name in names)


def test_what_is_sent_waits_until_the_line_stands() -> None:
    dialled = Dialled()
    line = dialled.add(A, HERE, b"us")
    assert line.waiting is not None
    line.waiting.append((b"early", True))
    dialled.ended(HERE, 1.0)  # Refused: nothing has left.
    (again,) = dialled.due(dialled.next_due)
    assert again.waiting == [(b"early", True)]
    assert dialled.stands(HERE) == [(line, [(b"early", True)], False)]
    assert line.waiting is None
    assert dialled.stands(HERE) == [], "it stands already"
    dialled.check()


def test_a_line_that_stood_is_dialled_again_at_once_and_tells_of_a_loss() -> None:
    dialled = Dialled()
    line = dialled.add(A, HERE, b"us")
    dialled.stands(HERE)
    assert dialled.ended(HERE, 5.0) == [line]
    assert dialled.next_due == 5.0 + AGAIN_S
    assert dialled.due(5.0) == []
    dialled.due(5.0 + AGAIN_S)
    dialled.ended(HERE, 6.0)  # Refused this time: the loss is still to be told of.
    dialled.due(dialled.next_due)
    assert dialled.stands(HERE) == [(line, [], True)]
    dialled.ended(HERE, 7.0)
    assert dialled.next_due == 7.0 + AGAIN_S, "what was refused before counts no more"


@pytest.mark.parametrize(("stood", "limit_s"), [(False, REFUSED_MAX_S), (True, STOOD_MAX_S)])
def test_refusals_come_ever_more_slowly_up_to_a_limit(stood: bool, limit_s: float) -> None:
    dialled, now = Dialled(), 0.0
    dialled.add(A, HERE, b"us")
    if stood:
        dialled.stands(HERE)
        dialled.ended(HERE, now)
        now = dialled.next_due
        dialled.due(now)
    waits = []
    for _ in range(2000):
        dialled.ended(HERE, now)
        waits.append(dialled.next_due - now)
        now = dialled.next_due
        dialled.due(now)
    assert waits[:3] == pytest.approx([min(REFUSED_S * 2**step, limit_s) for step in range(3)])
    assert waits[5:] == pytest.approx([limit_s] * 1995)


def test_all_who_were_dialled_at_one_endpoint_end_together() -> None:
    dialled = Dialled()
    dead, alive, other = (
        dialled.add(p, e, b"us") for p, e in ((A, HERE), (B, HERE), (b"c", THERE))
    )
    dialled.stands(THERE)
    assert dialled.ended(HERE, 0.0) == [dead, alive]
    assert other.name == b"c"
    assert dialled.remove(A) is dead
    assert dialled.due(1.0) == [alive]
    assert dialled.next_due == NEVER
    dialled.check()


@pytest.mark.parametrize("endpoint", [HERE, "ipc:///run/a"])
def test_a_door_that_closes_dials_nobody_who_is_dialled_already(endpoint: str) -> None:
    dialled = Dialled()
    line = dialled.add(A, endpoint, b"us")
    assert dialled.due(NEVER) == [], "a second connection, and the first would end unread"
    dialled.moved(A, THERE, 5.0)
    assert dialled.due(NEVER) == [line]
    assert dialled.due(NEVER) == []


def test_unix_sockets_are_left_to_libzmq() -> None:
    dialled = Dialled()
    line = dialled.add(A, "ipc:///tmp/x", b"us")
    assert line.waiting is None
    assert dialled.ended("ipc:///tmp/x", 0.0) == []
    assert dialled.stands("ipc:///tmp/x") == []
    assert (line.name, dialled.next_due) == (A, NEVER)


@pytest.mark.parametrize("endpoint", [HERE, "ipc:///tmp/x"])
def test_who_listens_elsewhere_by_now_is_dialled_there(endpoint: str) -> None:
    dialled = Dialled()
    line = dialled.add(A, endpoint, b"us")
    dialled.stands(endpoint)
    dialled.moved(A, THERE, 3.0)
    assert dialled.due(3.0) == [line]
    assert line.endpoint == THERE
    assert dialled.ended(endpoint, 4.0) == [], "that was the former one"
    assert dialled.stands(THERE) == [(line, [], True)]
    dialled.check()


def test_nobody_is_dialled_twice() -> None:
    dialled = Dialled()
    dialled.add(A, HERE, b"us")
    with pytest.raises(ValueError, match="already"):
        dialled.add(A, THERE, b"us")
    assert dialled.remove(B) is None
    dialled.check()


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_events_leaves_every_line_dialled_or_to_be(seed: int) -> None:
    chance, dialled, now = random.Random(seed), Dialled(), 0.0
    for step in range(300):
        now += chance.choice((0.0, 0.01, 0.3))
        process_id = b"%d" % chance.randrange(8)
        endpoint = chance.choice((HERE, THERE))
        match chance.randrange(5):
            case 0 if process_id not in dialled:
                dialled.add(process_id, endpoint, b"us")
            case 1:
                dialled.ended(endpoint, now)
            case 2:
                dialled.stands(endpoint)
            case 3 if step % 7 == 0:
                dialled.remove(process_id)
            case 4 if process_id in dialled and step % 5 == 0:
                dialled.moved(process_id, endpoint, now)
            case _:
                dialled.due(now)
        dialled.check()


@pytest.mark.parametrize(
    ("dialled", "told", "same"),
    [
        (HERE, HERE, True),
        (HERE, THERE, False),
        (HERE, "tcp://127.0.0.2:1000", False),
        ("tcp://head.example:1000", "tcp://head.example:1000", True),
        ("tcp://head.example:1000", "tcp://10.0.0.7:1000", True),
        ("tcp://head.example:1000", "tcp://10.0.0.7:2000", False),
        ("tcp://[0:0::1]:1000", "tcp://[::1]:1000", True),
        ("tcp://[::1]:1000", "tcp://[::2]:1000", False),
        ("tcp://[fe80::1%eth0]:1000", "tcp://[fe80::1]:1000", True),
        (HERE, "ipc:///tmp/x", False),
    ],
)
def test_endpoints_are_known_by_whatever_name(dialled: str, told: str, same: bool) -> None:
    assert is_same_endpoint(dialled, told) is same
