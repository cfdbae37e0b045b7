"""F19: each kind of request is lost, its reply is lost, and it is asked again: the answer is exact.

The driver of this process asks daemons, a worker and itself, by way of a pump that loses the first
request and then the first reply of each kind (core/rpc/chaos.py). What only daemons and workers ask
is lost by the same rule in all processes of the cluster, whose logs tell of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

import mray
from mray import current
from mray.ids import new_process_id
from mray.packages import file_of, uri_of
from mray.rpc.chaos import Chaos
from mray.wire import messages as m

from ..waiting import eventually
from .conftest import Begin

pytestmark = pytest.mark.failure

#: The first request and the first reply after it are lost.
ONCE_EACH = {
    "num_failures": 2, "num_lower_bound_req_failures": 1, "num_lower_bound_resp_failures": 1,
}  # fmt: skip
PACKAGE = file_of(uri_of("0" * 40))
RULE = json.dumps({"*": ONCE_EACH})


@pytest.fixture(scope="module", autouse=True)
def cluster(begin: Begin) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_testing_rpc_failure", RULE)
        patch.setenv("MRAY_TESTING_RPC_SEED", "1")
        begin(num_cpus=2, num_gpus=1)


Make = Callable[[int], m.Message]


def _ask(peer: m.Address, make: Make, *, lost: bool) -> m.Message:
    """The answer to a request, of which request and reply are lost once where ``lost``."""
    rt = current.get()
    former = rt.pump._ask
    chaos = None
    if lost:
        chaos = Chaos(rt.pump, RULE, "", "seed")
    else:
        rt.pump._ask = functools.partial(type(rt.pump)._ask, rt.pump)  # type: ignore[method-assign]
    try:
        answer = rt.ask_any(peer, make, 20.0)
    finally:
        rt.pump._ask = former  # type: ignore[method-assign]
    if chaos is not None:
        assert chaos.counts.get(type(make(0)).__name__) == 2
    return answer


def _head() -> m.Address:
    return current.get().head


def _node() -> m.Address:
    return current.get().node.address


@functools.cache
def _actor() -> tuple[Any, m.Address, int]:
    """An actor, its process's address, and its pid."""

    class Named:
        def where(self) -> tuple[Any, int]:
            rt = current.get()
            return rt.address, rt.pid

    actor = mray.remote(Named).options(name="named", namespace="lost").remote()
    address, pid = mray.get(actor.where.remote(), timeout=30)
    return actor, address, pid


def _worker() -> m.Address:
    return _actor()[1]


def _job() -> bytes:
    return bytes(current.get().job_id)


def _id(size: int) -> bytes:
    return (new_process_id() * 2)[:size]


@functools.cache
def _stored() -> Any:
    """A reference to a value in the store."""
    import numpy

    return mray.put(numpy.zeros(1 << 20, "uint8"))


def _object() -> bytes:
    return _stored().binary()


def _group() -> m.GroupSpec:
    rt = current.get()
    return m.GroupSpec(_id(18), _job(), rt.address, "PACK", [{"memory": 10_000}], _id(4).hex())


def _submission() -> m.SubmitJob:
    return m.SubmitJob(0, f"job-{_id(4).hex()}", ["true"], "true", b"", {}, "/", {})


def _with_rid(message: Any) -> Make:
    return lambda rid: msgspec.structs.replace(message, rid=rid)


#: By kind: whom to ask, what makes a request (called once a test), what answers it.
ASKED: dict[type[m.Message], tuple[Callable[[], m.Address], Callable[[], Make], type]] = {
    m.Ping: (_node, lambda: m.Ping, m.Ack),
    m.GetHeadState: (_node, lambda: m.GetHeadState, m.HeadState),
    m.GetKeys: (_node, lambda: m.GetKeys, m.ClusterKeys),
    m.GetJobInfo: (_head, lambda: lambda rid: m.GetJobInfo(rid, _job()), m.JobInfoReply),
    m.GetNodes: (_head, lambda: m.GetNodes, m.Nodes),
    m.ListActors: (_head, lambda: m.ListActors, m.ActorList),
    m.GetActor: (_head, lambda: lambda rid: m.GetActor(rid, "named", "lost"), m.ActorFound),
    m.KillActor: (_head, lambda: lambda rid: m.KillActor(rid, _id(16)), m.Ack),
    m.KvPut: (_head, lambda: _with_rid(m.KvPut(0, "t", _id(9), b"v", False)), m.KvPutDone),
    m.KvGet: (_head, lambda: lambda rid: m.KvGet(rid, "t", b"none", 0.1), m.KvValue),
    m.KvDelete: (_head, lambda: lambda rid: m.KvDelete(rid, "t", b"none"), m.Ack),
    m.KvKeys: (_head, lambda: lambda rid: m.KvKeys(rid, "t", b"none"), m.KvKeyList),
    m.PutPackage: (
        _head, lambda: _with_rid(m.PutPackage(0, PACKAGE, 4, 0, b"")), m.PackageState),
    m.GetPackage: (
        _head, lambda: lambda rid: m.GetPackage(rid, PACKAGE, 0), m.PackagePiece),
    m.SubmitJob: (_head, lambda: _with_rid(_submission()), m.JobSubmitted),
    m.GetJobs: (_head, lambda: lambda rid: m.GetJobs(rid, "no such"), m.Jobs),
    m.StopJob: (_head, lambda: lambda rid: m.StopJob(rid, "no such"), m.Refused),
    m.FinishJob: (_head, lambda: lambda rid: m.FinishJob(rid, _id(4)), m.Ack),
    m.CreatePlacementGroup: (
        _head, lambda: _with_rid(m.CreatePlacementGroup(0, _group())), m.Ack),
    m.RemovePlacementGroup: (
        _head, lambda: lambda rid: m.RemovePlacementGroup(rid, _id(18)), m.Ack),
    m.GetPlacementGroups: (
        _head, lambda: lambda rid: m.GetPlacementGroups(rid, "none"), m.PlacementGroups),
    m.TaskEvents: (_head, lambda: lambda rid: m.TaskEvents(rid, 0, 0, b"\x90"), m.Ack),
    m.GetTaskEvents: (_head, lambda: lambda rid: m.GetTaskEvents(rid, [], 5), m.TaskViews),
    m.CountTasks: (_head, lambda: m.CountTasks, m.TaskCounts),
    m.ListLogs: (_node, lambda: lambda rid: m.ListLogs(rid, "no such"), m.LogFiles),
    m.ReadLog: (_node, lambda: lambda rid: m.ReadLog(rid, "raylet.err", 0), m.LogChunk),
    m.DrainLogs: (_node, lambda: lambda rid: m.DrainLogs(rid, _job()), m.Ack),
    m.GetWorkers: (_node, lambda: m.GetWorkers, m.Workers),
    m.GetOomState: (_node, lambda: m.GetOomState, m.OomState),
    m.GetPeaks: (_node, lambda: lambda rid: m.GetPeaks(rid, []), m.Peaks),
    m.GetStoreStats: (_node, lambda: lambda rid: m.GetStoreStats(rid, True), m.StoreStats),
    m.GetMemory: (_node, lambda: lambda rid: m.GetMemory(rid, 10), m.MemoryReport),
    m.CollectGarbage: (_node, lambda: m.CollectGarbage, m.Ack),
    m.GetRunning: (_node, lambda: m.GetRunning, m.Running),
    m.GetTasks: (_node, lambda: lambda rid: m.GetTasks(rid, [], 5), m.TaskViews),
    m.GetStacks: (_node, lambda: _with_rid(m.GetStacks(0, [_actor()[2]])), m.Stacks),
    m.GetMetrics: (_node, lambda: m.GetMetrics, m.NodeMetrics),
    m.PinObjects: (_node, lambda: _with_rid(m.PinObjects(0, [_object()])), m.ObjectsPinned),
    m.CreateObject: (
        _node, lambda: _with_rid(m.CreateObject(0, _id(28), 4096, current.get().process_id)),
        m.ObjectCreated),
    m.PromoteCopies: (
        _node, lambda: _with_rid(m.PromoteCopies(0, [_object()])), m.PromotedCopies),
    m.AdoptCopies: (_node, lambda: lambda rid: m.AdoptCopies(rid, [], []), m.CopiesAdopted),
    m.RegisterProcess: (
        _node, lambda: lambda rid: m.RegisterProcess(
            rid, "driver", current.get().address, current.get().pid, _job()),
        m.ProcessRegistered),
    m.GetReferences: (_worker, lambda: lambda rid: m.GetReferences(rid, 10), m.ReferenceViews),
    m.ExplainObjects: (
        _worker, lambda: lambda rid: m.ExplainObjects(rid, [_id(28)]), m.ObjectsExplained),
    m.LocateObjects: (
        _worker, lambda: lambda rid: m.LocateObjects(rid, [_id(28)]), m.ObjectsLocated),
    m.FreeValues: (_worker, lambda: lambda rid: m.FreeValues(rid, [_id(28)]), m.Ack),
}  # fmt: skip
#: Those that only certain processes ask: the process, and what its log or state tells of it.
BY_OTHERS: dict[type[m.Message], str] = {
    m.RegisterNode: "node",
    m.GetGpus: "worker",
    m.RegisterActor: "driver",
    m.SerializersChanged: "worker",
    m.GiveUpPlaces: "node",
}
#: Asked once, at the end or the beginning of something: those have tests of their own.
ELSEWHERE: dict[type[m.Message], str] = {
    m.Shutdown: "asked by pids as well: integration/test_cli_cluster",
    m.DrainNode: "integration/multi_node/test_draining",
    m.MayRetire: "asked of idle workers only: conformance/test_several_drivers",
    m.RegisterJob: "failure/test_head_death: asked again after the head's death",
}
_REPLIES = {
    m.Ack, m.Refused, m.NodeRegistered, m.ProcessRegistered, m.JobRegistered, m.JobInfoReply,
    m.ObjectsExplained, m.PlacementGroups, m.PlacesGivenUp, m.KvKeyList, m.ActorFound, m.GpusHeld,
    *(answer for _, _, answer in ASKED.values()), m.ActorRegistered,
}  # fmt: skip


def test_every_kind_of_request_is_in_one_table() -> None:
    kinds = {
        kind for kind in get_args(m.AnyMessage)
        if "rid" in kind.__struct_fields__ and kind not in _REPLIES
    }  # fmt: skip
    assert kinds == {*ASKED, *BY_OTHERS, *ELSEWHERE}
    assert len(ASKED) + len(BY_OTHERS) + len(ELSEWHERE) == len(kinds)


#: What differs between two answers though nothing was lost: times, counts, what is drawn.
_MOVING = (
    m.Nodes, m.HeadState, m.Workers, m.OomState, m.StoreStats, m.MemoryReport, m.Running,
    m.TaskViews, m.TaskCounts, m.Stacks, m.NodeMetrics, m.ActorList, m.ReferenceViews, m.Peaks,
    m.ObjectCreated, m.JobSubmitted,
)  # fmt: skip


@pytest.mark.parametrize("kind", ASKED, ids=lambda kind: kind.__name__)
def test_a_request_whose_reply_is_lost_has_the_same_answer_when_asked_again(
    kind: type[m.Message],
) -> None:
    peer, making, reply = ASKED[kind]
    plain: Any = _ask(peer(), making(), lost=False)
    answer: Any = _ask(peer(), making(), lost=True)
    assert type(plain) is reply, plain
    assert type(answer) is reply, answer
    if not isinstance(answer, _MOVING):
        assert msgspec.structs.replace(answer, rid=plain.rid) == plain


def _logged(pattern: str, text: str) -> bool:
    folder = Path(current.get().node.log_dir)
    return any(text in path.read_text(errors="replace") for path in folder.glob(pattern))


def test_programs_have_their_results_while_all_processes_lose_what_they_ask() -> None:
    import numpy

    @mray.remote
    def add(x: int, y: int) -> int:
        return x + y

    @mray.remote
    def nested(count: int) -> int:
        return sum(mray.get([add.remote(i, 1) for i in range(count)]))

    @mray.remote
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def up(self) -> int:
            self.count += 1
            return self.count

    @mray.remote(num_gpus=1)
    def gpus() -> list[Any]:
        return mray.get_gpu_ids()

    assert mray.get([add.remote(i, i) for i in range(50)], timeout=30) == [2 * i for i in range(50)]
    assert mray.get(nested.remote(10), timeout=30) == 55
    counters = [Counter.remote() for _ in range(2)]
    for expected in (1, 2, 3):
        assert mray.get([each.up.remote() for each in counters], timeout=30) == [expected] * 2
    assert mray.get(gpus.remote(), timeout=30) == [0]
    total = mray.remote(lambda array: float(array.sum()))
    for _ in range(3):
        assert mray.get(total.remote(mray.put(numpy.ones(1 << 20))), timeout=30) == 1 << 20
    eventually(lambda: _logged("raylet.out", "RegisterNode"), 10, "the node lost what it asked")
    assert _logged("raylet.out", "RegisterNode: the reply is lost")
    assert _logged("worker-*.err", "GetGpus: the reply is lost")
