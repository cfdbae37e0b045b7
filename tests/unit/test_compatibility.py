"""COMPATIBILITY.md says what is true of mray, name by name."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mray
from mray import options, runtime_env

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "COMPATIBILITY.md").read_text(encoding="utf-8")


def _section(title: str) -> dict[str, list[str]]:
    """The rows of the table below a headline, by the name in their first column."""
    after = TEXT.split(f"\n{title}\n", 1)[1]
    table = re.split(r"\n#", after, maxsplit=1)[0]
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", table, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_the_file_is_as_rendered() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "compatibility" / "render.py"), "--check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_option_has_a_row_and_every_row_is_true() -> None:
    rows = _section("## Options of tasks, actors and methods")
    kinds = (options.TASK_OPTIONS, options.ACTOR_OPTIONS, options.METHOD_OPTIONS)
    assert set().union(*kinds) <= rows.keys()
    for name, cells in rows.items():
        for known, state in zip(kinds, cells, strict=False):
            assert (name in known) == (state in ("works", "differs", "mray's own")), name


def test_every_field_of_an_environment_has_a_row() -> None:
    rows = _section("## Fields of a runtime environment")
    there = {name for name, cells in rows.items() if cells[0] != "refused"}
    assert there == set(runtime_env.FIELDS)


@pytest.mark.parametrize("module", ["mray", "mray.util", "mray.exceptions", "mray.util.queue"])
def test_every_public_name_has_a_row(module: str) -> None:
    rows = _section(f"### `r{module[2:]}`" if module != "mray" else "### `ray`")
    there = {name for name, cells in rows.items() if cells[0] != "absent"}
    place = importlib.import_module(module)
    assert set(getattr(place, "__all__", ())) <= there
    for name in there:
        if not hasattr(place, name):
            assert importlib.util.find_spec(f"{module}.{name}") is not None, name


def test_absent_names_are_absent() -> None:
    for name, cells in _section("### `ray`").items():
        if cells[0] == "absent":
            assert cells[1], f"{name}: there has to be a reason"
            assert not hasattr(mray, name)
