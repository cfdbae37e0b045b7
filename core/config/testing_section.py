"""The settings that make faults on purpose: for tests of mray, and of programs that run on it.

No `from __future__ import annotations` here: registry.py reads the annotations as objects.
"""

from typing import Annotated, Final

from msgspec import Meta

from mray.config.key import Key, Section

_SEED_MAX: Final = 2**63 - 1

# fmt: off


class Testing(Section, frozen=True):
    """Messages that are lost or late on purpose: what that means is told in core/rpc/chaos.py."""

    testing_rpc_failure: Annotated[str, Key(
        "The messages to lose, as Ray's JSON with mray's messages (or *) as methods; empty: none.",
        'Set it to test a program: {"KvGet": {"num_failures": 3, "req_failure_prob": 50}}.',
        scope="cluster", ray=("RAY_testing_rpc_failure",), problem="rpc_failure",
    )] = ""
    testing_asio_delay_us: Annotated[str, Key(
        "How long messages wait before they are handled: Method=min:max, in microseconds, or *=...",
        "Set it to see a program stand slow processes: KvGet=1000:20000,PushTasks=0:500.",
        scope="cluster", ray=("RAY_testing_asio_delay_us",), problem="asio_delay_us",
    )] = ""
    testing_rpc_seed: Annotated[int, Meta(ge=0, le=_SEED_MAX), Key(
        "What the two above draw by; 0: drawn, and told in the logs.",
        "Set it to the one of a log to have the same failures again.",
        scope="cluster",
    )] = 0


# fmt: on
