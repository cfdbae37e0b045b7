"""The rows and the timing of the benchmark, with an engine that runs everything on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import isgenerator
from typing import Any

import pytest

from mray import microbenchmark
from mray.microbenchmark import Bench, Result, Timing

#: One call a round: the figures mean nothing, the calls are made.
INSTANT = Timing(settle_s=0, warmup_s=0, round_s=0, round_count=2, batch_divisor=1000)


class Remote:
    """What @remote makes of a function or a class."""

    def __init__(self, target: Callable[..., Any], killed: list[object]) -> None:
        self._target, self._killed = target, killed

    def options(self, **_options: object) -> Remote:
        return self

    def remote(self, *args: object) -> Any:
        made = self._target(*(a.value if isinstance(a, Ref) else a for a in args))
        if isgenerator(made):
            return map(Ref, made)
        return Handle(made) if isinstance(self._target, type) else Ref(made)


class Handle:
    def __init__(self, instance: object) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> Remote:
        return Remote(getattr(self._instance, name), [])


class Ref:
    def __init__(self, value: object) -> None:
        self.value = value


class Here:
    """An engine without processes."""

    def __init__(self) -> None:
        self.killed: list[object] = []

    def remote(self, target: Callable[..., Any]) -> Remote:
        return Remote(target, self.killed)

    def put(self, value: object) -> Ref:
        return Ref(value)

    def get(self, refs: Any, timeout: float | None = None) -> Any:
        return [ref.value for ref in refs] if isinstance(refs, list) else refs.value

    def wait(self, refs: list[Ref], fetch_local: bool = True) -> tuple[list[Ref], list[Ref]]:
        return refs[:1], refs[1:]

    def kill(self, handle: object) -> None:
        self.killed.append(handle)


def test_names_are_unique_and_every_row_has_a_unit() -> None:
    assert len(microbenchmark.ROWS) == 31
    assert {unit for unit, _ in microbenchmark.ROWS.values()} == {"/s", "GB/s", "items/s", "refs/s"}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["single client tasks sync"], ["single client tasks sync"]),
        (["1:1 actor calls sync"], ["1:1 actor calls sync"]),
        (["1:n actor calls async", "PUT GIGA"],
         ["single client put gigabytes", "multi client put gigabytes",
          "single client put gigabytes, warm store", "1:n actor calls async"]),
        (["multi client *"],
         ["multi client put calls (Plasma Store)", "multi client put gigabytes",
          "multi client tasks async"]),
        (["no such row"], []),
    ],
)  # fmt: skip
def test_rows_are_selected_by_name_part_and_pattern(
    patterns: list[str], expected: list[str]
) -> None:
    assert microbenchmark.select(patterns) == expected


def test_without_a_pattern_all_rows_are_selected() -> None:
    assert microbenchmark.select([]) == list(microbenchmark.ROWS)


# The rows with gigabytes are left out: they would only copy zeros about. Placement groups come from
# a module of the engine, which this one is not.
@pytest.mark.parametrize(
    "name", [n for n in microbenchmark.ROWS if "gigabytes" not in n and "placement" not in n]
)
@pytest.mark.filterwarnings("ignore:coroutine")
def test_a_row_runs_and_ends_its_actors(name: str) -> None:
    engine = Here()
    (result,) = microbenchmark.run(engine, [name], INSTANT)
    assert (result.name, result.error) == (name, "")
    assert ("actor" in name or name == "multi client tasks async") == bool(engine.killed)


def test_a_row_that_raises_is_reported_and_the_next_one_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, seen = Here(), list[Result]()

    def broken(bench: Bench) -> microbenchmark.Work:
        raise ValueError("on purpose\nmore")

    monkeypatch.setitem(microbenchmark.ROWS, "1:1 actor calls sync", ("/s", broken))
    results = microbenchmark.run(engine, ["1:1 actor calls"], INSTANT, seen.append)
    assert seen == results
    assert [r.error for r in results] == ["ValueError: on purpose", "", ""]
    assert "failed: ValueError" in results[0].line()


def test_a_row_may_ask_for_calls_before_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def counted(bench: Bench) -> microbenchmark.Work:
        return microbenchmark.Work(lambda: calls.append(1), warmup_count=7)

    monkeypatch.setitem(microbenchmark.ROWS, "1:1 actor calls sync", ("/s", counted))
    microbenchmark.run(Here(), ["1:1 actor calls sync"], INSTANT)
    # And one in each round.
    assert len(calls) == 7 + INSTANT.round_count


def test_results_print_as_json() -> None:
    (fact,) = json.loads(microbenchmark.to_json([Result("row", "/s", 10.0, 1.0)]))
    assert fact == {"name": "row", "unit": "/s", "mean": 10.0, "sd": 1.0, "error": ""}


def test_an_unknown_row_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert microbenchmark.main(["--rows", "no such row"]) == 2
    assert "no such row" in capsys.readouterr().err


def test_the_names_can_be_listed_without_an_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert microbenchmark.main(["--list", "--rows", "put calls"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "single client put calls (Plasma Store)",
        "multi client put calls (Plasma Store)",
    ]
