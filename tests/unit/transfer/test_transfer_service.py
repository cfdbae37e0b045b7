"""A node's transfers: readers, owners and other nodes in, messages and chunks out; a real store."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator

import pytest

from mray.units import MIB
from mray.wire import messages as m
from tests.unit.transfer.transfer_rig import ME, OTHER, OWNER, READER, SIZE, WORKER, A, B, Node, X


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
