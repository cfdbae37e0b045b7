"""What commands say while a cluster's head is away: its node daemon here knows since when."""

from __future__ import annotations

from mray.cli.failure import Failure
from mray.rpc.client import AskError, Client
from mray.session import Session
from mray.units import format_duration
from mray.wire.messages import GetHeadState, HeadState

_TIMEOUT_S = 2.0


class HeadIsAway(Failure):
    """The cluster's nodes run, its head does not. ``away_s``: how long; ``wait_s``: how much
    longer they wait for it."""

    def __init__(self, text: str, away_s: float, wait_s: float) -> None:
        super().__init__(text)
        self.away_s = away_s
        self.wait_s = wait_s


def refuse_if_away(session: Session) -> None:
    """Raise HeadIsAway where a session of this machine is without its head."""
    if not session.headless():
        return
    state = _ask(session)
    if state is None or not state.away:
        raise HeadIsAway(
            f"the head of {session.name} has just ended; `mray start --head` starts it again", 0, 0
        )
    raise HeadIsAway(
        f"the head of {session.name} is away, for {format_duration(state.away_s)} now: {state.text}"
        f"; tasks and actors go on, and its nodes wait {format_duration(state.wait_s)} more for it;"
        " `mray start --head` starts it again, `mray stop` ends the rest",
        state.away_s,
        state.wait_s,
    )


def _ask(session: Session) -> HeadState | None:
    for node in session.info().nodes:
        with Client() as client:
            try:
                peer = client.reach(f"ipc://{node.ipc}")
                return client.ask(peer, GetHeadState, HeadState, _TIMEOUT_S)
            except AskError:
                continue  # Perhaps another daemon of the session lives.
    return None
