"""The head dies in the middle of everything: what is stored is what it knew, and enough to go on.

The world of test_actors_model.py; what the table wants persisted goes to a store. A new table is
made of that, its nodes register again with what they have, and whatever was under way is lost.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from mray.node.head.actors import ActorTable
from mray.node.head.events import Effect, From, NodeUp, Persist, Send
from mray.wire.messages import (
    ActorStarted,
    ActorState,
    NodeContents,
    NodeInfo,
    RunningActor,
    StartActor,
    WatchActor,
)

from .test_actors_model import WATCHER, ActorsInAWorld

Stored = dict[str, dict[bytes, bytes]]


class HeadsInAWorld(ActorsInAWorld):
    """See the module."""

    def __init__(self) -> None:
        self.stored: Stored = {"actors": {}, "actor_specs": {}}
        self.infos: dict[bytes, NodeInfo] = {}
        super().__init__()
        self.table = ActorTable(kept=True)
        for info in self.infos.values():
            self.feed(NodeUp(info))

    def feed(self, event: object) -> None:
        if isinstance(event, NodeUp):
            self.infos[event.node.node_id] = event.node
        super().feed(event)

    def carry_out(self, effect: Effect) -> None:
        if isinstance(effect, Persist):
            table = self.stored[effect.table]
            if effect.value is None:
                table.pop(effect.key, None)
            else:
                table[effect.key] = effect.value
            return
        if isinstance(effect, Send) and isinstance(effect.message, StartActor):
            key = (effect.message.spec.actor_id, effect.message.incarnation)
            if self.starting.get(key) == effect.to:
                return  # The node has the order already.
        if isinstance(effect, Send) and isinstance(effect.message, ActorState):
            former = self.seen.get(effect.message.actor_id)
            if former is not None and former.state == effect.message.state == "DEAD":
                return  # Told again to who asked again.
        super().carry_out(effect)

    @precondition(lambda self: self.count % 2 == 0)
    @rule(data=st.data())
    def head_dies(self, data: st.DataObject) -> None:
        lost = data.draw(st.lists(st.sampled_from(list(self.starting))) if self.starting else
                         st.just([]))  # fmt: skip
        for key in lost:
            self.starting.pop(key, None)  # The order did not reach its node.
        self.mail.clear()
        self.table = ActorTable(kept=True)
        self.table.restore(self.stored["actors"], self.stored["actor_specs"])
        assert self.table.rows() == self.stored
        self.table.check()
        for node_id in data.draw(st.permutations(self.nodes)):
            running = [
                RunningActor(*key, worker.process_id)
                for key, worker in self.running.items()
                if worker.node_id == node_id
            ]
            self.feed(NodeUp(self.infos[node_id], NodeContents(running, [], [], [], [])))
            self.table.check()
        for key, worker in self.running.items():
            self.post(worker.process_id, ActorStarted(*key, worker, 1))
        for actor_id in self.specs:
            self.feed(From(WATCHER, WatchActor(actor_id)))

    @invariant()
    def stored_is_known(self) -> None:
        assert self.table.rows() == self.stored


TestHeadsInAWorld = HeadsInAWorld.TestCase
TestHeadsInAWorld.settings = settings(
    max_examples=200, stateful_step_count=50, deadline=None, derandomize=True
)
