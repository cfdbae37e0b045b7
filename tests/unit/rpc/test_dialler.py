"""How long a loop may wait for the next dialling."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import zmq

from mray.rpc.dialler import Dialler
from mray.rpc.keys import Keys

PEER = b"a" * 28
#: Where nobody listens: it may be dialled all the same.
NOBODY = "ipc:///tmp/nobody-listens-here"
#: Looks like an address, and libzmq takes it for none.
NOWHERE = "tcp://a host:1"


@pytest.fixture
def dialler() -> Iterator[Dialler]:
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.set(zmq.LINGER, 0)
        made = Dialler(context, router, zmq.Poller(), Keys.from_token("t" * 32))
        made.lines.add(PEER, NOBODY, b"us")
        yield made
        router.set(zmq.LINGER, 0)
        made.close()


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


def test_what_is_no_address_is_refused_and_forgotten(dialler: Dialler) -> None:
    for endpoint in (NOWHERE, "tcp://host"):
        with pytest.raises(ValueError, match="is no address"):
            dialler.dial(b"b" * 28, endpoint, b"us")
        assert b"b" * 28 not in dialler.lines
    dialler.lines.check()


def test_a_loop_goes_on_whose_peer_has_moved_to_what_is_no_address(dialler: Dialler) -> None:
    dialler.redial(PEER, NOWHERE)
    dialler.lines.add(b"b" * 28, NOBODY, b"us")
    dialler.lines.moved(b"b" * 28, NOBODY, 0.0)
    wait_s = dialler.dial_due(None)
    dialler.lines.check()
    assert wait_s is not None
    assert dialler.lines.get(b"b" * 28).name, "the others are dialled"  # type: ignore[union-attr]
    dialler.redial(PEER, "tcp://127.0.0.1:1")
    dialler.dial_due(None)
    assert dialler.lines.get(PEER).name  # type: ignore[union-attr]
