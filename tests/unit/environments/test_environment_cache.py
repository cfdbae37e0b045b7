"""Which parts of environments are made, kept and removed."""

from __future__ import annotations

from mray.node.environments.cache import RETRY_S, Cache, Make, Remove, Settled
from mray.node.environments.parts import Part, Plan

CODE = Part("package", "code", "code.zip")
MODULE = Part("package", "module", "module.zip")
OTHER = Part("package", "other", "other.zip")


def kinds(effects: list[object], kind: type) -> list[object]:
    return [effect for effect in effects if isinstance(effect, kind)]


def test_an_environment_of_nothing_is_there_at_once() -> None:
    cache = Cache(0)
    assert cache.need(b"env", Plan(), b"job", 0.0) == [Settled(b"env", "")]
    cache.check()


def test_an_environment_is_there_when_all_its_parts_are() -> None:
    cache = Cache(0)
    plan = Plan(working_dir=CODE, modules=(MODULE,), timeout_s=5.0)
    assert cache.need(b"env", plan, b"job", 0.0) == [Make(CODE, 5.0), Make(MODULE, 5.0)]
    assert cache.made("code", 10) == []
    assert cache.made("module", 10) == [Settled(b"env", "")]
    assert cache.need(b"env", plan, b"job", 1.0) == [Settled(b"env", "")]
    cache.check()


def test_a_part_of_two_environments_is_made_once() -> None:
    cache = Cache(0)
    both = Plan(working_dir=CODE, modules=(MODULE,))
    cache.need(b"one", Plan(working_dir=CODE), b"job", 0.0)
    assert [e.part for e in kinds(cache.need(b"two", both, b"job", 0.0), Make)] == [MODULE]
    assert cache.made("code", 1) == [Settled(b"one", "")]
    assert cache.made("module", 1) == [Settled(b"two", "")]


def test_what_waits_for_is_said() -> None:
    cache = Cache(0)
    cache.need(b"env", Plan(working_dir=CODE, modules=(MODULE,)), b"job", 0.0)
    cache.made("code", 1)
    assert cache.progress(b"env") == "gcs://module.zip is fetched and unpacked"
    assert cache.progress(b"unknown") == ""


def test_a_failure_is_the_answer_for_a_while_and_then_tried_again() -> None:
    cache = Cache(0)
    plan = Plan(working_dir=CODE)
    cache.need(b"env", plan, b"job", 0.0)
    assert cache.failed("code", "no room", 1.0) == [Settled(b"env", "no room")]
    assert cache.need(b"env", plan, b"job", 1.0 + RETRY_S / 2) == [Settled(b"env", "no room")]
    again = cache.need(b"env", plan, b"job", 1.0 + RETRY_S)
    assert kinds(again, Make) == [Make(CODE, plan.timeout_s)]
    assert cache.made("code", 1) == [Settled(b"env", "")]
    cache.check()


def test_one_failed_part_settles_the_environment_while_others_are_made() -> None:
    cache = Cache(0)
    cache.need(b"env", Plan(working_dir=CODE, modules=(MODULE,)), b"job", 0.0)
    assert cache.failed("code", "broken", 0.0) == [Settled(b"env", "broken")]
    assert cache.made("module", 1) == []


def test_unused_parts_are_kept_up_to_the_size_and_the_oldest_go_first() -> None:
    cache = Cache(15)
    for number, part in enumerate((CODE, MODULE, OTHER)):
        cache.need(b"env%d" % number, Plan(working_dir=part), b"job%d" % number, 0.0)
        cache.made(part.name, 10)
    assert cache.job_gone(b"job0") == []
    assert cache.job_gone(b"job1") == [Remove("code")]
    cache.check()
    # The one that is still there is used again, and the third is not touched.
    assert cache.need(b"env1", Plan(working_dir=MODULE), b"job3", 1.0) == [Settled(b"env1", "")]
    assert cache.job_gone(b"job2") == []


def test_parts_in_use_stay_whatever_their_size() -> None:
    cache = Cache(0)
    cache.need(b"env", Plan(working_dir=CODE), b"one", 0.0)
    cache.need(b"env", Plan(working_dir=CODE), b"two", 0.0)
    cache.made("code", 1 << 40)
    assert cache.job_gone(b"one") == []
    assert cache.job_gone(b"two") == [Remove("code")]
    assert kinds(cache.need(b"env", Plan(working_dir=CODE), b"three", 0.0), Make)


def test_a_job_that_goes_while_its_part_is_made_leaves_it_to_be_removed() -> None:
    cache = Cache(0)
    cache.need(b"env", Plan(working_dir=CODE), b"job", 0.0)
    assert cache.job_gone(b"job") == []
    assert cache.made("code", 5) == [Remove("code")]
    assert cache.made("code", 5) == []
    cache.check()
