"""The actor table against a world of nodes and workers, with messages overtaking each other.

The world does what nodes promise: StartActor leads to ActorStarted by the worker, or to
ActorStartFailed; the end of a worker is told by ProcessDied, also after StopActor. Messages of one
sender stay in order; those of different senders come in any.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.node.head.actors import ActorTable
from mray.node.head.events import Effect, From, NodeLost, NodeUp, Send, Tick
from mray.wire.messages import (
    ActorList,
    ActorOutOfScope,
    ActorSpec,
    ActorStarted,
    ActorStartFailed,
    ActorState,
    Address,
    DeathCause,
    KillActor,
    ListActors,
    Message,
    NodeInfo,
    ProcessDied,
    RegisterActor,
    StartActor,
    StopActor,
    WatchActor,
)

OWNERS = [Address(bytes([111, number]) * 14, b"none" * 7) for number in range(3)]
WATCHER = b"w" * 28
CRASH = DeathCause("signal", signal=9)
Key = tuple[bytes, int]


class ActorsInAWorld(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.table = ActorTable()
        self.now = 0.0
        self.count = 0
        self.specs: dict[bytes, ActorSpec] = {}
        #: Told to start, no worker yet; running. Value: the node, and the worker.
        self.starting: dict[Key, bytes] = {}
        self.running: dict[Key, Address] = {}
        #: Per sender, what was sent and not yet delivered.
        self.mail: dict[bytes, list[Message]] = {}
        self.nodes: list[bytes] = []
        self.seen: dict[bytes, ActorState] = {}
        self.node_joins(2)

    # -- the world

    def feed(self, event: object) -> None:
        effects = self.table.handle(event, self.now)  # type: ignore[arg-type]
        for effect in effects:
            self.carry_out(effect)

    def carry_out(self, effect: Effect) -> None:
        if not isinstance(effect, Send):
            return
        message = effect.message
        if isinstance(message, StartActor):
            actor_id = message.spec.actor_id
            key = (actor_id, message.incarnation)
            others = [k for k in (*self.starting, *self.running) if k[0] == actor_id]
            assert not others, "a new incarnation while the former one lives"
            if effect.to in self.nodes:
                self.starting[key] = effect.to
        elif isinstance(message, StopActor):
            key = (message.actor_id, message.incarnation)
            node_id = self.starting.pop(key, None)
            if node_id is not None:
                self.post(node_id, ActorStartFailed(*key, message.cause))
            elif key in self.running and self.running[key].node_id == effect.to:
                kind = "killed" if message.force else "intended"
                self.end_worker(key, DeathCause(kind))
        elif isinstance(message, ActorState):
            former = self.seen.get(message.actor_id)
            assert former is None or former.state != "DEAD", "told after the end"
            assert former is None or message.incarnation >= former.incarnation
            self.seen[message.actor_id] = message

    def post(self, sender: bytes, message: Message) -> None:
        self.mail.setdefault(sender, []).append(message)

    def end_worker(self, key: Key, cause: DeathCause) -> None:
        worker = self.running.pop(key)
        died = ProcessDied(worker.process_id, "worker", b"job1", cause)
        self.post(worker.node_id, died)

    # -- what may happen

    @rule(cpus=st.integers(1, 3))
    def node_joins(self, cpus: int) -> None:
        self.count += 1
        node_id = self.count.to_bytes(28, "big")
        self.nodes.append(node_id)
        address = Address(node_id, node_id)
        resources = {"CPU": cpus * 10_000}
        self.feed(
            NodeUp(
                NodeInfo(node_id, address, "", "", 1, resources, {}, "", "", "", 0, False, "1", "3")
            )
        )

    @precondition(lambda self: len(self.nodes) > 1 and self.count % 3 == 0)
    @rule(data=st.data())
    def node_dies(self, data: st.DataObject) -> None:
        node_id = data.draw(st.sampled_from(self.nodes))
        self.nodes.remove(node_id)
        self.starting = {k: n for k, n in self.starting.items() if n != node_id}
        self.running = {k: w for k, w in self.running.items() if w.node_id != node_id}
        self.mail.pop(node_id, None)
        self.feed(NodeLost(node_id, DeathCause("node_died")))

    @rule(
        owner=st.sampled_from(OWNERS),
        restarts=st.sampled_from([0, 1, 3, -1]),
        cpus=st.integers(0, 3),
        detached=st.booleans(),
    )
    def register(self, owner: Address, restarts: int, cpus: int, detached: bool) -> None:
        self.count += 1
        spec = ActorSpec(
            self.count.to_bytes(16, "big"), b"job1", owner, b"", "C", b"", b"", [], None, None,
            {}, {"CPU": cpus * 10_000}, restarts, 0, 1, detached=detached,
        )  # fmt: skip
        self.specs[spec.actor_id] = spec
        self.feed(From(WATCHER, WatchActor(spec.actor_id)))
        self.feed(From(owner.process_id, RegisterActor(1, spec)))

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), outcome=st.sampled_from(["runs", "fails", "raises"]))
    def start_ends(self, data: st.DataObject, outcome: str) -> None:
        key = data.draw(st.sampled_from(list(self.starting)))
        node_id = self.starting.pop(key)
        if outcome == "fails":
            self.post(node_id, ActorStartFailed(*key, CRASH))
            return
        self.count += 1
        worker = Address(self.count.to_bytes(28, "little"), node_id)
        self.running[key] = worker
        error = b"error" if outcome == "raises" else b""
        self.post(worker.process_id, ActorStarted(*key, worker, 1, error))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        self.end_worker(data.draw(st.sampled_from(list(self.running))), CRASH)

    @precondition(lambda self: self.mail)
    @rule(data=st.data())
    def mail_comes(self, data: st.DataObject) -> None:
        self.deliver(data.draw(st.sampled_from(list(self.mail))))

    def deliver(self, sender: bytes) -> None:
        message = self.mail[sender].pop(0)
        if not self.mail[sender]:
            del self.mail[sender]
        self.feed(From(sender, message))

    @precondition(lambda self: self.specs)
    @rule(data=st.data(), what=st.sampled_from(["kill", "restart", "out of scope"]))
    def somebody_acts(self, data: st.DataObject, what: str) -> None:
        actor_id = data.draw(st.sampled_from(list(self.specs)))
        if what == "out of scope":
            self.feed(From(self.specs[actor_id].owner.process_id, ActorOutOfScope(actor_id)))
        else:
            self.feed(From(WATCHER, KillActor(1, actor_id, no_restart=what == "kill")))

    @precondition(lambda self: self.count % 5 == 4)
    @rule(owner=st.sampled_from(OWNERS))
    def owner_dies(self, owner: Address) -> None:
        self.feed(From(b"node", ProcessDied(owner.process_id, "driver", b"job1", CRASH)))

    @rule(passed_s=st.sampled_from([0.1, 1.0, 40.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now += passed_s
        self.feed(Tick())

    # -- what must hold

    @invariant()
    def holds(self) -> None:
        self.table.check()

    def teardown(self) -> None:
        """When all is delivered and every start succeeds, nobody is left in between."""
        if self.nodes:
            self.node_joins(3)
        for _ in range(400):
            for key in list(self.starting):
                node_id = self.starting.pop(key)
                self.count += 1
                worker = Address(self.count.to_bytes(28, "little"), node_id)
                self.running[key] = worker
                self.post(worker.process_id, ActorStarted(*key, worker, 1))
            if not self.mail and not self.starting and self.table.deadline() is None:
                break
            for sender in list(self.mail):
                self.deliver(sender)
            self.now += 1.0
            self.feed(Tick())
        else:
            raise AssertionError("the table never comes to rest")
        (effect,) = self.table.handle(From(WATCHER, ListActors(1)), self.now)
        assert isinstance(effect, Send)
        assert isinstance(effect.message, ActorList)
        alive = {}
        for actor in effect.message.actors:
            assert self.seen[actor.actor_id].state == actor.state
            if actor.state == "ALIVE":
                alive[actor.actor_id, actor.incarnation] = actor.worker
            elif actor.state != "DEAD":
                assert actor.reason, actor
        assert alive == self.running


ActorsInAWorld.TestCase.settings = settings(
    max_examples=300, stateful_step_count=50, deadline=None, derandomize=True
)
TestActorsInAWorld = ActorsInAWorld.TestCase
