"""The key-value table of the head."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mray.job_keys import FUNCTIONS, SERIALIZERS
from mray.node.head.events import From, JobOver, Persist, Send, Tick
from mray.node.head.kv import KeyValues
from mray.wire.messages import (
    Ack,
    GetNodes,
    KvDelete,
    KvGet,
    KvKeyList,
    KvKeys,
    KvPut,
    KvPutDone,
    KvValue,
    Message,
    Refused,
)

ME, YOU = b"me", b"you"


def ask(keys: KeyValues, message: Message, now: float = 0.0) -> object:
    """The one answer to a message of ME."""
    effects = keys.handle(From(ME, message), now)
    keys.check()
    assert [effect.to for effect in effects if isinstance(effect, Send)] == [ME]
    (effect,) = effects
    assert isinstance(effect, Send)
    return effect.message


def test_a_value_is_found_in_its_namespace_only() -> None:
    keys = KeyValues()
    assert ask(keys, KvPut(1, "a", b"k", b"v")) == KvPutDone(1, True)
    assert ask(keys, KvGet(2, "a", b"k")) == KvValue(2, b"v")
    assert ask(keys, KvGet(3, "b", b"k")) == KvValue(3, None)


def test_put_without_overwrite_leaves_the_old_value() -> None:
    keys = KeyValues()
    ask(keys, KvPut(1, "a", b"k", b"old"))
    assert ask(keys, KvPut(2, "a", b"k", b"new", overwrite=False)) == KvPutDone(2, False)
    assert ask(keys, KvGet(3, "a", b"k")) == KvValue(3, b"old")
    assert ask(keys, KvPut(4, "a", b"k", b"new")) == KvPutDone(4, False)
    assert ask(keys, KvGet(5, "a", b"k")) == KvValue(5, b"new")


def test_a_waiting_reader_gets_the_value_when_it_is_put() -> None:
    keys = KeyValues()
    assert keys.handle(From(YOU, KvGet(7, "a", b"k", wait_s=5.0)), 10.0) == []
    assert keys.deadline() == 15.0
    effects = keys.handle(From(ME, KvPut(1, "a", b"k", b"v")), 11.0)
    assert effects == [Send(ME, KvPutDone(1, True)), Send(YOU, KvValue(7, b"v"))]
    assert keys.deadline() is None
    keys.check()


def test_a_waiting_reader_gets_nothing_when_its_time_is_over() -> None:
    keys = KeyValues()
    keys.handle(From(YOU, KvGet(7, "a", b"k", wait_s=5.0)), 10.0)
    keys.handle(From(ME, KvGet(8, "a", b"k", wait_s=9.0)), 10.0)
    assert keys.handle(Tick(), 15.0) == [Send(YOU, KvValue(7, None))]
    assert keys.deadline() == 19.0
    keys.check()


def test_an_empty_value_is_a_value() -> None:
    keys = KeyValues()
    ask(keys, KvPut(1, "a", b"k", b""))
    assert ask(keys, KvGet(2, "a", b"k", wait_s=1.0)) == KvValue(2, b"")
    assert ask(keys, KvPut(3, "a", b"k", b"x", overwrite=False)) == KvPutDone(3, False)


@pytest.mark.parametrize("overwrite", [True, False])
def test_who_asks_again_for_a_put_that_added_a_key_hears_so_again(overwrite: bool) -> None:
    keys = KeyValues()
    put = KvPut(1, "a", b"k", b"v", overwrite)
    assert ask(keys, put) == ask(keys, put) == KvPutDone(1, True)
    assert ask(keys, KvPut(2, "a", b"k", b"v", overwrite)) == KvPutDone(2, False)
    (other,) = keys.handle(From(YOU, put), 0.0)
    assert isinstance(other, Send)
    assert other.message == KvPutDone(1, False)
    ask(keys, KvDelete(3, "a", b"k"))
    assert ask(keys, put) == KvPutDone(1, True)
    assert ask(keys, KvGet(4, "a", b"k")) == KvValue(4, None)


def test_keys_are_listed_and_deleted_by_prefix() -> None:
    keys = KeyValues()
    for key in (b"x1", b"y1", b"x2"):
        ask(keys, KvPut(1, "a", key, b"v"))
    assert ask(keys, KvKeys(2, "a", b"x")) == KvKeyList(2, [b"x1", b"x2"])
    assert ask(keys, KvDelete(3, "a", b"x", prefix=True)) == Ack(3)
    assert ask(keys, KvKeys(4, "a", b"")) == KvKeyList(4, [b"y1"])
    assert ask(keys, KvDelete(5, "a", b"y1")) == Ack(5)
    assert ask(keys, KvDelete(6, "a", b"y1")) == Ack(6)


def test_what_was_a_jobs_goes_with_it() -> None:
    keys = KeyValues(kept=True)
    ours, others = b"job1" + b"hash", b"job2" + b"hash"
    for namespace in (FUNCTIONS, SERIALIZERS, "mine"):
        for key in (ours, others):
            keys.handle(From(ME, KvPut(1, namespace, key, b"v")), 0.0)
    rows = [effect for effect in keys.handle(JobOver(b"job1"), 0.0) if isinstance(effect, Persist)]
    assert [row.value for row in rows] == [None, None]
    keys.check()
    left = [keys.handle(From(ME, KvKeys(2, name, b"")), 0.0) for name in (FUNCTIONS, "mine")]
    assert left == [[Send(ME, KvKeyList(2, [others]))], [Send(ME, KvKeyList(2, [ours, others]))]]
    assert keys.handle(JobOver(b"job1"), 0.0) == []


def test_a_full_table_refuses_and_keeps_what_it_has() -> None:
    keys = KeyValues(bytes_max=10)
    ask(keys, KvPut(1, "a", b"k", b"12345"))
    refused = ask(keys, KvPut(2, "a", b"j", b"12345"))
    assert isinstance(refused, Refused)
    assert refused.kind == "MemoryError"
    assert "6 B of 10 B are taken" in refused.text
    assert ask(keys, KvGet(3, "a", b"j")) == KvValue(3, None)
    # Replacing by something of the same size is no growth.
    assert ask(keys, KvPut(4, "a", b"k", b"54321")) == KvPutDone(4, False)
    ask(keys, KvDelete(5, "a", b"k"))
    assert ask(keys, KvPut(6, "a", b"j", b"123456789")) == KvPutDone(6, True)


def test_other_messages_are_a_mistake() -> None:
    with pytest.raises(TypeError, match="GetNodes"):
        KeyValues().handle(From(ME, GetNodes(1)), 0.0)


class KeyValuesAgainstADict(RuleBasedStateMachine):
    """The table answers as a dict would, and every reader is answered exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = KeyValues(bytes_max=200)
        self.model: dict[tuple[str, bytes], bytes] = {}
        self.now = 0.0
        self.rid = 0
        self.open: dict[int, tuple[str, bytes]] = {}

    names = st.sampled_from(["a", "b"])
    key_bytes = st.sampled_from([b"x", b"y", b"yy"])

    def send(self, message: Message) -> None:
        for effect in self.keys.handle(From(ME, message), self.now):
            self.answered(effect)

    def answered(self, effect: object) -> None:
        assert isinstance(effect, Send)
        if isinstance(effect.message, KvValue):
            slot = self.open.pop(effect.message.rid)
            assert effect.message.value == self.model.get(slot)

    @rule(name=names, key=key_bytes, size=st.integers(0, 120), overwrite=st.booleans())
    def put(self, name: str, key: bytes, size: int, overwrite: bool) -> None:
        self.rid += 1
        value = bytes([self.rid % 256]) * size
        slot = (name, key)
        others = sum(len(k) + len(v) for (n, k), v in self.model.items() if (n, k) != slot)
        old = self.model.get(slot)
        kept = old is not None and not overwrite
        shrinks = old is not None and size <= len(old)
        if not kept and (shrinks or others + len(key) + size <= 200):
            self.model[slot] = value
        self.send(KvPut(self.rid, name, key, value, overwrite))

    @rule(name=names, key=key_bytes, wait_s=st.sampled_from([0.0, 1.0, 5.0]))
    def get(self, name: str, key: bytes, wait_s: float) -> None:
        self.rid += 1
        self.open[self.rid] = (name, key)
        self.send(KvGet(self.rid, name, key, wait_s))

    @rule(name=names, key=key_bytes, prefix=st.booleans())
    def delete(self, name: str, key: bytes, prefix: bool) -> None:
        self.rid += 1
        for slot in list(self.model):
            if slot[0] == name and (slot[1].startswith(key) if prefix else slot[1] == key):
                del self.model[slot]
        self.send(KvDelete(self.rid, name, key, prefix))

    @rule(passed_s=st.sampled_from([0.5, 2.0, 10.0]))
    def wait(self, passed_s: float) -> None:
        self.now += passed_s
        for effect in self.keys.handle(Tick(), self.now):
            self.answered(effect)

    @invariant()
    def holds(self) -> None:
        self.keys.check()
        deadline = self.keys.deadline()
        assert (deadline is not None) == bool(self.open)
        assert all(slot not in self.model for slot in self.open.values())


KeyValuesAgainstADict.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, derandomize=True
)
TestKeyValues = KeyValuesAgainstADict.TestCase
