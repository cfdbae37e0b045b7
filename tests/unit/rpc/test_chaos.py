"""Faults on purpose: what is lost, what is asked again, and a pump where nothing is set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mray.config import Config, ConfigError, load
from mray.ids import new_process_id
from mray.rpc.chaos import Chaos, install
from mray.rpc.door import Door, Keys
from mray.rpc.fault_rules import FailureRule, parse_delays, parse_failures
from mray.rpc.pump import Pump, RequestFailed
from mray.wire.messages import (
    Ack,
    Address,
    KvGet,
    KvPut,
    KvPutDone,
    KvValue,
    Message,
    Ping,
    StealTasks,
    WorkerBlocked,
)

# -- what the settings say


def test_rules_are_rays_with_the_messages_of_mray() -> None:
    rules = parse_failures(
        '{"KvGet": {"num_failures": 3, "req_failure_prob": 25, "resp_failure_prob": 25.5,'
        ' "in_flight_failure_prob": 10, "num_lower_bound_req_failures": 1},'
        ' "*": {"num_failures": -1, "req_failure_prob": 100}}'
    )
    assert rules == {
        "KvGet": FailureRule(3, 25, 25.5, 10, 1),
        "*": FailureRule(-1, 100),
    }
    assert parse_failures(" ") == {}
    assert parse_delays("KvGet=10:20,*=0:5") == {"KvGet": (10, 20), "*": (0, 5)}
    assert parse_delays("") == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("KvGet=3:25:50", "no JSON"),
        ("[]", "no JSON object"),
        ('{"KvGett": {}}', "did you mean KvGet"),
        ('{"Steal": {}}', "StealTasks"),
        ('{"": {}}', "mray has no message ''"),
        ('{"KvGet": {"num_failure": 1}}', "unknown field `num_failure`"),
        ('{"KvGet": {"req_failure_prob": 60, "resp_failure_prob": 41}}', "at most 100"),
        ('{"KvGet": {"req_failure_prob": NaN}}', "percentages"),
        ('{"KvGet": {"num_failures": -2}}', "num_failures may be -1"),
        ('{"KvGet": {"num_failures": 1, "num_lower_bound_req_failures": 2}}', "sum of the lower"),
        ('{"KvGet": 5}', "the rule of KvGet"),
    ],
)
def test_rules_that_mean_nothing_are_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_failures(text)
    with pytest.raises(ConfigError, match=says) as caught:
        load({}, {"RAY_testing_rpc_failure": text})
    assert caught.value.name == "RAY_testing_rpc_failure"
    assert caught.value.value == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("KvGett=1:2", "did you mean KvGet"),
        ("KvGet", "Method=min:max"),
        ("KvGet=1:x", "Method=min:max"),
        ("KvGet=-1:2", "Method=min:max"),
        ("KvGet=3:2", "above the greatest"),
        ("KvGet=1:99999999999", "above 60000000 us"),
    ],
)
def test_delays_that_mean_nothing_are_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load({}, {"MRAY_TESTING_ASIO_DELAY_US": text})


# -- what happens


class _Pair:
    """Two loops on one clock; the first asks, the second answers and notes what it heard."""

    def __init__(self, folder: Path, tcp: bool) -> None:
        self.now = 100.0
        keys = Keys.from_token("t" * 32)
        self.pumps = [Pump(Door(new_process_id(), keys), clock=lambda: self.now) for _ in range(2)]
        self.asker, self.peer = self.pumps
        self.name = self.peer.door.process_id
        self.heard: list[Message] = []
        self.replies: list[Message] = []
        path, port = str(folder / "b"), 0
        self.peer.door.listen_ipc(path)
        if tcp:
            port = self.peer.door.listen_tcp("127.0.0.1", 0)
        address = Address(self.name, b"", "" if tcp else path, f"127.0.0.1:{port}" if tcp else "")
        self.asker.door.dial(address, b"")
        self.peer.on(KvGet, self._get)
        self.peer.on(StealTasks, lambda sender, message: self.heard.append(message))

    def _get(self, sender: bytes, message: KvGet) -> None:
        self.heard.append(message)
        self.peer.send(sender, KvValue(message.rid, b"%d" % len(self.heard)))

    def suffer(self, failures: str = "", delays: str = "", on: int = 0) -> Chaos:
        return Chaos(self.pumps[on], failures, delays, "seed")

    def ask(self, timeout_s: float = 10.0) -> int:
        return self.asker.request(
            self.name, lambda rid: KvGet(rid, "n", b"k"), self.replies.append, timeout_s
        )

    def turn(self, seconds: float) -> None:
        """Let both loops run while so much time passes."""
        for _ in range(round(seconds / 0.05)):
            self.now += 0.05
            for pump in self.pumps * 2:
                pump.run_once(0.001)


@pytest.fixture(params=["unix", "tcp"])
def pair(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[_Pair]:
    made = _Pair(tmp_path, request.param == "tcp")
    yield made
    for pump in made.pumps:
        pump.door.close()


def _rule(**keys: float) -> str:
    return msgspec.json.encode({"KvGet": keys}).decode()


def test_a_request_that_is_lost_is_asked_again_and_done_once(pair: _Pair) -> None:
    pair.suffer(_rule(num_failures=2, num_lower_bound_req_failures=2))
    pair.ask()
    pair.turn(1.0)
    assert [reply.value for reply in pair.replies if isinstance(reply, KvValue)] == [b"1"]
    assert len(pair.heard) == 1


def test_a_reply_that_is_lost_has_the_peer_asked_again_under_the_same_number(pair: _Pair) -> None:
    chaos = pair.suffer(_rule(num_failures=2, num_lower_bound_resp_failures=2))
    pair.ask()
    pair.turn(1.0)
    assert [reply.value for reply in pair.replies if isinstance(reply, KvValue)] == [b"3"]
    assert len(pair.replies) == 1
    assert len({message.rid for message in pair.heard if isinstance(message, KvGet)}) == 1
    assert chaos.counts == {"KvGet": 2}


def test_in_flight_the_asker_is_told_a_failure_and_the_peer_does_it(pair: _Pair) -> None:
    pair.suffer(_rule(num_failures=1, num_lower_bound_in_flight_failures=1))
    pair.ask()
    pair.turn(1.0)
    (reply,) = pair.replies
    assert isinstance(reply, RequestFailed)
    assert "lost in flight" in reply.text
    assert len(pair.heard) == 1


@pytest.mark.parametrize("how", ["req_failure_prob", "resp_failure_prob"])
def test_who_never_hears_is_told_so_at_its_deadline(pair: _Pair, how: str) -> None:
    pair.suffer(_rule(num_failures=-1, **{how: 100}))
    pair.ask(timeout_s=2.0)
    pair.turn(1.9)
    assert pair.replies == []
    pair.turn(0.5)
    assert [type(reply) for reply in pair.replies] == [RequestFailed]
    count = len(pair.heard)
    pair.turn(2.0)
    assert len(pair.heard) == count
    assert len(pair.replies) == 1


def test_a_request_that_is_forgotten_is_not_asked_again(pair: _Pair) -> None:
    pair.suffer(_rule(num_failures=-1, req_failure_prob=100))
    pair.asker.forget_request(pair.ask())
    pair.turn(1.0)
    assert pair.heard == pair.replies == []


def test_who_asks_a_peer_that_hangs_up_or_is_gone_hears_of_it(pair: _Pair) -> None:
    pair.suffer(_rule(num_failures=-1, req_failure_prob=100))
    pair.ask()
    pair.asker.hang_up(pair.name)
    pair.ask()
    pair.turn(0.2)
    assert [type(reply) for reply in pair.replies] == [RequestFailed] * 2


@pytest.mark.parametrize("pair", ["tcp"], indirect=True)
@pytest.mark.parametrize("how", ["req", "resp", "in_flight"])
def test_links_bring_what_is_lost_doubled_or_damaged_once_and_in_order(
    pair: _Pair, how: str
) -> None:
    rule = {"num_failures": 20, f"{how}_failure_prob": 50}
    chaos = pair.suffer(msgspec.json.encode({"*": rule}).decode())
    for number in range(40):
        pair.asker.send(pair.name, StealTasks(number))
        pair.turn(0.05)
    pair.turn(10.0)
    assert pair.heard == [StealTasks(number) for number in range(40)]
    assert chaos.counts["StealTasks"] > 5


@pytest.mark.parametrize("pair", ["unix"], indirect=True)
def test_over_unix_sockets_only_requests_fail(pair: _Pair) -> None:
    chaos = pair.suffer('{"*": {"num_failures": -1, "req_failure_prob": 100}}')
    pair.asker.send(pair.name, StealTasks(1))
    pair.turn(0.5)
    assert pair.heard == [StealTasks(1)]
    assert chaos.counts == {}


def test_delays_hold_up_all_of_that_sender_and_keep_their_order(pair: _Pair) -> None:
    pair.suffer(delays="KvGet=500000:500000", on=1)
    pair.ask()
    pair.asker.send(pair.name, StealTasks(1))
    pair.turn(0.4)
    assert pair.heard == []
    pair.turn(0.4)
    assert [type(message) for message in pair.heard] == [KvGet, StealTasks]
    assert len(pair.replies) == 1


def test_the_same_seed_makes_the_same_failures(tmp_path: Path) -> None:
    def draw(seed: str) -> list[object]:
        door = Door(new_process_id())
        chaos = Chaos(Pump(door), '{"*": {"num_failures": 50, "req_failure_prob": 30}}', "", seed)
        door.close()
        return [chaos._fault("KvGet") for _ in range(100)]

    assert draw("1 node") == draw("1 node") != draw("2 node")


def test_each_method_has_its_own_counts_and_lower_bounds_come_first(tmp_path: Path) -> None:
    door = Door(new_process_id())
    rule = {
        "num_failures": 3, "num_lower_bound_in_flight_failures": 1,
        "num_lower_bound_req_failures": 1, "resp_failure_prob": 100,
    }  # fmt: skip
    chaos = Chaos(Pump(door), msgspec.json.encode({"*": rule}).decode(), "", "seed")
    door.close()
    for name in ("KvGet", "KvPut"):
        drawn = [chaos._fault(name) for _ in range(5)]
        names = [fault and fault.name for fault in drawn]
        assert names == ["REQUEST", "IN_FLIGHT", "REPLY", None, None]


def test_where_nothing_is_set_the_pump_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    door = Door(new_process_id())
    pump = Pump(door)
    before = dict(vars(pump))
    assert install(pump, Config(), "node") is pump
    assert vars(pump) == before
    assert "send" not in vars(door)
    assert not caplog.records
    config = load({}, {"RAY_testing_rpc_failure": '{"*": {}}'}).config
    install(pump, config, "node")
    door.close()
    assert "on purpose" in caplog.text
    assert "testing_rpc_seed=" in caplog.text


def test_rules_may_name_any_message() -> None:
    for kind in (Ack, Ping, KvPut, KvPutDone, WorkerBlocked):
        assert parse_failures(msgspec.json.encode({kind.__name__: {}}).decode())
