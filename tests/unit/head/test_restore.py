"""What machines want stored is what they know, after any events; a head begins anew with that."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import pytest

from mray.node.head.events import (
    Effect,
    Fence,
    From,
    GroupEnded,
    GroupPlaced,
    JobEnded,
    NodeLost,
    NodeUp,
    Persist,
    RoomSeen,
    Send,
    Tick,
)
from mray.node.head.jobs import JobTable, StopPolicy
from mray.node.head.kv import KeyValues
from mray.node.head.membership import DEAD_NODES_MAX, Membership, Silence
from mray.node.head.placement_groups import GroupTable
from mray.resources import to_fixed
from mray.wire.messages import (
    Address,
    BundlesReserved,
    CommitBundles,
    CreatePlacementGroup,
    DeathCause,
    FinishJob,
    GetNodes,
    GroupSpec,
    Heartbeat,
    JobExited,
    JobGone,
    JobStarted,
    KvDelete,
    KvGet,
    KvPut,
    KvValue,
    NodeContents,
    NodeGone,
    NodeInfo,
    NodeJoined,
    NodeRegistered,
    Nodes,
    PlacementGroupState,
    ProcessDied,
    Refused,
    RegisterAgain,
    RegisterJob,
    RegisterNode,
    RemovePlacementGroup,
    ReserveBundles,
    ReturnBundles,
    RunningBundle,
    StartJob,
    StopJob,
    SubmitJob,
)

NODES = [bytes([65 + number]) * 28 for number in range(3)]
A, B, C = NODES
CRASH = DeathCause("signal", signal=9)
NOTHING = NodeContents([], [], [], [], [])
Rows = dict[str, dict[bytes, bytes]]
SEEDS = range(30)


def info(node_id: bytes, cpus: float = 4) -> NodeInfo:
    return NodeInfo(
        node_id, Address(node_id, node_id), "ip", "host", 1, to_fixed({"CPU": cpus}), {}, "", "",
        "", 0, node_id == A, "1", "3",
    )  # fmt: skip


class Kept:
    """A machine and the storage that it writes."""

    def __init__(self, machine: Any, tables: Iterable[str]) -> None:
        self.machine = machine
        self.stored: Rows = {table: {} for table in tables}
        self.now = 0.0

    def feed(self, event: object) -> list[Effect]:
        effects: list[Effect] = self.machine.handle(event, self.now)
        for effect in effects:
            if isinstance(effect, Persist):
                if effect.value is None:
                    self.stored[effect.table].pop(effect.key, None)
                else:
                    self.stored[effect.table][effect.key] = effect.value
        self.machine.check()
        return [effect for effect in effects if not isinstance(effect, Persist)]

    def say(self, sender: bytes, message: Any) -> list[Effect]:
        return self.feed(From(sender, message))


def job_table() -> JobTable:
    policy = StopPolicy(signal=15, wait_s=3)
    return JobTable(stop=policy, unix_offset_s=1_000_000.25, kept=True)


def register(driver: bytes, node_id: bytes, submission_id: str = "") -> RegisterJob:
    return RegisterJob(1, Address(driver, node_id), 42, "x.py", "space", submission_id)


def submit(name: str) -> SubmitJob:
    return SubmitJob(1, name, ["python", "x.py"], "python x.py", b"", {}, "/w", {})


@pytest.mark.parametrize("seed", SEEDS)
def test_jobs_are_stored_as_they_are(seed: int) -> None:
    rng = random.Random(seed)
    kept = Kept(job_table(), ["jobs", "submissions"])
    drivers = [bytes([100 + number]) * 28 for number in range(6)]
    names = ["raysubmit_1", "raysubmit_2", "raysubmit_3"]
    kept.feed(NodeUp(info(A)))
    for _ in range(60):
        kept.now += rng.random()
        driver, name, node_id = rng.choice(drivers), rng.choice(names), rng.choice(NODES)
        event: object = rng.choice([
            From(driver, register(driver, node_id, rng.choice(["", name]))),
            From(driver, FinishJob(1, rng.randrange(1, 6).to_bytes(4, "little"))),
            From(A, ProcessDied(driver, "driver", b"", CRASH)),
            From(b"cli", submit(name)),
            From(A, JobStarted(name, 7)),
            From(A, JobExited(name, DeathCause("exit", exit_code=rng.choice([0, 1])))),
            From(b"cli", StopJob(1, name)),
            NodeLost(node_id, CRASH),
            NodeUp(info(A), rng.choice([None, NOTHING])),
        ])  # fmt: skip
        kept.feed(event)
        assert kept.machine.rows() == kept.stored
        again = job_table()
        again.restore(kept.stored["jobs"], kept.stored["submissions"])
        again.check()
        assert again.rows() == kept.stored
        if rng.random() < 0.1:
            kept.machine = again


def test_a_node_that_is_back_tells_which_drivers_and_submissions_live() -> None:
    kept = Kept(job_table(), ["jobs", "submissions"])
    kept.feed(NodeUp(info(A)))
    kept.say(b"d" * 28, register(b"d" * 28, A))
    kept.say(b"e" * 28, register(b"e" * 28, A))
    for name in ("runs", "ended", "never came"):
        kept.say(b"cli", submit(name))
    for name in ("runs", "ended"):
        kept.say(A, JobStarted(name, 7))
    again = job_table()
    again.restore(kept.stored["jobs"], kept.stored["submissions"])
    kept.machine = again
    jobs = [number.to_bytes(4, "little") for number in (1, 2, 9)]
    contents = NodeContents([], [], [b"d" * 28], jobs, [("runs", 7)])
    effects = kept.feed(NodeUp(info(A), contents))
    assert JobEnded(jobs[1]) in effects
    assert JobEnded(jobs[0]) not in effects
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    assert [m.submission_id for m in sent if isinstance(m, StartJob)] == ["never came"]
    assert [m.job_id for m in sent if isinstance(m, JobGone)] == [jobs[1], jobs[2]]
    states = {one.submission_id: one.status for one in again._details("")}
    assert states["runs"] == "RUNNING"
    assert states["ended"] == "FAILED"


def test_a_driver_that_came_after_the_head_is_not_missed() -> None:
    kept = Kept(job_table(), ["jobs", "submissions"])
    kept.say(b"d" * 28, register(b"d" * 28, A))
    effects = kept.feed(NodeUp(info(A), NOTHING))
    assert not any(isinstance(effect, JobEnded) for effect in effects)


@pytest.mark.parametrize("seed", SEEDS)
def test_keys_are_stored_as_they_are(seed: int) -> None:
    rng = random.Random(seed)
    kept = Kept(KeyValues(bytes_max=200, kept=True), ["kv"])
    for _ in range(60):
        space, key = rng.choice(["a", "b"]), rng.choice([b"k1", b"k2", b"q"])
        message: Any = rng.choice([
            KvPut(1, space, key, rng.randbytes(rng.randrange(60)), rng.random() < 0.7),
            KvDelete(1, space, key[:1], prefix=True), KvDelete(1, space, key),
        ])  # fmt: skip
        kept.say(b"p", message)
        assert kept.machine.rows() == kept.stored["kv"]
    again = KeyValues(bytes_max=200, kept=True)
    again.restore(kept.stored["kv"])
    again.check()
    assert again.rows() == kept.stored["kv"]


def test_a_stored_key_is_read_again() -> None:
    kept = Kept(KeyValues(kept=True), ["kv"])
    kept.say(b"p", KvPut(1, "space", b"key", b"value"))
    again = KeyValues(kept=True)
    again.restore(kept.stored["kv"])
    assert again.handle(From(b"p", KvGet(2, "space", b"key")), 0.0) == [
        Send(b"p", KvValue(2, b"value"))
    ]


def group(number: int, *cpus: float, name: str = "", strategy: str = "PACK") -> GroupSpec:
    bundles = [to_fixed({"CPU": cpu}) for cpu in cpus]
    maker = Address(b"maker", A)
    return GroupSpec(bytes([number]) * 18, b"job1", maker, strategy, bundles, name, "space")


def orders(effects: list[Effect]) -> list[tuple[bytes, ReserveBundles]]:
    sends = [(effect.to, effect.message) for effect in effects if isinstance(effect, Send)]
    return [(to, message) for to, message in sends if isinstance(message, ReserveBundles)]


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_are_stored_as_they_are(seed: int) -> None:
    rng = random.Random(seed)
    kept = Kept(GroupTable(kept=True), ["groups"])
    reserved: list[tuple[bytes, ReserveBundles]] = []
    up = list(NODES)
    for node_id in NODES:
        kept.feed(NodeUp(info(node_id)))
    for _ in range(60):
        kept.now += rng.choice([0.1, 1.0, 10.0])
        number, node_id = rng.randrange(6), rng.choice(NODES)
        strategy = rng.choice(["PACK", "SPREAD", "STRICT_SPREAD"])
        name = rng.choice(["", f"g{number}"])
        new = group(number, *rng.choices([1, 3], k=rng.randrange(1, 4)), name=name,
                    strategy=strategy)  # fmt: skip
        events: list[object] = [
            From(b"maker", CreatePlacementGroup(1, new)),
            From(b"maker", RemovePlacementGroup(1, new.group_id)),
            RoomSeen(node_id, to_fixed({"CPU": 4})), Tick(), JobEnded(b"job1"),
        ]  # fmt: skip
        if reserved:
            node, order = reserved.pop(rng.randrange(len(reserved)))
            events += 4 * [From(node, BundlesReserved(order.group_id, order.attempt))]
        if len(up) > 1 and rng.random() < 0.1:
            events = [NodeLost(up.pop(), CRASH)]
        reserved += orders(kept.feed(rng.choice(events)))
        assert kept.machine.rows() == kept.stored["groups"]
        again = GroupTable(kept=True)
        again.restore(kept.stored["groups"], kept.now)
        again.check()
        assert again.rows() == kept.stored["groups"]


def created(kept: Kept, spec: GroupSpec) -> None:
    for effect in kept.say(b"maker", CreatePlacementGroup(1, spec)):
        if isinstance(effect, Send) and isinstance(effect.message, ReserveBundles):
            kept.say(effect.to, BundlesReserved(spec.group_id, effect.message.attempt))


def restored_groups(kept: Kept) -> list[Effect]:
    kept.machine = GroupTable(kept=True)
    return kept.machine.restore(kept.stored["groups"], kept.now)


def test_a_created_group_is_where_it_was_and_removed_ones_are_ended() -> None:
    kept = Kept(GroupTable(kept=True), ["groups"])
    kept.feed(NodeUp(info(A)))
    created(kept, group(1, 1, 1, name="mine"))
    created(kept, group(2, 1))
    kept.say(b"maker", RemovePlacementGroup(1, bytes([2]) * 18))
    effects = restored_groups(kept)
    assert effects == [GroupPlaced(bytes([1]) * 18, [A, A]), GroupEnded(bytes([2]) * 18)]
    contents = NodeContents(
        [], [RunningBundle(bytes([1]) * 18, index, 1, True) for index in (0, 1)], [], [], []
    )
    assert kept.feed(NodeUp(info(A), contents)) == []
    (reply,) = kept.say(b"maker", CreatePlacementGroup(5, group(3, 1, name="mine")))
    assert isinstance(reply, Send)
    assert isinstance(reply.message, Refused)


def test_bundles_are_returned_or_committed_as_the_head_wants() -> None:
    kept = Kept(GroupTable(kept=True), ["groups"])
    kept.feed(NodeUp(info(A)))
    created(kept, group(1, 1))
    restored_groups(kept)
    bundles = [
        RunningBundle(bytes([1]) * 18, 0, 1, False), RunningBundle(bytes([9]) * 18, 0, 1, True)
    ]  # fmt: skip
    assert kept.feed(NodeUp(info(A), NodeContents([], bundles, [], [], []))) == [
        Send(A, CommitBundles(bytes([1]) * 18, 1)), Send(A, ReturnBundles(bytes([9]) * 18))
    ]  # fmt: skip


def test_a_bundle_that_its_node_has_no_more_is_placed_again() -> None:
    kept = Kept(GroupTable(kept=True), ["groups"])
    kept.feed(NodeUp(info(A)))
    created(kept, group(1, 1))
    restored_groups(kept)
    effects = kept.feed(NodeUp(info(A), NOTHING))
    (order,) = [e.message for e in effects if isinstance(e, Send)]
    assert isinstance(order, ReserveBundles)
    assert order.attempt == 2
    assert not any(isinstance(e, PlacementGroupState) for e in effects)


def membership(epoch: int = 1) -> Membership:
    return Membership(
        cluster_id="c1", config=b"cfg", head=Address(b"h" * 28, A), now=0.0, epoch=epoch, kept=True,
        silence=Silence(suspect_after_s=3, dead_after_s=10, return_within_s=60),
    )  # fmt: skip


def restarted(kept: Kept, epoch: int = 2) -> None:
    kept.machine = membership(epoch)
    kept.machine.restore(kept.stored["nodes"], kept.now)


def states(kept: Kept) -> dict[bytes, str]:
    (effect,) = kept.say(b"cli", GetNodes(1))
    assert isinstance(effect, Send)
    assert isinstance(effect.message, Nodes)
    return {view.node.node_id: view.state for view in effect.message.nodes}


def beat(node_id: bytes, epoch: int) -> Heartbeat:
    return Heartbeat(node_id, {}, [], 0, 0, epoch=epoch)


def test_nodes_are_expected_until_they_register_again() -> None:
    kept = Kept(membership(), ["nodes"])
    for node_id in NODES:
        kept.say(node_id, RegisterNode(1, info(node_id)))
    kept.say(C, NodeGone(C, CRASH))
    assert kept.machine.rows() == kept.stored["nodes"]
    kept.now = 100.0
    restarted(kept)
    assert kept.machine.rows() == kept.stored["nodes"]
    assert states(kept) == {A: "SUSPECT", B: "SUSPECT", C: "DEAD"}
    assert kept.say(A, beat(A, 1)) == [Send(A, RegisterAgain(2))]
    contents = NodeContents([], [], [b"p"], [], [])
    effects = kept.say(A, RegisterNode(7, info(A), "c1", 1, contents))
    assert NodeUp(info(A), contents) in effects
    assert Send(
        A, NodeRegistered(7, "c1", b"cfg", Address(b"h" * 28, A), [info(B), info(A)], 2)
    ) in (effects)
    assert Send(A, NodeGone(C, CRASH)) in effects
    assert any(getattr(e, "message", None) == NodeJoined(info(A)) for e in effects)
    assert states(kept) == {A: "ALIVE", B: "SUSPECT", C: "DEAD"}


def test_a_node_that_does_not_come_back_in_time_is_dead() -> None:
    kept = Kept(membership(), ["nodes"])
    kept.say(A, RegisterNode(1, info(A)))
    restarted(kept)
    assert kept.machine.deadline() == 60.0
    kept.now = 60.0
    assert any(isinstance(effect, NodeLost) for effect in kept.feed(Tick()))
    assert kept.machine.rows() == kept.stored["nodes"]
    (answer, _) = kept.say(A, RegisterNode(1, info(A), "c1", 1, NOTHING))
    assert isinstance(answer, Send)
    assert isinstance(answer.message, Refused)


def test_a_head_that_hears_of_a_newer_one_ends() -> None:
    kept = Kept(membership(), ["nodes"])
    kept.say(A, RegisterNode(1, info(A)))
    (fence,) = kept.say(A, beat(A, 2))
    assert isinstance(fence, Fence)
    (fence,) = kept.say(B, RegisterNode(1, info(B), "c1", 2, NOTHING))
    assert isinstance(fence, Fence)


def test_a_node_of_another_cluster_is_refused_whole() -> None:
    kept = Kept(membership(), ["nodes"])
    contents = NodeContents([], [], [b"p"], [], [])
    effects = kept.say(A, RegisterNode(1, info(A), "another", 7, contents))
    assert isinstance(effects[0], Send)
    assert isinstance(effects[0].message, Refused)
    assert kept.stored["nodes"] == {}


def test_dead_nodes_are_forgotten_in_the_storage_too() -> None:
    kept = Kept(membership(), ["nodes"])
    for number in range(DEAD_NODES_MAX + 3):
        node_id = number.to_bytes(28, "big")
        kept.say(node_id, RegisterNode(1, info(node_id)))
        kept.say(node_id, NodeGone(node_id, CRASH))
    assert len(kept.stored["nodes"]) == DEAD_NODES_MAX
    assert kept.machine.rows() == kept.stored["nodes"]


def test_a_machine_in_memory_wants_nothing_stored() -> None:
    effects = [
        *KeyValues().handle(From(b"p", KvPut(1, "a", b"k", b"v")), 0.0),
        *GroupTable().handle(From(b"p", CreatePlacementGroup(1, group(1, 1))), 0.0),
    ]
    assert not any(isinstance(effect, Persist) for effect in effects)
