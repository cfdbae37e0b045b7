"""What testing_rpc_failure and testing_asio_delay_us say: texts to rules, checked by name.

Ray's formats with mray's messages as methods, and "*" for every one that is not named. Knows no
socket: chaos.py carries them out.
"""

from __future__ import annotations

import json
from typing import Any, Final, get_args

import msgspec

from mray.wire import messages

#: Every message, by name.
METHODS: Final[dict[str, Any]] = {kind.__name__: kind for kind in get_args(messages.AnyMessage)}
ANY_METHOD: Final = "*"
#: Longer delays than this are no delays: processes would be taken for dead.
_DELAY_US_MAX: Final = 60_000_000


class FailureRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How often one method fails in one process. Probabilities are in percent."""

    #: In all; -1: for ever.
    num_failures: int = 0
    req_failure_prob: float = 0.0
    resp_failure_prob: float = 0.0
    in_flight_failure_prob: float = 0.0
    #: So many of each fail first, whatever the probabilities; they count as failures too.
    num_lower_bound_req_failures: int = 0
    num_lower_bound_resp_failures: int = 0
    num_lower_bound_in_flight_failures: int = 0

    def __post_init__(self) -> None:
        shares = (self.req_failure_prob, self.resp_failure_prob, self.in_flight_failure_prob)
        if not all(0 <= share <= 100 for share in shares) or sum(shares) > 100:
            raise ValueError("probabilities are percentages whose sum is at most 100")
        if self.num_failures < -1 or min(self.lower_bounds) < 0:
            raise ValueError("counts of failures are at least 0; num_failures may be -1: no end")
        if self.num_failures >= 0 and sum(self.lower_bounds) > self.num_failures:
            raise ValueError("num_failures is less than the sum of the lower bounds")

    @property
    def lower_bounds(self) -> tuple[int, int, int]:
        """Of requests, of replies, in flight."""
        return (
            self.num_lower_bound_req_failures,
            self.num_lower_bound_resp_failures,
            self.num_lower_bound_in_flight_failures,
        )


def parse_failures(text: str) -> dict[str, FailureRule]:
    """Rules by method, "*" last in line. ValueError says what is wrong with ``text``."""
    if not text.strip():
        return {}
    try:
        rules = json.loads(text)
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error})") from error
    if not isinstance(rules, dict):
        raise ValueError('it is no JSON object: expected {"Method": {"num_failures": 3, ...}}')
    found = {}
    for name, rule in rules.items():
        _check_method(name)
        try:
            found[name] = msgspec.convert(rule, FailureRule)
        except msgspec.ValidationError as error:
            keys = ", ".join(FailureRule.__struct_fields__)
            raise ValueError(f"the rule of {name}: {error} (keys are {keys})") from error
    return found


def parse_delays(text: str) -> dict[str, tuple[int, int]]:
    """Least and greatest delay in microseconds, by method. ValueError says what is wrong."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, bounds = part.partition("=")
        least, _, most = bounds.partition(":")
        _check_method(name)
        if not (least.isascii() and least.isdecimal() and most.isascii() and most.isdecimal()):
            raise ValueError(f"{part!r} is no Method=min:max, in whole microseconds")
        if not int(least) <= int(most) <= _DELAY_US_MAX:
            raise ValueError(
                f"{part!r}: the least delay is above the greatest, or that above {_DELAY_US_MAX} us"
            )
        found[name] = (int(least), int(most))
    return found


def _check_method(name: str) -> None:
    if name == ANY_METHOD or name in METHODS:
        return
    import difflib  # Only after a mistake.

    near = difflib.get_close_matches(name, METHODS, n=3, cutoff=0.5)
    near += [method for method in METHODS if name and name.lower() in method.lower()]
    hint = f"did you mean {', '.join(dict.fromkeys(near))}?" if near else "it has other names"
    raise ValueError(f"mray has no message {name!r}: {hint} (core/wire/messages.py; or '*')")
