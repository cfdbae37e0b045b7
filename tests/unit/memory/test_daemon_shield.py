"""Daemons are spared by the kernel's out-of-memory killer, and say so where they cannot be."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mray.node.daemon import shield

LOG = logging.getLogger("mray.node")


@pytest.mark.parametrize(("before", "after"), [("0\n", "-500"), ("-900\n", "-900")])
def test_the_score_is_lowered_and_never_raised(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "oom_score_adj"
    path.write_text(before)
    shield(LOG, str(path))
    assert path.read_text().strip() == after


def test_without_the_right_it_warns_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shield(LOG, str(tmp_path / "missing"))
    assert "workers still go before it" in caplog.text
