"""A store with disks that are slow, flaky, full, hanging or lying: real bytes, real threads."""

from __future__ import annotations

import errno
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mray.node.objects.arena import PAGE_BYTES, Arena
from mray.node.objects.disks import NoRoom, Pieces
from mray.node.objects.server import StoreServer
from mray.node.objects.spill_pool import SpillPool, StoreMemory
from mray.node.objects.spilling import SpillRules
from mray.units import MIB
from mray.wire.messages import (
    Address,
    CopyGone,
    CreateObject,
    FreeObjects,
    Message,
    ObjectCreated,
    ObjectsPinned,
    PinObjects,
    Refused,
    SealObject,
    UnpinObjects,
)

OWNER, TASK, READER = b"o" * 28, b"t" * 28, b"r" * 28
CAPACITY = 8 * MIB


class Double:
    """A disk in memory that fails as it is told to. ``gate`` holds writes while it is closed."""

    path = "/double"

    def __init__(self) -> None:
        self.files: dict[int, bytearray] = {}
        #: What the next operations raise; None lets one pass. Empty: all pass.
        self.write_errors: list[Exception | None] = []
        self.read_errors: list[Exception | None] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.writing = self.writing_most = 0
        self._lock = threading.Lock()

    def write(self, number: int, size: int, parts: Pieces) -> None:
        with self._lock:
            self.writing += 1
            self.writing_most = max(self.writing, self.writing_most)
            error = self.write_errors.pop(0) if self.write_errors else None
        self.entered.release()
        try:
            self.gate.wait(20)
            data = bytearray(size)
            for at, piece in parts:
                data[at : at + len(piece)] = piece
                if error is not None:
                    raise error
            self.files[number] = data
        finally:
            with self._lock:
                self.writing -= 1

    def read(self, number: int, at: int, buffer: memoryview) -> None:
        if self.read_errors and (error := self.read_errors.pop(0)) is not None:
            raise error
        data = self.files.get(number)
        if data is None:
            raise FileNotFoundError(number)
        if at + len(buffer) > len(data):
            raise EOFError(f"ends at {len(data)}")
        buffer[:] = data[at : at + len(buffer)]

    def delete(self, number: int) -> None:
        self.files.pop(number, None)

    def punch(self, number: int, at: int, size: int) -> None:
        self.files[number][at : at + size] = bytes(size)

    def close(self) -> None:
        self.files.clear()


class Node:
    """A store server over a real arena, whose loop the test turns."""

    def __init__(self, base: str) -> None:
        self.now = 100.0
        self.disk = Double()
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self.arena = Arena.make("s1", "6d012345", CAPACITY, base)
        memory = StoreMemory(self.arena.path, self.arena.virtual_bytes)
        self.memory = memory
        self.pool = SpillPool([self.disk], memory, 3, self.calls.put, read_pause_s=0.0)
        self.sent: list[Message] = []
        self.server = StoreServer(
            self.arena,
            lambda _, message: self.sent.append(message),
            spill=SpillRules(disks=("/double",), threshold=1.0, batch_bytes=MIB, workers=3),
            pool=self.pool,
            clock=lambda: self.now,
        )
        self.rid = 0

    def until(self, done: Callable[[], Any]) -> None:
        """Turn the loop until something is so."""
        while not done():
            self.calls.get(timeout=20)()

    def ask(self, sender: bytes, make: Callable[[int], Message]) -> int:
        self.rid += 1
        self.server.handle(sender, make(self.rid))
        return self.rid

    def answer(self, rid: int) -> Any:
        return next((one for one in self.sent if getattr(one, "rid", 0) == rid), None)

    def wait(self, rid: int) -> Any:
        self.until(lambda: self.answer(rid))
        return self.answer(rid)

    def create(self, number: int, size: int = 2 * MIB) -> int:
        name = number.to_bytes(28, "big")
        return self.ask(TASK, lambda rid: CreateObject(rid, name, size, OWNER))

    def finish(self, number: int, created: ObjectCreated, size: int = 2 * MIB) -> None:
        self.memory.write_from(created.offset, memoryview(bytes([number]) * size))
        self.server.handle(TASK, SealObject(number.to_bytes(28, "big")))

    def make(self, number: int, size: int = 2 * MIB) -> None:
        created = self.wait(self.create(number, size))
        assert isinstance(created, ObjectCreated), created
        self.finish(number, created, size)

    def read(self, number: int) -> bytes | ObjectsPinned:
        """The bytes, or the answer that has none."""
        name = number.to_bytes(28, "big")
        answer = self.wait(self.ask(READER, lambda rid: PinObjects(rid, [name])))
        assert isinstance(answer, ObjectsPinned), answer
        offset, size = answer.places[0]
        if offset < 0:
            return answer
        data = bytearray(size)
        self.memory.read_into(offset, memoryview(data))
        self.server.handle(READER, UnpinObjects([(name, 1)]))
        return bytes(data)

    def free(self, *numbers: int) -> None:
        ids = [number.to_bytes(28, "big") for number in numbers]
        self.server.handle(OWNER, FreeObjects(ids))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        while (due := self.server.deadline()) is not None and due <= self.now:
            self.server.tick(self.now)


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    node = Node(str(tmp_path_factory.mktemp("arena")))
    yield node
    node.disk.gate.set()
    node.server.close()
    node.memory.close()


def holds(data: bytes | ObjectsPinned, number: int) -> bool:
    return isinstance(data, bytes) and data == bytes([number]) * len(data)


def test_a_disk_that_works_gives_every_byte_back(node: Node) -> None:
    for number in range(20):
        node.make(number)
    assert all(holds(node.read(number), number) for number in range(20))
    node.free(*range(20))
    node.server.close()
    assert node.disk.files == {}


def test_a_slow_disk_keeps_nobody_waiting_who_needs_no_room(node: Node) -> None:
    for number in range(4):
        node.make(number)
    node.disk.gate.clear()
    waiting = node.create(4)
    node.disk.entered.acquire(timeout=20)
    # Everything else goes on while the disk takes its time.
    assert all(holds(node.read(number), number) for number in range(4))
    node.pass_time(25.0)
    assert node.answer(waiting) is None
    node.disk.gate.set()
    assert isinstance(node.wait(waiting), ObjectCreated)


def test_a_disk_that_hangs_ends_in_an_error_and_holds_a_bounded_number_of_threads(
    node: Node,
) -> None:
    for number in range(4):
        node.make(number)
    node.disk.gate.clear()
    waiting = [node.create(number) for number in range(4, 12)]
    node.disk.entered.acquire(timeout=20)
    node.pass_time(40.0)
    assert all(isinstance(node.answer(rid), Refused) for rid in waiting)
    assert node.disk.writing_most <= 2
    # Free room is given out again, whatever the disk does.
    node.free(0, 1, 2, 3)
    node.disk.gate.set()
    node.until(lambda: not node.server.store.spilling._writes)
    node.make(50)
    assert holds(node.read(50), 50)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "input/output error"), NoRoom("it is full"), RuntimeError("plug-in")],
    ids=["flaky", "full", "odd"],
)
def test_a_write_that_fails_keeps_the_object_and_is_tried_again(
    node: Node, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    node.disk.write_errors = [error] * 3
    for number in range(4):
        node.make(number)
    waiting = node.create(4)
    for _ in range(40):
        if node.answer(waiting) is not None and isinstance(node.answer(waiting), ObjectCreated):
            break
        if isinstance(node.answer(waiting), Refused):
            waiting = node.create(4)
        spilling = node.server.store.spilling
        if spilling._writes:
            writes = len(spilling._writes)
            node.until(lambda writes=writes, s=spilling: len(s._writes) < writes)
        node.pass_time(0.5)
    node.finish(4, node.answer(waiting))
    assert all(holds(node.read(number), number) for number in range(5))
    told = [record.getMessage() for record in caplog.records if "spilled to" in record.message]
    assert len(told) == 2, told
    assert "not spilled" in told[0]
    assert "again" in told[1]


@pytest.mark.parametrize("failures", [1, 4])
def test_a_read_that_fails_is_tried_again(node: Node, failures: int) -> None:
    for number in range(6):
        node.make(number)
    node.disk.read_errors = [OSError(errno.EIO, "flaky")] * failures
    assert all(holds(node.read(number), number) for number in range(6))


def _flip(disk: Double) -> None:
    for data in disk.files.values():
        data[1000] ^= 1


def _cut(disk: Double) -> None:
    for data in disk.files.values():
        del data[-PAGE_BYTES:]


def _break(disk: Double) -> None:
    disk.read_errors = [OSError(errno.EIO, "broken")] * 100


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (_flip, "damaged"),
        (_cut, "cut short"),
        (lambda disk: disk.files.clear(), "gone"),
        (_break, "cannot be read"),
    ],
    ids=["flipped", "cut", "deleted", "broken"],
)
def test_damage_is_a_lost_object_with_its_reason_and_never_wrong_bytes(
    node: Node, damage: Callable[[Double], None], word: str
) -> None:
    for number in range(8):
        node.make(number)
    node.until(lambda: not node.server.store.spilling._writes)
    on_disk = {copy.object_id[-1] for copy in node.server.store.copies() if copy.offset < 0}
    assert on_disk
    damage(node.disk)
    for number in range(8):
        data = node.read(number)
        if number in on_disk:
            assert isinstance(data, ObjectsPinned)
            assert word in data.reasons[0]
        else:
            assert holds(data, number)
    # Owners hear of it by themselves, once, whatever readers make of it.
    told = [one for one in node.sent if isinstance(one, CopyGone)]
    assert {one.object_ids[0][-1] for one in told} == on_disk
    assert len(told) == len(on_disk)
    assert all(word in one.text for one in told)
    # The store goes on.
    node.disk.read_errors = []
    node.make(99)
    assert holds(node.read(99), 99)


def test_an_owner_elsewhere_hears_of_a_loss_by_way_of_the_transfers(node: Node) -> None:
    owner = Address(OWNER, b"elsewhere", tcp="10.0.0.2:7000")
    told: list[tuple[Address, Message]] = []
    transfer: Any = SimpleNamespace(tell_owner=lambda to, message: told.append((to, message)))
    for number in range(8):
        node.make(number)
    node.until(lambda: not node.server.store.spilling._writes)
    (name, *_) = [copy.object_id for copy in node.server.store.copies() if copy.offset < 0]
    node.server.owners[OWNER] = owner
    node.disk.files.clear()
    node.server.transfer = transfer
    node.read(name[-1])
    node.server.transfer = None
    ((to, message),) = told
    assert (to, type(message)) == (owner, CopyGone)


def test_an_object_freed_while_a_slow_disk_writes_it_leaves_no_file(node: Node) -> None:
    for number in range(4):
        node.make(number)
    node.disk.gate.clear()
    waiting = node.create(4)
    node.disk.entered.acquire(timeout=20)
    node.free(0, 1, 2, 3)
    node.disk.gate.set()
    node.until(lambda: not node.server.store.spilling._writes)
    assert isinstance(node.answer(waiting), ObjectCreated)
    node.server.close()
    assert node.disk.files == {}
