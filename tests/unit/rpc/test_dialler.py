"""How long a loop may wait for the next dialling."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import zmq

from mray.rpc.dialler import Dialler

PEER = b"a" * 28
#: Where nobody listens: it may be dialled all the same.
NOBODY = "ipc:///tmp/nobody-listens-here"


@pytest.fixture
def dialler() -> Iterator[Dialler]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.LINGER, 0)
        made = Dialler(context, router, zmq.Poller(), None)
        made.lines.add(PEER, NOBODY, b"us")
        yield made


def test_a_loop_without_a_limit_has_none_when_nothing_is_left_to_dial(dialler: Dialler) -> None:
    dialler.lines.moved(PEER, NOBODY, 0.0)
    assert dialler.dial_due(None) is None
    assert dialler.dial_due(3.0) == 3.0


def test_a_loop_waits_no_longer_than_until_the_next_is_due(dialler: Dialler) -> None:
    dialler.lines.moved(PEER, NOBODY, time.monotonic() + 1000)
    wait_s = dialler.dial_due(None)
    assert wait_s is not None
    assert 900 < wait_s < 1100
    assert dialler.dial_due(3.0) == 3.0
