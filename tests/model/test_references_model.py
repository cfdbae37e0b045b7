"""Random lives of references, chosen by Hypothesis: nothing is freed too early, nothing is kept.

The world is that of the simulation (tests/sim/world.py): real ledgers, and a naive model of what is
in reach. There a seed decides; here Hypothesis does, step by step, which messages arrive, get lost
or come twice, and who dies when.
"""

from __future__ import annotations

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.ownership.entry import Entry

from ..sim.process import Process
from ..sim.world import World


class ReferencesLife(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(1, process_count=3)
        self.world.loss = self.world.copies = 0.0

    def one_of(self, data: st.DataObject) -> Process:
        return data.draw(st.sampled_from(self.world.living()))

    def references(self, data: st.DataObject, process: Process, at_most: int) -> list[Entry]:
        if not process.reach:
            return []
        return data.draw(st.lists(st.sampled_from(process.reach), max_size=at_most))

    def holder(self, data: st.DataObject) -> tuple[Process, Entry]:
        process = data.draw(st.sampled_from([p for p in self.world.living() if p.reach]))
        return process, data.draw(st.sampled_from(process.reach))

    def anybody_holds(self) -> bool:
        return any(process.reach for process in self.world.living())

    # -- user code

    @rule(data=st.data())
    def put(self, data: st.DataObject) -> None:
        process = self.one_of(data)
        self.world.put(process, self.references(data, process, 2))

    @precondition(anybody_holds)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        self.world.forget(*self.holder(data))

    @precondition(anybody_holds)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        self.world.copy(*self.holder(data))

    @precondition(anybody_holds)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.world.read(*self.holder(data))

    @rule(data=st.data(), depth=st.sampled_from([0, 0, 1, 3]))
    def call(self, data: st.DataObject, depth: int) -> None:
        """A task that reads, keeps, passes on and returns what it likes."""
        caller = self.one_of(data)
        workers = [process for process in self.world.living() if process is not caller]
        worker = data.draw(st.sampled_from(workers))
        self.world.submit(caller, worker, self.references(data, caller, 2), depth)

    @rule(data=st.data(), what=st.sampled_from(["keep_all", "give_all"]))
    def call_to_keep_or_give(self, data: st.DataObject, what: str) -> None:
        """An actor that stores its arguments, or returns all it has stored."""
        caller = self.one_of(data)
        workers = [process for process in self.world.living() if process is not caller]
        worker = data.draw(st.sampled_from(workers))
        args = self.references(data, caller, 2) if what == "keep_all" else []
        task = self.world.submit(caller, worker, args)
        getattr(self.world, what).add(task.number)

    # -- the network, time and death

    @rule(count=st.integers(1, 20))
    def time_passes(self, count: int) -> None:
        for _ in range(count):
            self.world.step()

    @rule(loss=st.sampled_from([0.0, 0.3, 1.0]), copies=st.sampled_from([0.0, 1.0]))
    def the_network_changes(self, loss: float, copies: float) -> None:
        self.world.loss, self.world.copies = loss, copies

    @rule(delay_s=st.sampled_from([0.001, 0.1, 5.0]), rumour_s=st.sampled_from([0.001, 10.0]))
    def distances_change(self, delay_s: float, rumour_s: float) -> None:
        self.world.delay_s, self.world.rumour_s = delay_s, rumour_s

    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        self.world.end(self.one_of(data))

    # -- what holds

    @invariant()
    def consistent(self) -> None:
        for process in self.world.living():
            process.ledger.check()

    def teardown(self) -> None:
        """The network heals, all is forgotten, all messages arrive: nothing is left."""
        self.world.loss = 0.0
        self.world.calm_down()


ReferencesLife.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    database=None,
)
TestReferencesLife = ReferencesLife.TestCase
