"""A node's transfers: readers, owners and other nodes in, messages and chunks out; a real store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mray.node.objects.arena import Arena
from mray.node.objects.server import StoreServer
from mray.node.objects.spill_pool import StoreMemory
from mray.node.transfer.bulk import ChunkCame, Span, Told
from mray.node.transfer.chunks import Head
from mray.node.transfer.pulls import PullRules
from mray.node.transfer.service import Transfer
from mray.units import KIB, MIB
from mray.wire import messages as m

ME, A, B = b"m" + b"1" * 27, b"m" + b"2" * 27, b"m" + b"3" * 27
READER, WORKER, OTHER = b"r" * 28, b"w" * 28, b"o" * 28
OWNER = m.Address(b"owner" + b"3" * 23, B, "", "10.0.0.3:1")
X = b"x" * 28
CHUNK = 64 * KIB
SIZE = 3 * CHUNK


class FakePump:
    """Keeps what is sent and asked."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[bytes, m.Message]] = []
        self.asked: list[tuple[bytes, m.Message, Callable[[m.Message], None]]] = []
        self.door = self

    def clock(self) -> float:
        return self.now

    def send(self, to: bytes, message: m.Message) -> bool:
        self.sent.append((to, message))
        return True

    def request(self, to: bytes, make: Any, on_reply: Any, timeout_s: float) -> int:
        self.asked.append((to, make(7), on_reply))
        return 7

    def knows(self, process_id: bytes) -> bool:
        return True


class FakeBulk:
    """Keeps what is sent to other nodes."""

    def __init__(self) -> None:
        self.listener: Any = None
        self.sent: list[tuple[bytes, m.Message]] = []
        self.chunks: list[tuple[bytes, int, int, Span]] = []
        self.expected: dict[int, Span] = {}
        self.hung_up: list[bytes] = []

    def start(self) -> None:
        assert self.listener is not None

    def close(self) -> None:
        self.expected.clear()

    def dial(self, node_id: bytes, tcp: str) -> None:
        assert tcp

    def hang_up(self, node_id: bytes) -> None:
        self.hung_up.append(node_id)

    def send(self, node_id: bytes, message: m.Message) -> None:
        self.sent.append((node_id, message))

    def send_chunk(self, node_id: bytes, pull: int, chunk: int, span: Span) -> None:
        self.chunks.append((node_id, pull, chunk, span))

    def expect(self, pull: int, span: Span) -> None:
        self.expected[pull] = span

    def forget(self, pull: int) -> Span | None:
        return self.expected.pop(pull, None)

    def take_back(self, span: Span) -> None:
        span.valid = False


def info(node_id: bytes) -> m.NodeInfo:
    address = m.Address(node_id, node_id)
    return m.NodeInfo(
        node_id, address, "", "", 1, {}, {}, "", "", "", 0, False, "", "", bulk="10.0.0.9:9"
    )


class Node:
    """The store and the transfers of one node, and the world around them."""

    def __init__(self, base: str) -> None:
        self.pump, self.bulk = FakePump(), FakeBulk()
        arena = Arena.make("s1", "6d012345", 4 * MIB, base)
        self.server = StoreServer(arena, self.pump.send, clock=self.pump.clock)
        self.memory = StoreMemory(arena.path, arena.virtual_bytes)
        known = {A: info(A), B: info(B)}
        rules = PullRules(quota_bytes=2 * MIB, chunk_bytes=CHUNK, window_bytes=MIB)
        self.transfer = Transfer(
            self.pump, self.server, ME, self.bulk, known.get, rules  # type: ignore[arg-type]
        )  # fmt: skip

    def tell(self, sender: bytes, message: m.Message) -> list[tuple[bytes, m.Message]]:
        """A message by the ordinary connection; what was sent by it meanwhile."""
        self.pump.sent.clear()
        handlers = {**self.server.handlers, **self.transfer.handlers}
        handlers[type(message)](sender, message)
        return list(self.pump.sent)

    def come(self, *chunks: int, pull: int = 1, node: bytes = A) -> list[tuple[bytes, m.Message]]:
        """Chunks arrive; what was sent by the ordinary connection meanwhile."""
        self.pump.sent.clear()
        self.transfer.bulk_news([ChunkCame(node, Head(pull, c, SIZE, -1)) for c in chunks])
        return list(self.pump.sent)

    def hear(self, node: bytes, message: m.Message) -> list[tuple[bytes, m.Message]]:
        """A message by the bulk connection; what was sent by it meanwhile."""
        self.bulk.sent.clear()
        self.transfer.bulk_news([Told(node, message)])
        return list(self.bulk.sent)

    def used(self) -> int:
        """What objects take, once what was given back has been punched."""
        while (due := self.server.deadline()) is not None and due <= self.pump.now:
            self.server.tick(self.pump.now)
        return self.server.used_bytes

    def make(self, object_id: bytes = X, seal: bool = True) -> None:
        """A worker of this node makes an object."""
        self.tell(WORKER, m.CreateObject(1, object_id, SIZE, OTHER))
        if seal:
            self.tell(WORKER, m.SealObject(object_id))


@pytest.fixture
def node() -> Iterator[Node]:
    base = tempfile.mkdtemp(prefix="transfer-test-", dir="/dev/shm")
    node = Node(base)
    yield node
    node.server.store.check()
    node.transfer.pulls.check()
    node.transfer.pushes.check()
    node.memory.close()
    node.transfer.close()
    node.server.close()
    shutil.rmtree(base)


def pin(*nodes: bytes, rid: int = 5) -> m.PinObjects:
    return m.PinObjects(rid, [X], [m.Source(OWNER, SIZE, list(nodes))])


def fetch(priority: int, *nodes: bytes) -> m.FetchObjects:
    return m.FetchObjects([X], [m.Source(OWNER, SIZE, list(nodes))], priority)


def test_a_reader_gets_what_another_node_has_and_its_owner_hears_of_the_copy(node: Node) -> None:
    assert node.tell(READER, pin(A)) == []
    assert node.bulk.sent == [(A, m.AskChunks(1, X, [0, 1, 2], 3))]
    assert node.come(1, 0) == []
    sent = node.come(2)
    assert [(to, type(message)) for to, message in sent] == [
        (READER, m.ObjectsPinned), (OWNER.process_id, m.CopyMade),
    ]  # fmt: skip
    assert sent[0][1].places == [(0, SIZE)]
    assert node.bulk.sent[-1] == (A, m.EndPull(1))
    assert node.bulk.expected == {}


def test_a_second_reader_and_one_who_fetched_share_the_pull(node: Node) -> None:
    node.tell(OTHER, fetch(2, A))
    node.tell(WORKER, fetch(1, A))
    node.tell(READER, pin(A))
    assert len([1 for _, one in node.bulk.sent if isinstance(one, m.AskChunks)]) == 1
    node.pump.now += 60.0
    node.server.tick(node.pump.now)
    sent = node.come(0, 1, 2)
    assert {(to, type(message)) for to, message in sent} == {
        (READER, m.ObjectsPinned), (WORKER, m.ObjectsFetched), (OWNER.process_id, m.CopyMade),
    }  # fmt: skip


def test_what_is_here_is_fetched_already(node: Node) -> None:
    node.make()
    assert node.tell(READER, fetch(1, A)) == [(READER, m.ObjectsFetched([X], [""]))]
    assert node.tell(READER, fetch(2, A)) == []
    with pytest.raises(ValueError, match="priority 0"):
        node.tell(READER, fetch(0, A))


def test_nothing_is_fetched_ahead_of_need_into_a_full_store(node: Node) -> None:
    node.tell(WORKER, m.CreateObject(1, b"y" * 28, 4 * MIB, OTHER))
    node.tell(READER, fetch(2, A))
    assert node.bulk.sent == []
    assert len(node.transfer.pulls) == 0


def test_when_nobody_has_it_the_owner_is_asked_and_the_reader_hears_the_reasons(
    node: Node,
) -> None:
    node.tell(READER, pin(A))
    node.hear(A, m.ChunksRefused(1, [], "it was freed there"))
    [(to, question, answer)] = node.pump.asked
    assert (to, question) == (OWNER.process_id, m.LocateObjects(7, [X]))
    node.pump.sent.clear()
    answer(m.ObjectsLocated(7, [[A]]))
    [(to, pinned)] = node.pump.sent
    assert to == READER
    assert pinned.places == [(-1, 0)]
    assert "it was freed there" in pinned.reasons[0]
    assert node.used() == 0


def test_the_owner_names_another_node(node: Node) -> None:
    node.tell(READER, pin(A))
    node.come(0)
    node.transfer.node_gone(A)
    assert node.bulk.hung_up == [A]
    node.pump.asked[0][2](m.ObjectsLocated(7, [[A, B]]))
    assert node.bulk.sent[-1] == (B, m.AskChunks(1, X, [1, 2], 2, [A]))


def test_a_node_that_is_not_known_is_passed_over(node: Node) -> None:
    node.tell(READER, pin(b"m-who"))
    assert len(node.pump.asked) == 1


def test_a_reader_that_goes_ends_the_pull(node: Node) -> None:
    node.tell(READER, pin(A))
    node.tell(READER, m.UnpinObjects([(X, 1)]))
    assert node.bulk.sent[-1] == (A, m.EndPull(1))
    assert node.used() == 0
    assert node.come(0) == []


def test_a_reader_that_dies_ends_the_pull_unless_another_wants_it(node: Node) -> None:
    node.tell(READER, pin(A))
    node.tell(WORKER, fetch(1, A))
    node.server.client_died(READER)
    assert len(node.transfer.pulls) == 1
    node.server.client_died(WORKER)
    assert len(node.transfer.pulls) == 0
    assert node.used() == 0


def test_what_is_freed_while_it_comes_is_not_kept(node: Node) -> None:
    node.tell(READER, pin(A))
    span = node.bulk.expected[1]
    sent = node.tell(OWNER.process_id, m.FreeObjects([X]))
    assert [type(message) for _, message in sent] == [m.ObjectsPinned]
    assert not span.valid
    assert node.used() == 0


def test_the_death_of_the_owner_ends_the_pull(node: Node) -> None:
    node.tell(READER, pin(A))
    node.server.owner_died(OWNER.process_id)
    assert len(node.transfer.pulls) == 0
    assert node.used() == 0


def test_the_death_of_the_owners_node_frees_copies(node: Node) -> None:
    node.tell(READER, fetch(2, A))
    node.come(0, 1, 2)
    assert node.used() > 0
    node.transfer.node_gone(B)
    assert node.used() == 0


def test_what_a_task_here_begins_to_make_is_not_pulled(node: Node) -> None:
    node.make(seal=False)
    assert node.tell(READER, pin(A)) == []
    assert node.bulk.sent == []
    [(to, pinned)] = node.tell(WORKER, m.SealObject(X))
    assert (to, pinned.places[0][1]) == (READER, SIZE)


def test_a_task_that_makes_it_while_it_comes_answers_its_readers(node: Node) -> None:
    node.tell(READER, pin(A))
    node.make(seal=False)
    sent = node.tell(WORKER, m.SealObject(X))
    assert [to for to, _ in sent] == [READER]
    node.come(0, 1, 2)
    copies = node.server.store.copies()
    assert [(copy.object_id, copy.further) for copy in copies] == [(X, None)]


def test_chunks_of_what_is_here_are_sent_and_the_copy_is_held_meanwhile(node: Node) -> None:
    node.make()
    node.hear(A, m.AskChunks(9, X, [0, 2], 2))
    assert [(to, pull, chunk) for to, pull, chunk, _ in node.bulk.chunks] == [(A, 9, 0), (A, 9, 2)]
    span = node.bulk.chunks[0][3]
    node.tell(OTHER, m.FreeObjects([X]))
    assert node.used() > 0
    assert span.valid
    node.hear(A, m.EndPull(9))
    assert not span.valid
    assert node.used() == 0


def test_who_asks_before_the_writer_is_done_is_served_when_it_is(node: Node) -> None:
    node.make(seal=False)
    node.hear(A, m.AskChunks(9, X, [0, 1, 2], 3))
    assert node.bulk.chunks == []
    node.tell(WORKER, m.SealObject(X))
    assert [chunk for _, _, chunk, _ in node.bulk.chunks] == [0, 1, 2]


def test_who_asks_for_what_its_writer_gives_up_is_refused(node: Node) -> None:
    node.make(seal=False)
    node.hear(A, m.AskChunks(9, X, [0], 1))
    node.bulk.sent.clear()
    node.tell(WORKER, m.AbortObject(X))
    [(to, refused)] = node.bulk.sent
    assert (to, refused.text) == (A, "its writer gave it up")


def test_what_is_on_its_way_here_is_passed_on_as_it_comes(node: Node) -> None:
    node.tell(READER, pin(A))
    node.hear(B, m.AskChunks(4, X, [0, 1, 2], 3))
    node.come(1)
    assert [(to, chunk) for to, _, chunk, _ in node.bulk.chunks] == [(B, 1)]
    node.come(0, 2)
    assert [chunk for _, _, chunk, _ in node.bulk.chunks] == [1, 0, 2]
    assert node.server.store.copies()[0].pins.get(ME) == 1
    node.hear(B, m.EndPull(4))
    assert ME not in node.server.store.copies()[0].pins


def test_what_will_not_come_is_refused_to_those_who_wait_for_it_here(node: Node) -> None:
    node.tell(READER, pin(A))
    node.hear(B, m.AskChunks(4, X, [0], 1))
    node.bulk.sent.clear()
    node.tell(OWNER.process_id, m.FreeObjects([X]))
    refused = [message for to, message in node.bulk.sent if to == B]
    assert [type(one) for one in refused] == [m.ChunksRefused]
    assert "did not get it" in refused[0].text


def test_a_question_for_chunks_that_there_are_not_changes_nothing(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.make()
    assert node.hear(A, m.AskChunks(9, X, [3], 1)) == []
    assert "what there is not" in caplog.text
    assert node.bulk.chunks == []


def test_evicted_copies_are_told_to_their_owner_and_promoted_ones_stay(node: Node) -> None:
    node.tell(READER, fetch(2, A))
    node.come(0, 1, 2)
    [(_, promoted)] = node.tell(OWNER.process_id, m.PromoteCopies(3, [X, b"y" * 28]))
    assert promoted == m.PromotedCopies(3, [b"y" * 28])
    node.server.press(MIB)
    assert node.server.store.has(X)

    node.tell(OWNER.process_id, m.FreeObjects([X]))
    node.tell(READER, fetch(2, A))
    node.come(0, 1, 2, pull=2)
    node.pump.sent.clear()
    node.server.press(MIB)
    [(to, gone)] = node.pump.sent
    assert (to, gone.object_ids, gone.node_id) == (OWNER.process_id, [X], ME)
