"""What is pulled and what is served, at random, against naive twins.

The twin of the pulls remembers every chunk that was asked for, came or was given up, and says what
may be asked next; the twin of the pushes what everybody asked for and got.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mray.node.objects.effects import OwnerGone
from mray.node.transfer.effects import (
    Ask,
    AskOwner,
    Drop,
    End,
    Fail,
    Place,
    Refuse,
    Release,
    Seal,
    SendChunk,
    Verify,
)
from mray.node.transfer.pulls import PullRules, Pulls
from mray.node.transfer.pushes import Present, Pushes, PushRules
from mray.wire.messages import Address, Source

CHUNK = 10
WINDOW = 40
NODES = (b"na", b"nb", b"nc", b"nd")
SIZES = {b"o0": 0, b"o1": 7, b"o2": 55, b"o3": 100, b"o4": 230}
OWNER = Address(b"owner", b"na")


class Twin:
    """One pull as the twin knows it."""

    def __init__(self, object_id: bytes, number: int) -> None:
        self.object_id = object_id
        self.number = number
        self.placed = False
        self.count = max(1, -(-SIZES[object_id] // CHUNK))
        self.have: set[int] = set()
        #: What each node may still send.
        self.owed: dict[bytes, set[int]] = {}
        self.verifying = False


class PullsWorld(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        rules = PullRules(quota_bytes=250, chunk_bytes=CHUNK, window_bytes=WINDOW, stall_s=2.0)
        self.pulls = Pulls(b"me", rules)
        self.now = 0.0
        self.twins: dict[int, Twin] = {}
        self.wants: dict[bytes, set[int]] = {}
        self.dead: set[bytes] = set()

    def take(self, effects: list[Any], *, again: bool = False) -> None:
        """``again``: chunks that are under way may be asked for once more."""
        for effect in effects:
            match effect:
                case Place(object_id, number, size, owner):
                    assert (size, owner) == (SIZES[object_id], OWNER)
                    assert self.wants[object_id]
                    self.twins[number] = Twin(object_id, number)
                case Ask(node, number, object_id, chunks, _, tried):
                    twin = self.twins[number]
                    assert (twin.placed, twin.verifying) == (True, False)
                    assert object_id == twin.object_id
                    assert node not in {*tried, *self.dead}
                    assert chunks
                    assert not twin.have & set(chunks)
                    others = [owed for one, owed in twin.owed.items() if one != node]
                    if not again:
                        assert not any(owed & set(chunks) for owed in others)
                    twin.owed.setdefault(node, set()).update(chunks)
                case Seal(object_id, number):
                    twin = self.twins.pop(number)
                    assert twin.have == set(range(twin.count))
                    del self.wants[object_id]
                case Drop(_, number):
                    del self.twins[number]
                case Fail(object_id, number, reason):
                    self.twins.pop(number, None)
                    assert reason
                    del self.wants[object_id]
                case Verify(_, number):
                    twin = self.twins[number]
                    assert twin.have == set(range(twin.count))
                    twin.verifying = True
                case AskOwner(object_id):
                    assert object_id in self.wants
                case End(node, number):
                    twin = self.twins.get(number)
                    if twin is not None:
                        twin.owed.pop(node, None)

    def some(self, data: Any, *tests: Any) -> Twin | None:
        found = [twin for twin in self.twins.values() if all(test(twin) for test in tests)]
        return data.draw(st.sampled_from(found)) if found else None

    @rule(
        object_id=st.sampled_from(sorted(SIZES)), priority=st.integers(0, 2),
        nodes=st.lists(st.sampled_from(NODES), max_size=3),
    )  # fmt: skip
    def want(self, object_id: bytes, priority: int, nodes: list[bytes]) -> None:
        nodes = [node for node in nodes if node not in self.dead]
        self.wants.setdefault(object_id, set()).add(priority)
        source = Source(OWNER, SIZES[object_id], nodes)
        self.take(self.pulls.want(object_id, source, priority, self.now))

    @rule(object_id=st.sampled_from(sorted(SIZES)), priority=st.integers(0, 2))
    def unwant(self, object_id: bytes, priority: int) -> None:
        self.take(self.pulls.unwant(object_id, priority, self.now))
        if object_id in self.wants:
            self.wants[object_id].discard(priority)

    @rule(object_id=st.sampled_from(sorted(SIZES)))
    def give_up(self, object_id: bytes) -> None:
        self.take(self.pulls.give_up(object_id, "freed", self.now))

    @rule(data=st.data(), room=st.integers(0, 9))
    def place(self, data: Any, room: int) -> None:
        twin = self.some(data, lambda t: not t.placed)
        if twin is None:
            return
        if room:
            twin.placed = True
            self.take(self.pulls.placed(twin.object_id, self.now))
        else:
            why = OwnerGone(twin.object_id, b"owner")
            self.take(self.pulls.no_place(twin.object_id, why, self.now))

    @rule(data=st.data(), crc=st.sampled_from((-1, -1, -1, 5)))
    def arrive(self, data: Any, crc: int) -> None:
        twin = self.some(data, lambda t: any(t.owed.values()))
        if twin is None:
            return
        node = data.draw(st.sampled_from(sorted(n for n, owed in twin.owed.items() if owed)))
        chunk = data.draw(st.sampled_from(sorted(twin.owed[node])))
        twin.have.add(chunk)
        for owed in twin.owed.values():
            owed.discard(chunk)
        self.take(self.pulls.arrived(twin.number, node, chunk, crc, self.now), again=True)

    @rule(number=st.integers(1, 9), node=st.sampled_from(NODES), chunk=st.integers(-1, 30))
    def stray(self, number: int, node: bytes, chunk: int) -> None:
        """A chunk that nobody owes, or a copy of one."""
        twin = self.twins.get(number)
        if twin is not None and chunk not in twin.have and twin.owed:
            return
        self.take(self.pulls.arrived(number, node, chunk, -1, self.now), again=True)

    @rule(data=st.data(), others=st.lists(st.sampled_from(NODES), max_size=2), text=st.booleans())
    def refuse(self, data: Any, others: list[bytes], text: bool) -> None:
        twin = self.some(data, lambda t: any(t.owed.values()))
        if twin is None:
            return
        others = [node for node in others if node not in self.dead]
        node = data.draw(st.sampled_from(sorted(twin.owed)))
        twin.owed[node] = set()
        words = "it is not here" if text else ""
        self.take(self.pulls.refused(twin.number, node, others, words, self.now), again=True)

    @rule(data=st.data(), right=st.booleans())
    def verify(self, data: Any, right: bool) -> None:
        twin = self.some(data, lambda t: t.verifying)
        if twin is not None:
            self.take(self.pulls.verified(twin.number, right, self.now))

    @rule(data=st.data(), nodes=st.lists(st.sampled_from(NODES), max_size=3))
    def locate(self, data: Any, nodes: list[bytes]) -> None:
        twin = self.some(data, lambda t: t.placed)
        if twin is not None:
            nodes = [node for node in nodes if node not in self.dead]
            self.take(self.pulls.located(twin.object_id, nodes, "", self.now), again=True)

    @precondition(lambda self: len(self.dead) < 2)
    @rule(node=st.sampled_from(NODES))
    def die(self, node: bytes) -> None:
        self.dead.add(node)
        for twin in self.twins.values():
            twin.owed.pop(node, None)
        self.take(self.pulls.node_gone(node, self.now), again=True)

    @rule(seconds=st.sampled_from((0.1, 1.0, 5.0)))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.take(self.pulls.tick(self.now), again=True)

    @invariant()
    def agrees(self) -> None:
        self.pulls.check()
        assert {object_id: set(wants) for object_id, wants in self.wants.items()} == {
            object_id: pull.wants for object_id, pull in self.pulls._pulls.items()
        }
        for twin in self.twins.values():
            pull = self.pulls.find(twin.object_id)
            assert pull is not None
            assert {i for i, here in enumerate(pull.have) if here} == twin.have
            for node, source in pull.sources.items():
                assert set(source.in_flight) <= twin.owed.get(node, set())
        for node in NODES:
            owed = sum(
                pull.length(chunk)
                for pull in self.pulls._pulls.values()
                for chunk in (pull.sources[node].in_flight if node in pull.sources else ())
            )
            assert owed < WINDOW + CHUNK

    def teardown(self) -> None:
        for object_id in list(self.wants):
            self.take(self.pulls.give_up(object_id, "the end", self.now))
        assert not len(self.pulls)
        assert not self.twins


class PushesWorld(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.pushes = Pushes(b"me", PushRules(chunk_bytes=CHUNK, in_flight_max=7))
        self.now = 0.0
        #: What is here: all of it, or these chunks.
        self.here: dict[bytes, set[int]] = {b"o3": set(range(10)), b"o4": set(range(4))}
        self.wanted: dict[tuple[bytes, int], dict[int, None]] = {}
        self.got: dict[tuple[bytes, int], list[int]] = {}
        self.of: dict[tuple[bytes, int], bytes] = {}

    def take(self, effects: list[Any]) -> None:
        for effect in effects:
            match effect:
                case SendChunk(node, pull, object_id, chunk):
                    assert self.of[node, pull] == object_id
                    assert chunk in self.here[object_id]
                    del self.wanted[node, pull][chunk]
                    self.got[node, pull].append(chunk)
                case Refuse(node, pull, nodes, text):
                    assert bool(nodes) != bool(text)
                    assert node not in nodes
                    self.close((node, pull))
                case Release(object_id):
                    assert object_id not in self.of.values() or not self.pushes.serves(object_id)

    def close(self, key: tuple[bytes, int]) -> None:
        for table in (self.wanted, self.got, self.of):
            table.pop(key, None)

    @rule(
        node=st.sampled_from(NODES), pull=st.integers(1, 2),
        chunks=st.lists(st.integers(0, 9), unique=True, max_size=6),
        tried=st.lists(st.sampled_from(NODES), max_size=2),
    )  # fmt: skip
    def ask(self, node: bytes, pull: int, chunks: list[int], tried: list[bytes]) -> None:
        key = (node, pull)
        object_id = self.of.get(key, b"o3" if pull == 1 else b"o4")
        present = None
        if object_id in self.here:
            have = self.here[object_id]
            whole = len(have) == 10
            present = Present(100, None if whole else bytes(int(i in have) for i in range(10)))
        self.of[key] = object_id
        wanted = self.wanted.setdefault(key, {})
        self.got.setdefault(key, [])
        wanted.update(dict.fromkeys(chunks))
        # What was sent has come.
        effects = self.pushes.asked(
            node, pull, object_id, chunks, len(wanted), tried, present, self.now
        )
        self.take(effects)

    @rule(chunk=st.integers(0, 9))
    def arrive(self, chunk: int) -> None:
        if b"o4" in self.here and chunk not in self.here[b"o4"]:
            self.here[b"o4"].add(chunk)
            self.take(self.pushes.arrived(b"o4", chunk))

    @rule(object_id=st.sampled_from((b"o3", b"o4")))
    def lose(self, object_id: bytes) -> None:
        if self.here.pop(object_id, None) is not None:
            self.take(self.pushes.gone(object_id, "it is lost"))
            assert object_id not in self.of.values()

    @rule(object_id=st.sampled_from((b"o3", b"o4")))
    def come_back(self, object_id: bytes) -> None:
        self.here.setdefault(object_id, set(range(3)))

    @rule(node=st.sampled_from(NODES), pull=st.integers(1, 2))
    def end(self, node: bytes, pull: int) -> None:
        self.close((node, pull))
        self.take(self.pushes.end(node, pull, self.now))

    @rule(node=st.sampled_from(NODES))
    def die(self, node: bytes) -> None:
        for key in [key for key in self.of if key[0] == node]:
            self.close(key)
        self.take(self.pushes.node_gone(node))

    @rule()
    def wait(self) -> None:
        self.now += 31.0
        # Whoever waits for nothing that is to come is forgotten.
        held = {
            key for key, wanted in self.wanted.items()
            if any(chunk not in self.here.get(self.of[key], ()) for chunk in wanted)
        }  # fmt: skip
        for key in [key for key in self.of if key not in held]:
            self.close(key)
        self.take(self.pushes.tick(self.now))

    @invariant()
    def agrees(self) -> None:
        self.pushes.check()
        assert set(self.of) == set(self.pushes._streams)
        for key, stream in self.pushes._streams.items():
            assert {*stream.ready, *stream.held} == set(self.wanted[key])

    def teardown(self) -> None:
        """Everybody tells what came, until nothing comes any more: nothing is forgotten."""
        for _ in range(100):
            for node, pull in list(self.of):
                self.ask(node, pull, [], [])
        for key, wanted in self.wanted.items():
            assert all(chunk not in self.here[self.of[key]] for chunk in wanted)


PullsWorld.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
PushesWorld.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestPulls = PullsWorld.TestCase
TestPushes = PushesWorld.TestCase
