"""Benchmarks mray, and Ray beside it: the rows of mray.microbenchmark, start-up and idle cost.

The engines take turns within every group of rows, so that what slows the machine down for a
minute slows both. Each turn is a process and a cluster of its own. mray runs from a wheel install;
both run one copy of core/microbenchmark.py, as a script.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType

import isolation
import report
import start_up
from engines import BUILD, ROOT, Engine, SetupError, mray_engine, ray_engine

#: Rows of one group share a cluster; a group is known by what the names of its rows contain.
_GROUPS = ("put", "get", "wait", "async-actor", "actor", "")
_GROUP_TIMEOUT_S = 900.0


def _load_microbenchmark() -> ModuleType:
    """The module of the rows, as a file: this Python needs no mray."""
    path = BUILD / "bench" / "microbenchmark.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / "core" / "microbenchmark.py", path)
    spec = importlib.util.spec_from_file_location("microbenchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["microbenchmark"] = module
    spec.loader.exec_module(module)
    return module


def _groups(names: list[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(next(word for word in _GROUPS if word in name), []).append(name)
    return list(groups.values())


def _measure_group(
    engine: Engine, names: list[str], full: bool, rows: dict[str, report.Row]
) -> None:
    script = BUILD / "bench" / "microbenchmark.py"
    words = [engine.python, "-P", str(script), "--engine", engine.name, "--json"]
    words += [word for name in names for word in ("--rows", name)]
    words += ["--full"] if full else []
    try:
        results = json.loads(engine.run(isolation.inside(words), timeout_s=_GROUP_TIMEOUT_S))
    except SetupError as error:
        results = [{"name": name, "error": str(error)} for name in names]
    for result in results:
        row = rows[result["name"]]
        if result["error"]:
            row.errors[engine.name] = result["error"]
        else:
            row.add(engine.name, result["mean"], result["sd"])


def _measure_start_up(engine: Engine, wanted: set[str], rows: dict[str, report.Row]) -> None:
    for name, found in start_up.measure(engine, wanted).items():
        if isinstance(found, str):
            rows[name].errors[engine.name] = f"{engine.name}: {found}"
        else:
            rows[name].add(engine.name, found)


def _select_start_up(patterns: Sequence[str]) -> list[str]:
    return [
        name
        for name in start_up.UNITS
        if not patterns or any(p in name or fnmatch.fnmatch(name, p) for p in patterns)
    ]


def _facts(engines: list[Engine], given: argparse.Namespace) -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        "engines": {engine.name: engine.version for engine in engines},
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "commit": commit,
        "repeats": given.repeat,
        "full": given.full,
    }


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench/run", description=__doc__)
    parser.add_argument("--against-ray", action="store_true", help="measure Ray beside mray")
    parser.add_argument("--only-ray", action="store_true", help="measure Ray alone")
    parser.add_argument(
        "--rows", action="append", default=[], metavar="GLOB", help="only these rows; repeatable"
    )
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="take N turns")
    parser.add_argument("--full", action="store_true", help="rows as long as in Ray's own run")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    given = parser.parse_args(arguments)
    if given.repeat < 1:
        parser.error("--repeat: at least 1")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 when a row of mray failed, 2 when nothing could be measured."""
    given = _parse(arguments)
    bench = _load_microbenchmark()
    names = list(bench.select(given.rows))
    starting = _select_start_up(given.rows)
    if not names and not starting:
        print(f"no row matches {', '.join(given.rows)}", file=sys.stderr)
        return 2
    rows = {name: report.Row(name, bench.ROWS[name][0]) for name in names}
    rows |= {name: report.Row(name, start_up.UNITS[name]) for name in starting}
    engines: list[Engine] = []
    try:
        engines += [] if given.only_ray else [mray_engine()]
        engines += [ray_engine()] if given.against_ray or given.only_ray else []
        facts = _facts(engines, given)
        for turn in range(given.repeat):
            # Whoever goes first in one turn goes second in the next.
            order = engines if turn % 2 == 0 else engines[::-1]
            for group in _groups(names):
                for engine in order:
                    print(f"{engine.name}: {', '.join(group)}", file=sys.stderr)
                    _measure_group(engine, group, given.full, rows)
            for engine in order if starting else []:
                print(f"{engine.name}: {', '.join(starting)}", file=sys.stderr)
                _measure_start_up(engine, set(starting), rows)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        for engine in engines:
            engine.close()
    print(report.table(rows.values(), [engine.name for engine in engines]))
    if given.json:
        with open(given.json, "w") as file:
            file.write(report.to_json(rows.values(), facts) + "\n")
    return 1 if any("mray" in row.errors for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
