"""The lineage against a model that looks at everything anew after each event.

The model knows tasks, their arguments and results, and what is in hand. What has to be kept follows
from that by searching; the machine counts.
"""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.ids import object_id
from mray.ownership.entry import Entry
from mray.ownership.references import References
from mray.wire.messages import Located

HOME = SimpleNamespace(posts=deque(), resolved=deque(), asleep=False)
TASK_SIZE = 10


class Made:
    """A finished task of the model."""

    def __init__(self, task_id: bytes, args: list[Entry], returns: list[Entry]) -> None:
        self.task_id = task_id
        self.args = args
        self.returns = returns


class LineageModel(RuleBasedStateMachine):
    """Values are stored from their birth; losing and rebuilding is the simulation's."""

    def __init__(self) -> None:
        super().__init__()
        self.references = References(1)
        self.lineage = self.references.lineage
        self.lineage.max_bytes = 12 * TASK_SIZE
        self.count = 0
        self.hand: list[Entry] = []
        self.all: list[Entry] = []
        #: Kept by the model, oldest first; dropped ones are hollow.
        self.tasks: dict[bytes, Made] = {}
        self.whole: list[bytes] = []

    def _entry(self, made: bytes, stored: bool) -> Entry:
        entry = Entry(made, None, HOME, 1)  # type: ignore[arg-type]
        entry.located = Located(b"n", 1000) if stored else None
        entry.data = None if stored else b"small"
        entry.ready = True
        self.references.entries[made] = entry
        self.hand.append(entry)
        self.all.append(entry)
        return entry

    @rule(stored=st.booleans())
    def put(self, stored: bool) -> None:
        self.count += 1
        self._entry(self.count.to_bytes(8, "little") + bytes(20), stored)

    @rule(
        picks=st.lists(st.integers(0, 1000), max_size=3),
        stored=st.lists(st.booleans(), min_size=1, max_size=3),
        may_run_again=st.booleans(),
    )
    def call(self, picks: list[int], stored: list[bool], may_run_again: bool) -> None:
        """A task is submitted and has finished."""
        args = [self.hand[pick % len(self.hand)] for pick in picks] if self.hand else []
        self.count += 1
        task_id = self.count.to_bytes(8, "little") + bytes(16)
        returns = [
            self._entry(object_id(task_id, index), one)  # type: ignore[arg-type]
            for index, one in enumerate(stored, 1)
        ]
        for entry in args:
            self.references.hold(entry)
        located = [entry for entry in returns if entry.located is not None]
        if located:
            if may_run_again:
                loose = self.lineage.keep(task_id, object(), TASK_SIZE, args, located)
                self.tasks[task_id] = Made(task_id, args, located)
                self.whole.append(task_id)
            else:
                loose = self.lineage.forgo(task_id, "it may not", located)
                self.tasks[task_id] = Made(task_id, [], located)
            self.references.settle_all(loose)
        for entry in args:
            self.references.release(entry)
        self._forget()
        if len(self.whole) * TASK_SIZE > self.lineage.max_bytes:
            while len(self.whole) * TASK_SIZE > self.lineage.max_bytes // 2:
                self.tasks[self.whole.pop(0)].args = []
        self._forget()

    @precondition(lambda self: self.hand)
    @rule(pick=st.integers(0, 1000))
    def drop(self, pick: int) -> None:
        entry = self.hand.pop(pick % len(self.hand))
        self.references.drop_local(entry)
        self._forget()

    @precondition(lambda self: self.hand)
    @rule(pick=st.integers(0, 1000), data=st.booleans())
    def becomes_small(self, pick: int, data: bool) -> None:
        """A value is not in a store any more: it failed, or was made again smaller."""
        entry = self.hand[pick % len(self.hand)]
        if entry.located is not None:
            self.references.fill(entry, b"error" if data else b"small", None)
            self.references.settle_all(self.lineage.close(entry))
            self._forget()

    # -- the model

    def _needed(self) -> tuple[set[bytes], set[int]]:
        """Tasks whose description has to be there, and entries that have to live: searched for
        from what is in hand."""
        tasks: set[bytes] = set()
        live: set[int] = set()
        stack: list[tuple[Entry, bool]] = [(entry, True) for entry in self.hand]
        seen: set[tuple[int, bool]] = set()
        while stack:
            entry, by_hand = stack.pop()
            if (id(entry), by_hand) in seen:
                continue
            seen.add((id(entry), by_hand))
            made = self.tasks.get(entry.object_id[:24])
            is_stored = entry.located is not None
            again = made is not None and made.task_id in self.whole and is_stored
            if by_hand or not again:
                live.add(id(entry))
            if made is not None and entry in made.returns and is_stored:
                tasks.add(made.task_id)
                stack += [(arg, False) for arg in made.args]
        return tasks, live

    def _forget(self) -> None:
        """Drop what nothing needs, until nothing changes."""
        tasks, _ = self._needed()
        self.tasks = {task_id: made for task_id, made in self.tasks.items() if task_id in tasks}
        self.whole = [task_id for task_id in self.whole if task_id in tasks]

    @invariant()
    def what_is_kept_is_what_is_needed(self) -> None:
        self.references.check()
        tasks, live = self._needed()
        assert set(self.lineage.records) == tasks
        whole = [i for i, record in self.lineage.records.items() if record.task is not None]
        assert sorted(whole) == sorted(self.whole)
        assert self.lineage.total_bytes == TASK_SIZE * len(self.whole)
        assert {id(entry) for entry in self.references.entries.values()} == live
        freed: Any = [entry for entry in self.all if entry.freed]
        assert all(id(entry) not in live for entry in freed)

    def teardown(self) -> None:
        while self.hand:
            self.drop(0)
            self.what_is_kept_is_what_is_needed()
        assert not self.references.entries
        assert not self.lineage.records


LineageModel.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
)

TestLineage = LineageModel.TestCase
