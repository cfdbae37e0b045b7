"""What a process with GPUs knows of them, and what its libraries see."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from mray.runtime.accelerators import Accelerators
from mray.wire.messages import GpusHeld

GPU = {"CPU": 10_000, "GPU": 10_000}


def process(monkeypatch: pytest.MonkeyPatch, numbers: list[int], **environment: str) -> Any:
    """A worker whose node says that it holds these GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    runtime: Any = SimpleNamespace(
        node=SimpleNamespace(address=None), ask=lambda peer, make, kind: GpusHeld(1, numbers)
    )
    return Accelerators(runtime)


def visible() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def test_a_task_sees_its_gpus_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    held = process(monkeypatch, [1, 3])
    assert held.concern(GPU)
    held.enter(GPU)
    assert (visible(), held.gpu_ids()) == ("1,3", [1, 3])
    held.leave()
    assert (visible(), held.gpu_ids()) == (None, [])


def test_a_task_without_gpus_finds_the_variable_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    held = process(monkeypatch, [], CUDA_VISIBLE_DEVICES="4,5")
    assert not held.concern({"CPU": 10_000})
    assert (visible(), held.gpu_ids()) == ("4,5", [])


def test_numbers_count_among_the_devices_that_were_visible(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = process(monkeypatch, [0, 2], CUDA_VISIBLE_DEVICES="4,5,7")
    held.enter(GPU)
    assert (visible(), held.gpu_ids()) == ("4,7", ["4", "7"])
    held.leave()
    assert visible() == "4,5,7"


def test_what_is_visible_may_be_narrower_than_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    held = process(monkeypatch, [2], CUDA_VISIBLE_DEVICES="9")
    held.enter(GPU)
    assert (visible(), held.gpu_ids()) == ("9", ["9"])


def test_none_are_to_be_seen_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    held = process(monkeypatch, [], RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="1")
    assert held.concern({})
    held.enter({})
    assert (visible(), held.gpu_ids()) == ("", [])
    held.leave()
    assert visible() is None


def test_the_variable_is_left_alone_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    held = process(monkeypatch, [1], RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES="1")
    held.enter(GPU)
    assert (visible(), held.gpu_ids()) == (None, [1])
