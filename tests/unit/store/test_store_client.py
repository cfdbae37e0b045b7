"""StoreClient: writing, reading without copies, pins that live as long as buffers, owning."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mray import exceptions
from mray.store.client import StoreClient
from mray.units import MIB
from mray.wire.messages import (
    AbortObject,
    Ack,
    CreateObject,
    FreeObjects,
    Message,
    ObjectsPinned,
    PinObjects,
    Refused,
    SealObject,
    UnpinObjects,
)

ME, OTHER = b"m" * 28, b"o" * 28
X, Y, Z = b"x" * 28, b"y" * 28, b"z" * 28


def fill(data: bytes) -> Callable[[memoryview], None]:
    def write(view: memoryview) -> None:
        view[:] = data

    return write


def put(client: StoreClient, object_id: bytes, data: bytes, **options: bool) -> None:
    client.put(object_id, ME, len(data), fill(data), **options)


# -------------------------------------------------------------------------------------- writing


def test_what_is_put_can_be_got_by_another_process(node: Any) -> None:
    put(node.client(ME), X, b"hello")
    view = node.client(OTHER).get(X)
    assert bytes(view) == b"hello"
    assert view.readonly


def test_an_empty_object_is_an_object(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"")
    assert bytes(client.get(X)) == b""
    assert len(client.get_writable(X)) == 0


def test_put_claims_cold_pages_and_seals(node: Any) -> None:
    client = node.client(ME)
    client.put(X, ME, 3 * MIB, lambda view: None)
    assert node.arena.resident_bytes() == 3 * MIB
    assert [type(message) for message in node.received] == [CreateObject, SealObject]


def test_a_write_that_fails_leaves_nothing(node: Any) -> None:
    client = node.client(ME)

    def fail(view: memoryview) -> None:
        view[:3] = b"abc"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.put(X, ME, MIB, fail)
    assert node.received[-1] == AbortObject(X, "KeyboardInterrupt")
    node.settle()
    assert node.states() == {}
    assert node.arena.resident_bytes() == 0
    put(client, X, b"again")
    assert bytes(client.get(X)) == b"again"


def test_the_view_cannot_be_used_after_put(node: Any) -> None:
    kept: list[memoryview] = []
    node.client(ME).put(X, ME, 10, kept.append)
    with pytest.raises(ValueError, match="released"):
        kept[0][0] = 1


def test_two_threads_cannot_write_one_object(node: Any) -> None:
    client = node.client(ME)

    def again(view: memoryview) -> None:
        with pytest.raises(ValueError, match="being written by another thread"):
            put(client, X, b"second")

    client.put(X, ME, 10, again)
    assert node.states() == {X: ("sealed", 0)}


def test_a_put_that_cannot_ask_gives_up_whatever_the_node_made(node: Any) -> None:
    client = node.client(ME)
    ask = client._ask

    def asked_in_vain(make: Callable[[int], Message], timeout_s: float) -> Message:
        ask(make, timeout_s)
        raise exceptions.RpcError("no answer in time")

    client._ask = asked_in_vain
    with pytest.raises(exceptions.RpcError):
        put(client, X, b"hello")
    assert node.states() == {}


def test_a_full_store_is_an_error_with_the_facts(node: Any) -> None:
    client = node.client(ME)
    client.put(X, ME, 60 * MIB, lambda view: None)
    with pytest.raises(exceptions.ObjectStoreFullError, match=r"60 MiB of 64 MiB") as caught:
        client.put(Y, ME, 5 * MIB, lambda view: None)
    assert caught.value.requested_bytes == 5 * MIB
    assert X.hex() in str(caught.value)
    with pytest.raises(exceptions.ObjectStoreFullError, match="larger than the whole"):
        client.put(Y, ME, 65 * MIB, lambda view: None)
    client.free(X)
    client.put(Y, ME, 5 * MIB, lambda view: None)


def test_an_object_of_a_dead_owner_is_not_stored(node: Any) -> None:
    node.server.owner_died(OTHER)
    with pytest.raises(exceptions.OwnerDiedError, match="has ended") as caught:
        node.client(ME).put(X, OTHER, 10, lambda view: None)
    assert caught.value.object_ref_hex == X.hex()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("OutOfDiskError", exceptions.OutOfDiskError),
        ("ValueError", ValueError),
        ("Surprise", exceptions.RaySystemError),
    ],
)
def test_a_refusal_is_raised_as_what_it_names(node: Any, kind: str, error: type[Exception]) -> None:
    client = node.client(ME)
    client._ask = lambda make, timeout_s: Refused(1, kind, "because")
    with pytest.raises(error, match="because"):
        put(client, X, b"hello")


def test_an_answer_to_another_question_is_an_error(node: Any) -> None:
    client = node.client(ME)
    client._ask = lambda make, timeout_s: Ack(1)
    with pytest.raises(exceptions.RaySystemError, match="Ack"):
        put(client, X, b"hello")
    with pytest.raises(exceptions.RaySystemError, match="Ack"):
        client.get(X)


# -------------------------------------------------------------------------------------- reading


def test_an_object_that_is_not_here_is_none(node: Any) -> None:
    client = node.client(ME)
    assert client.get(X) is None
    assert client.get_writable(X) is None


def test_many_are_asked_for_at_once_and_come_in_order(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"one")
    put(client, Y, b"two")
    views = client.get_many([Y, Z, X, Y])
    assert [view and bytes(view) for view in views] == [b"two", None, b"one", b"two"]
    (asked,) = node.told(PinObjects)
    assert asked.object_ids == [Y, Z, X]
    assert node.states() == {X: ("sealed", 1), Y: ("sealed", 1)}


def test_nothing_is_asked_for_nothing(node: Any) -> None:
    assert node.client(ME).get_many([]) == []
    assert node.received == []


def test_the_pin_lives_until_the_last_buffer_dies(node: Any) -> None:
    client = node.client(ME)
    put(client, X, bytes(range(100)))
    view = client.get(X)
    part = view[10:50]
    array = np.frombuffer(part, np.uint8)
    piece = array[5:10]
    del view, part, array
    assert node.states()[X] == ("sealed", 1)
    assert piece.tolist() == [15, 16, 17, 18, 19]
    assert not piece.flags.writeable
    del piece
    assert node.states()[X] == ("sealed", 0)


def test_arrays_unpickled_over_the_object_keep_it(node: Any) -> None:
    client = node.client(ME)
    source = np.arange(1000.0)
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(source, protocol=5, buffer_callback=buffers.append)
    put(client, X, buffers[0].raw().tobytes())
    client.free(X)
    put(client, X, buffers[0].raw().tobytes())
    loaded = pickle.loads(pickled, buffers=[client.get(X)])
    assert np.array_equal(loaded, source)
    tail = loaded[500:]
    del loaded
    client.free(X)
    assert node.states()[X] == ("leaving", 1)
    assert np.array_equal(tail, source[500:])
    del tail
    assert node.states() == {}


def test_gets_of_one_object_share_a_pin(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    views = [client.get(X) for _ in range(5)]
    assert len(node.told(PinObjects)) == 1
    assert client.pinned_count == 1
    views.clear()
    assert node.told(UnpinObjects) == [UnpinObjects([(X, 1)])]
    assert client.pinned_count == 0
    assert client.get(X) is not None
    assert len(node.told(PinObjects)) == 2


def test_a_buffer_in_a_cycle_is_given_back_by_the_collector(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    ring: list[Any] = [client.get(X)]
    ring.append(ring)
    del ring
    gc.collect()
    assert node.states()[X] == ("sealed", 0)


def test_ends_of_pins_are_batched_by_a_runtime_that_schedules(node: Any) -> None:
    calls: list[Callable[[], None]] = []
    client = node.client(ME, calls.append)
    ids = [bytes([index]) * 28 for index in range(50)]
    for object_id in ids:
        put(client, object_id, b"data")
    views = client.get_many(ids)
    del views
    assert len(calls) == 1
    assert node.told(UnpinObjects) == []
    calls.pop()()
    (message,) = node.told(UnpinObjects)
    assert sorted(message.pins) == [(object_id, 1) for object_id in ids]
    view = client.get(ids[0])
    del view
    assert len(calls) == 1


def test_a_pin_can_end_while_another_thread_holds_the_table(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    view = client.get(X)
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with client._changed:
            held.set()
            release.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    del view
    assert node.states()[X] == ("sealed", 0)
    release.set()
    holder.join()
    assert client.pinned_count == 0


def test_a_finalizer_may_get_and_drop_within_a_get(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    put(client, Y, b"world")
    seen = []
    sweep = client._sweep

    def sweep_and_collect() -> None:
        client._sweep = sweep
        seen.append(bytes(client.get(Y)))
        sweep()

    client._sweep = sweep_and_collect
    assert bytes(client.get(X)) == b"hello"
    assert seen == [b"world"]
    assert node.states() == {X: ("sealed", 0), Y: ("sealed", 0)}


def test_threads_that_want_one_object_ask_once(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    ask = client._ask
    asking, go_on = threading.Event(), threading.Event()

    def slow(make: Callable[[int], Message], timeout_s: float) -> Message:
        asking.set()
        go_on.wait()
        return ask(make, timeout_s)

    client._ask = slow
    views: list[memoryview] = []
    threads = [threading.Thread(target=lambda: views.append(client.get(X))) for _ in range(4)]
    threads[0].start()
    asking.wait()
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert [bytes(view) for view in views] == [b"hello"] * 4
    assert len(node.told(PinObjects)) == 1


def test_a_get_that_cannot_ask_gives_back_what_the_node_pinned(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    ask = client._ask

    def interrupted(make: Callable[[int], Message], timeout_s: float) -> Message:
        ask(make, timeout_s)
        raise KeyboardInterrupt

    client._ask = interrupted
    with pytest.raises(KeyboardInterrupt):
        client.get_many([X, Y])
    assert node.states()[X] == ("sealed", 0)
    client._ask = ask
    assert bytes(client.get(X)) == b"hello"


def test_an_answer_about_too_few_objects_is_an_error(node: Any) -> None:
    client = node.client(ME)
    client._ask = lambda make, timeout_s: ObjectsPinned(1, [])
    with pytest.raises(exceptions.RaySystemError, match="ObjectsPinned"):
        client.get(X)


def test_many_threads_leave_no_pin_behind(node: Any) -> None:
    client = node.client(ME)
    ids = [bytes([index]) * 28 for index in range(5)]
    for object_id in ids:
        put(client, object_id, object_id)

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        held: list[memoryview | None] = []
        for _ in range(300):
            object_id = ids[rng.integers(5)]
            view = client.get(object_id)
            assert view is not None
            assert bytes(view) == object_id
            held.append(view)
            if len(held) > 3:
                del held[: rng.integers(4)]

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.pinned_count == 0
    assert node.states() == dict.fromkeys(ids, ("sealed", 0))


# ------------------------------------------------------------------------------- writable copies


def test_a_writable_copy_leaves_the_object_alone(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello" * 2000)
    first = client.get_writable(X)
    second = client.get_writable(X)
    first[:5] = b"HELLO"
    assert bytes(first[:10]) == b"HELLOhello"
    assert bytes(second[:10]) == b"hellohello"
    assert bytes(client.get(X)[:10]) == b"hellohello"
    assert np.frombuffer(second, np.uint8).flags.writeable


def test_a_writable_copy_keeps_the_object_until_its_last_buffer_dies(node: Any) -> None:
    client = node.client(ME)
    put(client, X, bytes(10_000))
    array = np.frombuffer(client.get_writable(X), np.uint8)[5000:]
    assert node.states()[X] == ("sealed", 1)
    client.free(X)
    assert node.states()[X] == ("leaving", 1)
    array[:] = 7
    assert int(array.sum()) == 35_000
    del array
    assert node.states() == {}


# --------------------------------------------------------------------------------------- owning


def test_an_owner_reads_its_object_without_asking(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello", adopt=True)
    view = client.get(X)
    assert bytes(view) == b"hello"
    del view
    assert bytes(client.get(X)) == b"hello"
    assert [type(message) for message in node.received] == [CreateObject, SealObject]


def test_an_owner_frees_after_its_last_buffer(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello", adopt=True)
    view = client.get(X)
    client.free(X)
    assert node.told(FreeObjects) == []
    again = client.get(X)
    del view
    assert bytes(again) == b"hello"
    assert node.told(FreeObjects) == []
    del again
    assert node.told(FreeObjects) == [FreeObjects([X])]
    assert node.states() == {}
    assert client.get(X) is None


def test_an_owner_without_buffers_frees_at_once_and_together(node: Any) -> None:
    client = node.client(ME)
    for object_id in (X, Y):
        put(client, object_id, b"hello", adopt=True)
    put(client, Z, b"hello")
    pinned = client.get(Z)
    client.free_many([X, Y, Z])
    assert node.told(FreeObjects) == [FreeObjects([X, Y, Z])]
    assert node.states() == {Z: ("leaving", 1)}
    del pinned
    assert node.states() == {}


def test_a_place_that_is_told_is_read_and_can_be_forgotten(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    (copy,) = node.server.store.copies()
    client.place(X, copy.offset, copy.size)
    view = client.get(X)
    assert bytes(view) == b"hello"
    assert node.told(PinObjects) == []
    assert not client.forget(X)
    del view
    assert client.forget(X)
    assert bytes(client.get(X)) == b"hello"
    assert len(node.told(PinObjects)) == 1


# ------------------------------------------------------------------------------------- lifetime


def test_buffers_outlive_the_client(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    view = client.get(X)
    writable = client.get_writable(X)
    sent = len(node.received)
    client.close()
    client.close()
    assert bytes(view) == b"hello"
    writable[:] = b"HELLO"
    del view, writable
    assert len(node.received) == sent
    with pytest.raises(RuntimeError, match="closed"):
        client.get(X)
    with pytest.raises(RuntimeError, match="closed"):
        put(client, Y, b"hello")


def test_close_ends_the_copying_threads(node: Any) -> None:
    client = node.client(ME)
    source = memoryview(bytes(20 * MIB))
    client.put(X, ME, 20 * MIB, lambda view: client.copy(view, source))
    client.close()
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith("mray-copy")]


def test_mappings_are_not_dumped_and_the_writing_one_is_not_inherited(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    view = client.get(X)
    flags = {}
    with open("/proc/self/smaps") as smaps:
        rights = ""
        for line in smaps:
            if node.arena.path in line:
                rights = line.split()[1]
            elif line.startswith("VmFlags:") and rights:
                flags[rights] = line.split()[1:]
                rights = ""
    assert set(flags) == {"r--s", "rw-s"}
    assert "dd" in flags["r--s"]
    assert "dc" not in flags["r--s"]
    assert {"dd", "dc"} <= set(flags["rw-s"])
    del view


def test_a_forked_child_reads_what_it_inherits_and_tells_the_node_nothing(node: Any) -> None:
    client = node.client(ME)
    put(client, X, b"hello")
    array = np.frombuffer(client.get(X), np.uint8)
    read_end, write_end = os.pipe()
    sent = len(node.received)
    child = os.fork()
    if child == 0:
        # Leaves by os._exit whatever happens: this is a copy of the test runner.
        try:
            assert array.tobytes() == b"hello"
            del array
            gc.collect()
            with pytest.raises(RuntimeError, match="forked"):
                client.get(X)
            with pytest.raises(RuntimeError, match="forked"):
                put(client, Y, b"hello")
            assert len(node.received) == sent, node.received[sent:]
        except BaseException:
            os.write(write_end, traceback.format_exc().encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end) as report:
        assert report.read() == ""
    os.waitpid(child, 0)
    assert node.states()[X] == ("sealed", 1)
    assert array.tobytes() == b"hello"


def test_importing_the_client_does_not_import_numpy_or_zmq() -> None:
    code = (
        "import sys, mray.store.client; heavy = ('numpy', 'zmq', 'asyncio', 'cloudpickle');"
        "print([name for name in heavy if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout.strip(), result.stderr) == ("[]", "")
