"""`mray memory`: options, Ray's spellings, JSON, nodes that cannot be asked."""

from __future__ import annotations

import json

import pytest

from mray.rpc.client import AskError
from mray.wire.messages import (
    GetMemory,
    GetNodes,
    MemoryReport,
    ProcessReferences,
    ReferenceView,
    ReferenceViews,
    StoredView,
    StoreStats,
)

DRIVER = b"\x6d" + b"\xd0" * 27


def seen(number: int, kind: str, size: int) -> ReferenceView:
    object_id = number.to_bytes(8, "little") + DRIVER[1:13] + b"\x01\0\0\0" + b"\0\0\0\0"
    return ReferenceView(
        object_id, DRIVER, "put", size, "ready", "", size > 100, {kind: 1}, [], 90.0, "/a/job.py:7"
    )


@pytest.fixture
def filled(cluster):
    """A cluster whose node tells of three objects, one of them a leak."""
    views = [
        seen(1, "LOCAL_REFERENCE", 2**20), seen(2, "OUT_OF_BAND", 50),
        seen(3, "USED_BY_PENDING_TASK", 2**21),
    ]  # fmt: skip
    kinds = {"LOCAL_REFERENCE": 1, "OUT_OF_BAND": 1, "USED_BY_PENDING_TASK": 1}
    answer = ReferenceViews(1, "", 3, views, kinds, [])
    driver = ProcessReferences(DRIVER, 4101, "driver", b"\x01\0\0\0", "", b"", answer)
    stored = [StoredView(one.object_id, DRIVER, one.size_bytes, "sealed", []) for one in views[::2]]
    cluster.answers[GetMemory] = MemoryReport(
        7, StoreStats(7, 10 * 2**20, 3 * 2**20, 0, 2), stored, [driver]
    )
    return cluster


def test_totals_objects_and_call_sites(mray, filled):
    outcome = mray("memory")
    assert (outcome.code, outcome.err) == (0, "")
    for part in (
        "Objects  3, 3 MiB", "3 MiB of 10 MiB used (30 %), 2 objects", "OUT_OF_BAND 4101",
        "CALL SITE", "job.py:7",
    ):  # fmt: skip
        assert part in outcome.out
    assert filled.closed


def test_json_has_full_ids_and_plain_numbers(mray, filled):
    facts = json.loads(mray("memory", "--json", "-n", "2").out)
    assert [one["size_bytes"] for one in facts["objects"]] == [2**21, 2**20]
    assert len(facts["objects"][0]["object_id"]) == 56
    assert facts["objects"][0]["references"][0]["kinds"] == {"USED_BY_PENDING_TASK": 1}
    assert facts["nodes"][0]["store"]["used_bytes"] == 3 * 2**20
    assert facts["totals"]["objects"] == 3
    assert facts["call_sites"] == [
        {"call_site": "/a/job.py:7", "objects": 2, "size_bytes": 3 << 20}
    ]


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["--sort", "size"], 3), (["--sort-by", "OBJECT_SIZE"], 3), (["--sort-by", "PID"], 1),
        (["--sort-by", "REFERENCE_TYPE"], 1), (["--filter", "kind=OUT_OF_BAND"], 2),
        (["-f", "kind!=OUT_OF_BAND", "-f", "kind!=USED_BY_PENDING_TASK"], 1), (["--leaks"], 2),
        (["--filter", "object_id=02"], 2),
    ],
)  # fmt: skip
def test_which_object_comes_first(mray, filled, words, first):
    facts = json.loads(mray("memory", "--json", *words).out)
    assert facts["objects"][0]["object_id"].startswith(f"{first:02x}")


def test_groups_by_rays_words_too(mray, filled):
    assert "3 MiB        3  /a/job.py:7" in mray("memory", "--group-by", "STACK_TRACE").out
    facts = json.loads(mray("memory", "--group-by", "NODE_ADDRESS", "--json").out)
    assert [group["objects"] for group in facts["groups"]] == [3]


def test_few_filtered_objects_are_shown_in_full(mray, filled):
    out = mray("memory", "--filter", "kind=OUT_OF_BAND").out
    assert "why alive  pickled out of band: kept until driver 4101 ends" in out


def test_leaks_say_what_is_listed(mray, filled):
    out = mray("memory", "--leaks", "--older-than", "1min", "--stats-only").out
    assert len(out.splitlines()) == 3
    out = mray("memory", "--leaks", "--older-than", "1min", "--units", "MB").out
    assert (
        "2 objects kept alive without a live Python reference, or older than 1 min and read by "
        "nobody" in out
    )
    assert "1.0 MiB" in out


@pytest.mark.parametrize(
    "words",
    [
        ["--sort", "colour"], ["--group-by", "colour"], ["--units", "TB"],
        ["--filter", "colour=red"], ["--filter", "size"], ["--older-than", "1min"],
        ["--leaks", "--older-than", "soon"], ["-n", "0"], ["--no-format"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_cannot_be_meant_is_exit_code_2_before_anybody_is_asked(mray, filled, words):
    outcome = mray("memory", *words)
    assert (outcome.code, outcome.out, len(outcome.err_lines)) == (2, "", 1)
    assert not filled.asked


def test_nodes_that_cannot_be_asked_are_named(mray, filled, make_node):
    nodes = filled.answers[GetNodes]
    filled.answers[GetNodes] = type(nodes)(
        nodes.rid, nodes.cluster_id, nodes.head, [make_node(1), make_node(2, "DEAD")], 90.0
    )
    outcome = mray("memory")
    assert outcome.code == 0
    assert "could not be asked: it is DEAD" in outcome.out


def test_without_any_answer_it_fails(mray, filled):
    filled.answers[GetMemory] = AskError("RpcError", "no answer in time")
    outcome = mray("memory")
    assert outcome.code == 1
    assert "no answer in time" in outcome.out
    assert "no node could be asked" in outcome.err
