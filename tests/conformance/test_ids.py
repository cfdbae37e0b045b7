"""ids as values: ray.TaskID and its like, ObjectRef.nil() and from_binary(), where objects are."""

from __future__ import annotations

import importlib
import pickle

import pytest

pytestmark = pytest.mark.conformance

SIZES = {
    "TaskID": 24,
    "JobID": 4,
    "ActorID": 16,
    "NodeID": 28,
    "WorkerID": 28,
    "FunctionID": 28,
    "UniqueID": 28,
    "ActorClassID": 28,
    "PlacementGroupID": 18,
}
kinds = pytest.mark.parametrize("kind", sorted(SIZES))


@kinds
def test_an_id_is_made_of_its_bytes(ray, kind):
    type_, size = getattr(ray, kind), SIZES[kind]
    made = type_(b"\1" * size)
    assert type_.size() == size
    assert made.binary() == b"\1" * size
    assert made.hex() == "01" * size
    assert repr(made) == str(made) == f"{kind}({'01' * size})"
    assert type_.from_binary(b"\1" * size) == made
    assert not made.is_nil()


@kinds
def test_equal_ids_are_one_key(ray, kind):
    type_, size = getattr(ray, kind), SIZES[kind]
    one, same, other = type_(b"\1" * size), type_(b"\1" * size), type_(b"\2" * size)
    assert one == same
    assert one != other
    assert {one: 1}[same] == 1
    assert one != b"\1" * size
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(TypeError):
        _ = one < other


@kinds
def test_wrong_bytes_are_refused(ray, kind):
    type_ = getattr(ray, kind)
    with pytest.raises(ValueError):
        type_(b"\1")
    with pytest.raises(TypeError):
        type_("01" * SIZES[kind])


@kinds
def test_the_id_of_nothing(ray, kind):
    type_ = getattr(ray, kind)
    assert type_.nil().is_nil()
    assert type_.nil() == type_.nil()
    assert type_.nil().binary() == b"\xff" * SIZES[kind]


@pytest.mark.parametrize("kind", sorted(SIZES.keys() - {"UniqueID"}))
def test_an_id_is_read_from_hex(ray, kind):
    type_ = getattr(ray, kind)
    assert type_.from_hex("01" * SIZES[kind]) == type_(b"\1" * SIZES[kind])


@pytest.mark.parametrize("kind", ["ActorID", "NodeID", "WorkerID", "UniqueID", "PlacementGroupID"])
def test_random_ids_differ(ray, kind):
    type_ = getattr(ray, kind)
    assert type_.from_random() != type_.from_random()


def test_a_job_id_is_a_number(ray):
    assert ray.JobID.from_int(7).hex() == "07000000"
    assert ray.JobID.from_int(7).int() == 7


def test_ids_are_found_where_libraries_look_for_them(ray):
    raylet = importlib.import_module(f"{ray.__name__}._raylet")
    for kind in SIZES:
        assert getattr(raylet, kind) is getattr(ray, kind)
    assert raylet.ObjectRef is raylet.ObjectID is ray.ObjectRef is ray.ObjectID


def test_a_reference_tells_its_task_and_job(ray):
    ref = ray.put(1)
    assert isinstance(ref.task_id(), ray.TaskID)
    assert isinstance(ref.job_id(), ray.JobID)
    assert ref.hex().startswith(ref.task_id().hex())
    assert ref.task_id().job_id() == ref.job_id()
    assert ref.job_id().hex() == ray.get_runtime_context().get_job_id()
    assert isinstance(ref.call_site(), str)


def test_the_reference_to_nothing(ray):
    nil = ray.ObjectRef.nil()
    assert nil.is_nil()
    assert nil == ray.ObjectRef.nil()
    assert nil.hex() == "ff" * 28
    assert ray.ObjectRef.size() == 28
    assert not ray.put(1).is_nil()
    assert ray.ObjectRef.from_random() != ray.ObjectRef.from_random()
    with pytest.raises(ValueError):
        ray.ObjectRef.from_binary(b"\1")
    with pytest.raises(TypeError):
        ray.ObjectRef.from_binary("01" * 28)


def test_a_reference_made_of_the_bytes_of_another_reads_its_value(ray):
    ref = ray.put("value")
    same = ray.ObjectRef.from_binary(ref.binary())
    assert same == ref
    assert hash(same) == hash(ref)
    assert ray.get(same) == "value"


def test_the_class_itself_makes_references_of_bytes(ray):
    ref = ray.put(["value"])
    same = ray.ObjectRef(ref.binary())
    assert same == ref
    del ref
    assert ray.get(same) == ["value"]
    assert ray.ObjectRef(b"\xff" * 28).is_nil()
    with pytest.raises(ValueError):
        ray.ObjectRef(b"\1")
    with pytest.raises(TypeError):
        ray.ObjectRef("01" * 28)


def test_a_reference_made_of_bytes_is_counted_as_any(ray, glass):
    ref = ray.put("value")
    watch = glass(ref)
    same = [ray.ObjectRef(ref.binary()) for _ in range(3)]
    del ref
    assert not watch.gone()
    del same
    assert watch.wait_gone()


def test_the_runtime_context_has_ids_as_values(ray):
    context = ray.get_runtime_context()
    assert context.job_id == ray.JobID.from_hex(context.get_job_id())
    assert context.node_id == ray.NodeID.from_hex(context.get_node_id())
    with pytest.raises(AssertionError):
        _ = context.task_id
    with pytest.raises(AssertionError):
        _ = context.actor_id
    assert context.current_placement_group_id.is_nil()
    name = ray.__name__

    @ray.remote
    class Actor:
        def ids(self):
            import importlib

            ray = importlib.import_module(name)
            context = ray.get_runtime_context()
            told = context.get_actor_id(), context.get_task_id(), context.get_job_id()
            return told == (context.actor_id.hex(), context.task_id.hex(), context.job_id.hex())

    assert ray.get(Actor.remote().ids.remote())


def test_the_runtime_context_knows_its_node_and_session(ray):
    context = ray.get_runtime_context()
    (node,) = ray.nodes()
    assert context.get_node_labels() == node["Labels"]
    assert context.get_session_name().startswith("session_")
    assert context.get_temp_dir().startswith("/")


def test_where_a_big_object_is(ray):
    import numpy

    @ray.remote
    def big():
        import numpy

        return numpy.zeros(1_000_000)

    made, put = big.remote(), ray.put(numpy.zeros(1_000_000))
    ray.wait([made], fetch_local=False)
    node_id = ray.get_runtime_context().get_node_id()
    for find in ("get_object_locations", "get_local_object_locations"):
        told = getattr(ray.experimental, find)([made, put])
        assert list(told) == [made, put]
        for facts in told.values():
            assert facts["node_ids"] == [node_id]
            assert 8_000_000 <= facts["object_size"] < 8_001_000
            assert facts["did_spill"] is False


def test_where_an_object_is_that_is_not_there_yet(ray, make_gate):
    gate = make_gate()
    wait = gate.waiter()

    @ray.remote
    def held():
        wait()
        return 1

    ref = held.remote()
    nowhere = {"node_ids": [], "object_size": None, "did_spill": False}
    assert ray.experimental.get_local_object_locations([ref]) == {ref: nowhere}
    assert ray.experimental.get_object_locations([ref], timeout_ms=2000) == {ref: nowhere}
    gate.open()
    ray.get(ref)
    # A small result lives in its owner.
    facts = ray.experimental.get_local_object_locations([ref])[ref]
    assert facts["node_ids"] == []
    assert 0 < facts["object_size"] < 1000


def test_where_nothing_is(ray):
    assert ray.experimental.get_object_locations([]) == {}
    with pytest.raises(TypeError):
        ray.experimental.get_object_locations(ray.put(1))


def test_set_resource_is_refused(ray):
    with pytest.raises(DeprecationWarning):
        ray.experimental.set_resource("x", 1)


def test_the_table_of_keys_and_values(ray):
    kv = importlib.import_module(f"{ray.__name__}.experimental.internal_kv")
    assert kv._internal_kv_initialized()
    assert kv._internal_kv_put("a", "1", namespace="conf") is False
    assert kv._internal_kv_put(b"a", b"2", overwrite=False, namespace=b"conf") is True
    assert kv._internal_kv_get("a", namespace="conf") == b"1"
    assert kv._internal_kv_put("a", "3", namespace="conf") is True
    assert kv._internal_kv_get(b"a", namespace="conf") == b"3"
    assert kv._internal_kv_get("a") is None
    assert kv._internal_kv_exists("a", namespace="conf")
    assert not kv._internal_kv_exists("b", namespace="conf")
    kv._internal_kv_put("ab", "", namespace="conf")
    assert sorted(kv._internal_kv_list("a", namespace="conf")) == [b"a", b"ab"]
    assert kv._internal_kv_del("ab", namespace="conf") == 1
    assert kv._internal_kv_del("ab", namespace="conf") == 0
    assert kv._internal_kv_del("", del_by_prefix=True, namespace="conf") == 1
    assert kv._internal_kv_list("", namespace="conf") == []
    with pytest.raises(AssertionError):
        kv._internal_kv_put("a", 1)
