"""An owner that cannot give a place up at once does so when its last buffer dies, unasked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mray.units import MIB
from mray.wire.messages import PlacesGivenUp

ME = b"m" * 28
X = b"x" * 28


def test_a_refused_place_is_given_up_when_the_last_buffer_dies(node: Any) -> None:
    later: list[Callable[[], None]] = []
    client = node.client(ME, schedule=later.append)
    client.put(X, ME, MIB, lambda view: None, adopt=True)
    view = client.get(X)
    assert client.give_up([X]) == []
    assert node.told(PlacesGivenUp) == []
    del view
    for call in later:
        call()
    assert node.told(PlacesGivenUp) == [PlacesGivenUp(0, [X])]


def test_a_place_that_is_read_again_meanwhile_is_kept(node: Any) -> None:
    later: list[Callable[[], None]] = []
    client = node.client(ME, schedule=later.append)
    client.put(X, ME, MIB, lambda view: None, adopt=True)
    view = client.get(X)
    client.give_up([X])
    del view
    again = client.get(X)
    for call in later:
        call()
    assert node.told(PlacesGivenUp) == []
    del again
    for call in later:
        call()
    assert node.told(PlacesGivenUp) == [PlacesGivenUp(0, [X])]
