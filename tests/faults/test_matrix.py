"""The table of faults in ARCHITECTURE.md names tests that exist, and every fault has some."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROW = re.compile(r"^\| (F\d+) \| ([^|]+) \| ([^|]+) \| (passes[^|]*) \|$", re.MULTILINE)


def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_fault_has_tests_that_exist() -> None:
    rows = ROW.findall((TESTS.parent / "ARCHITECTURE.md").read_text())
    assert [number for number, *_ in rows] == [f"F{number}" for number in range(1, 45)]
    missing = []
    for number, _, tests, _ in rows:
        names = re.findall(r"`([^`]+)`", tests)
        assert names, number
        for name in names:
            file, _, function = name.partition("::")
            path = TESTS / f"{file}.py"
            if not path.exists() or (function and function not in _functions(path)):
                missing.append(f"{number}: {name}")
    assert not missing
