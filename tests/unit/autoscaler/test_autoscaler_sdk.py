"""Asking for a bigger cluster where nothing can make it bigger."""

from __future__ import annotations

import logging

import pytest

from mray.autoscaler import sdk


def test_a_request_is_answered_once_and_changes_nothing(monkeypatch, caplog) -> None:
    monkeypatch.setattr(sdk._Notice, "given", False)
    with caplog.at_level(logging.INFO, "mray"):
        sdk.request_resources(bundles=[])
        assert not caplog.messages, "taking a request back is not worth a word"
        sdk.request_resources(num_cpus=4)
        sdk.request_resources(bundles=[{"CPU": 1}])
    assert len(caplog.messages) == 1
    assert "mray starts no nodes by itself" in caplog.messages[0]


def test_what_is_no_request_is_refused() -> None:
    with pytest.raises(TypeError, match="num_cpus"):
        sdk.request_resources(num_cpus="many")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a list of dicts"):
        sdk.request_resources(bundles=[1])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="1 bundle_label_selectors for 0 bundles"):
        sdk.request_resources(bundle_label_selectors=[{}])
