"""What the driver draws of the bars it hears of, with a tqdm that is a fake."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from mray.experimental import tqdm_ray


class Bar:
    made: list[Bar] = []

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.description, self.n, self.total, self.calls = "", 0, None, []
        Bar.made.append(self)

    def set_description(self, text: str, refresh: bool) -> None:
        self.description = text

    def refresh(self) -> None:
        self.calls.append("refresh")

    def clear(self) -> None:
        self.calls.append("clear")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture(autouse=True)
def bars(monkeypatch: pytest.MonkeyPatch) -> Any:
    class Tqdm:
        tqdm = Bar

    Bar.made = []
    monkeypatch.setattr(tqdm_ray, "import_module", lambda name: Tqdm)
    yield Bar.made
    tqdm_ray.close_all()


def line(id: str, n: int = 0, **more: Any) -> str:
    state = {"id": id, "n": n, "total": 9, "desc": "work", "unit": "it", "position": 0}
    return tqdm_ray._MARK + json.dumps({**state, "closed": False, **more})


def test_lines_without_the_mark_are_for_others(bars: list[Bar]) -> None:
    for other in ("", "text", "{}", tqdm_ray._MARK, tqdm_ray._MARK + "[1]", tqdm_ray._MARK + "{}"):
        assert not tqdm_ray.take(other, 1, "127.0.0.1")
    assert bars == []


def test_a_bar_follows_its_states(bars: list[Bar]) -> None:
    assert tqdm_ray.take(line("a", 1), 77, "127.0.0.1")
    assert tqdm_ray.take(line("a", 5, total=20, desc="more"), 77, "127.0.0.1")
    [bar] = bars
    assert (bar.n, bar.total, bar.description) == (5, 20, "(pid=77) more")
    tqdm_ray.take(line("a", 20, closed=True), 77, "127.0.0.1")
    assert bar.calls[-1] == "close"


def test_every_bar_has_a_row_of_its_own(bars: list[Bar]) -> None:
    for id in "abc":
        tqdm_ray.take(line(id), 1, "127.0.0.1")
    tqdm_ray.take(line("b", closed=True), 1, "127.0.0.1")
    tqdm_ray.take(line("d"), 1, "127.0.0.1")
    tqdm_ray.take(line("e", position=7), 1, "127.0.0.1")
    assert [bar.options["position"] for bar in bars] == [0, 1, 2, 1, 7]


def test_bars_are_off_the_screen_while_something_is_printed(bars: list[Bar]) -> None:
    tqdm_ray.take(line("a"), 1, "127.0.0.1")
    bars[0].calls.clear()
    with tqdm_ray.hidden():
        assert bars[0].calls == ["clear"]
    assert bars[0].calls == ["clear", "refresh"]


def test_bars_end_with_the_connection(bars: list[Bar]) -> None:
    tqdm_ray.take(line("a"), 1, "127.0.0.1")
    tqdm_ray.close_all()
    assert bars[0].calls[-1] == "close"


def test_without_tqdm_one_warning_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(tqdm_ray, "import_module", missing)
    monkeypatch.setattr(tqdm_ray._bars, "_warned", False)
    monkeypatch.setattr(logging.getLogger("mray"), "propagate", True)
    for n in range(3):
        assert tqdm_ray.take(line("a", n), 1, "127.0.0.1")
    assert len(caplog.records) == 1


def test_the_driver_is_told_now_and_then_and_at_the_end(bars: list[Bar]) -> None:
    bar = tqdm_ray.tqdm(total=100, desc="here", flush_interval_s=3600)
    for _ in range(10):
        bar.update()
    assert bars[0].n == 1
    bar.close()
    assert bars[0].n == 10
    calls = list(bars[0].calls)
    bar.close()
    assert bars[0].calls == calls
