"""`mray status`, `mray list`, `mray health-check`: what is shown of a cluster."""

from __future__ import annotations

import json

import pytest

from mray.resources import to_fixed
from mray.rpc.client import AskError
from mray.wire.messages import (
    ActorList,
    ActorState,
    Address,
    DeathCause,
    GetJobs,
    GetNodes,
    GetPlacementGroups,
    GetStoreStats,
    GetWorkers,
    GroupSpec,
    Jobs,
    ListActors,
    LostOutput,
    PlacementGroups,
    PlacementGroupState,
    SpillFigures,
    StoreStats,
    Workers,
    WorkerView,
)


@pytest.fixture
def two_nodes(cluster, make_node):
    """A cluster with demands, whose second node has died."""
    demand = [(to_fixed({"CPU": 1}), 12), (to_fixed({"GPU": 1, "memory": 2**30}), 1)]
    dead = make_node(2, "DEAD", cause=DeathCause("node_died", "no heartbeat for 15 s"))
    nodes = cluster.answers[GetNodes]
    cluster.answers[GetNodes] = type(nodes)(
        nodes.rid, nodes.cluster_id, nodes.head, [make_node(1, pending=demand), dead], 90.0
    )
    return cluster


def test_status_shows_nodes_use_demands_and_jobs(mray, two_nodes, make_job):
    two_nodes.answers[GetJobs] = Jobs(7, [make_job("a"), make_job("b"), make_job("c", "FAILED")])
    outcome = mray("status")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("Cluster cccccccccccc at 127.0.0.1:6379, up 1 min 30 s\n")
    for part in (
        "6d1111111111  10.0.0.1  ALIVE (head)  1.5/4",
        "1.5/16 GiB (15.2)",
        "1.5 of 4                  CPU",
        "Memory monitor: every 250 ms, ends workers above 0.95",
        "12 tasks or actors for 1 CPU",
        "1 task or actor for 1 GPU, 1 GiB memory",
        "1 FAILED, 2 RUNNING",
        "is DEAD: no heartbeat for 15 s",
    ):
        assert part in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 100


def test_status_says_where_the_memory_monitor_is_off(mray, cluster, make_node):
    nodes = cluster.answers[GetNodes]
    views = [make_node(1, memory_threshold_bytes=0), make_node(2, memory_limit_bytes=0)]
    cluster.answers[GetNodes] = type(nodes)(nodes.rid, nodes.cluster_id, nodes.head, views, 90.0)
    first, second = [line for line in mray("status").out.splitlines() if line.startswith("6d")]
    assert "1.5/16 GiB (off)" in first
    assert " 0/4  - " in second or " 1.5/4  - " in second, second


def test_status_says_what_of_the_logs_is_lost(mray, cluster, make_node):
    nodes = cluster.answers[GetNodes]
    views = [
        make_node(1, lost_output=LostOutput(1234, 5 * 2**20, "[Errno 28] No space left on device")),
        make_node(2, lost_output=LostOutput(1, 80)),
        make_node(3),
    ]
    cluster.answers[GetNodes] = type(nodes)(nodes.rid, nodes.cluster_id, nodes.head, views, 90.0)
    out = mray("status").out
    assert (
        "Lost log lines\n"
        "  1,234 lines (5 MiB) of the workers of node 6d1111111111, and all that come now\n"
        "  not written: [Errno 28] No space left on device\n"
        "  1 line (80 B) of the workers of node 6d1212121212, what came later was kept\n"
    ) in out
    facts = json.loads(mray("status", "--json").out)["nodes"]
    assert [
        (node["lost_log_lines"], node["lost_log_bytes"], node["log_trouble"]) for node in facts
    ] == [(1234, 5 * 2**20, "[Errno 28] No space left on device"), (1, 80, None), (0, 0, None)]


def test_status_tells_of_no_lost_lines_where_there_are_none(mray, two_nodes):
    assert "Lost log lines" not in mray("status").out


def test_status_as_json_has_full_ids_and_plain_numbers(mray, two_nodes):
    outcome = mray("status", "--json")
    facts = json.loads(outcome.out)
    assert facts["resources"]["CPU"] == {"used": 1.5, "total": 4.0}
    assert [node["state"] for node in facts["nodes"]] == ["ALIVE", "DEAD"]
    assert facts["nodes"][0]["node_id"] == "6d" + "11" * 27
    assert facts["nodes"][0]["memory_used_bytes"] == 3 * 2**29
    assert facts["nodes"][0]["memory_limit_bytes"] == 16 * 2**30
    assert facts["nodes"][0]["memory_threshold_bytes"] == 15 * 2**30 + 2**28
    assert facts["pending"][0] == {"resources": {"CPU": 1.0}, "count": 12}


def test_status_of_a_silent_head_is_one_line(mray, cluster):
    cluster.answers[GetNodes] = AskError("RpcError", "no answer in time")
    outcome = mray("status")
    assert (outcome.code, len(outcome.err_lines)) == (1, 1)
    assert "does not answer" in outcome.err
    assert cluster.closed


def test_status_without_a_cluster_says_where_it_looked(mray):
    outcome = mray("status")
    assert (outcome.code, len(outcome.err_lines)) == (1, 1)
    assert "no running cluster found" in outcome.err
    assert "mray start --head" in outcome.err


def test_an_address_that_is_none_is_exit_code_2(mray):
    outcome = mray("status", "--address", "not an address")
    assert (outcome.code, len(outcome.err_lines)) == (2, 1)
    assert "not an address" in outcome.err


def test_health_check_answers_by_exit_code(mray, cluster):
    assert mray("health-check").code == 0
    assert json.loads(mray("health-check", "--json").out)["healthy"] is True
    cluster.answers[GetNodes] = AskError("RpcError", "no answer in time")
    assert mray("health-check").code == 1


def _actor(number: int, state: str) -> ActorState:
    return ActorState(
        actor_id=bytes([number]) * 16,
        state=state,
        incarnation=0,
        worker=None,
        pid=number,
        class_name="Counter",
    )


def test_list_filters_before_it_cuts(mray, cluster):
    many = [_actor(number, "DEAD") for number in range(200)] + [_actor(250, "ALIVE")]
    cluster.answers[ListActors] = ActorList(7, many)
    outcome = mray("list", "actors", "-f", "state=ALIVE", "--json")
    assert [entry["pid"] for entry in json.loads(outcome.out)] == [250]
    outcome = mray("list", "actors", "--limit", "10")
    assert len(outcome.out.splitlines()) == 11
    assert outcome.err == "mray: showing 10 of 201 entries\n"


def test_list_nodes_and_jobs(mray, two_nodes, make_job):
    two_nodes.answers[GetJobs] = Jobs(7, [make_job("old"), make_job("new", start_unix_s=2e9)])
    assert [entry["ip"] for entry in json.loads(mray("list", "nodes", "--json").out)] == [
        "10.0.0.1", "10.0.0.2",
    ]  # fmt: skip
    jobs = json.loads(mray("list", "jobs", "--format", "json").out)
    assert [job["submission_id"] for job in jobs] == ["new", "old"]


def test_list_names_nodes_that_cannot_be_asked(mray, two_nodes):
    worker = WorkerView(b"\x6d" * 28, 77, "idle", b"", b"", b"", to_fixed({"CPU": 1}), 3.2)
    driver = WorkerView(b"\x6e" * 28, 78, "idle", b"\1\0\0\0", b"", b"", {}, 9.0)
    two_nodes.answers[GetWorkers] = Workers(7, [worker], [driver])
    outcome = mray("list", "workers")
    assert outcome.err == "mray: node 6d1212121212 is DEAD and was not asked\n"
    lines = outcome.out.splitlines()
    assert lines[0].split() == [
        "WORKER_ID", "TYPE", "STATE", "PID", "NODE_ID", "AGE_S", "EXIT_TYPE",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines[1:]] == ["worker", "driver"]


def test_list_objects_biggest_first(mray, cluster):
    rows = [(bytes([n]) * 28, n * 1000, "SEALED", 1, b"o" * 28) for n in (1, 3, 2)]
    cluster.answers[GetStoreStats] = StoreStats(7, 10, 5, 1, 3, rows)
    sizes = [entry["size_bytes"] for entry in json.loads(mray("list", "objects", "--json").out)]
    assert sizes == [3000, 2000, 1000]


def test_list_of_nothing_says_so(mray, cluster):
    cluster.answers[ListActors] = ActorList(7, [])
    assert mray("list", "actors").out == "no actors\n"
    assert mray("list", "actors", "--json").out == "[]\n"


@pytest.mark.parametrize(
    "words",
    [["pets"], ["actors", "--filter", "state"], ["actors", "--format", "xml"], []],
)
def test_list_refuses_what_it_does_not_have(mray, cluster, words):
    outcome = mray("list", *words)
    assert (outcome.code, len(outcome.err_lines)) == (2, 1)


def test_a_name_that_moves_the_cursor_is_shown_not_obeyed(mray, cluster, make_job):
    cluster.answers[GetJobs] = Jobs(7, [make_job(entrypoint="job.py \x1b[2J\nx")])
    outcome = mray("job", "list")
    assert "\x1b" not in outcome.out
    assert "job.py \\x1b[2J\\nx" in outcome.out


def test_status_says_what_is_on_disk_and_which_disks_fail(mray, cluster, make_node):
    nodes = cluster.answers[GetNodes]
    figures = SpillFigures(3, 9 * 2**20, 5, 6 * 2**20, 2, ["/disk: it is full"])
    views = [make_node(1), make_node(2, store_spilled_bytes=7 * 2**20, spilling=figures)]
    cluster.answers[GetNodes] = type(nodes)(nodes.rid, nodes.cluster_id, nodes.head, views, 90.0)
    text = mray("status").out
    assert (
        "Objects on disk\n"
        "  7 MiB of node 6d1212121212, 3 spilled objects; so far 9 MiB written, 6 MiB read back\n"
        "  not written to: /disk: it is full\n"
    ) in text
    calm, spilling = json.loads(mray("status", "--json").out)["nodes"]
    assert (calm["spilled_bytes"], calm["spill_troubles"]) == (0, [])
    assert spilling["spilled_bytes"] == 7 * 2**20
    assert spilling["spilled_objects_total"] == 5
    assert spilling["restored_bytes_total"] == 6 * 2**20
    assert spilling["spill_troubles"] == ["/disk: it is full"]


def test_status_tells_of_placement_groups_and_what_they_wait_for(mray, cluster) -> None:
    spec = GroupSpec(b"g" * 18, b"job1", Address(b"d", b"n"), "PACK", [{"CPU": 10_000}])
    waits = PlacementGroupState(b"g" * 18, spec, "PENDING", [b""], "waits for room: 1 CPU")
    there = PlacementGroupState(b"h" * 18, spec, "CREATED", [b"n" * 28])
    cluster.answers[GetPlacementGroups] = PlacementGroups(7, [waits, there])
    done = mray("status")
    assert "1 CREATED, 1 PENDING" in done.out
    assert "676767676767 waits for room: 1 CPU" in done.out
    done = mray("list", "placement-groups", "-f", "state=PENDING")
    assert "waits for room: 1 CPU" in done.out
    assert "CREATED" not in done.out
