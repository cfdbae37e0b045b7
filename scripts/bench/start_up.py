"""Start-up and idle cost of an engine, each figure from processes started for it.

Covers: import, init() to the first result, `start --head`, the idle cluster, `stop`. The median of
several where a figure takes under a few seconds, with one run before that is not counted: it reads
the files into the page cache.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import isolation
from engines import Engine, SetupError

_IMPORT = """
import time
begin = time.perf_counter()
import {name}
print(time.perf_counter() - begin)
"""

_INIT = """
import time
import {name} as engine

@engine.remote
def one():
    return 1

begin = time.perf_counter()
engine.init("local")
assert engine.get(one.remote()) == 1
print(time.perf_counter() - begin)
engine.shutdown()
"""

_SETTLE_S = 5.0
_IDLE_S = 10.0
_TIMEOUT_S = 120.0

IMPORT, INIT = "import", "init() to first result"
START, STOP = "start --head", "stop"
PROCESSES, PSS, CPU = "idle cluster: processes", "idle cluster: PSS", "idle cluster: CPU"

#: Row -> unit. Less is better in all of them.
UNITS = {
    IMPORT: "s", INIT: "s", START: "s", PROCESSES: "", PSS: "MB", CPU: "%", STOP: "s",
}  # fmt: skip
_CLUSTER = {
    "start_s": START, "processes": PROCESSES, "pss_mb": PSS, "cpu_percent": CPU, "stop_s": STOP,
}  # fmt: skip


def measure(engine: Engine, wanted: set[str]) -> dict[str, float | str]:
    """The wanted rows of UNITS; a text in place of a figure says why there is none."""
    found: dict[str, float | str] = {}
    for row, code, count in ((IMPORT, _IMPORT, 5), (INIT, _INIT, 3)):
        if row in wanted:
            found[row] = _figure(lambda code=code, count=count: _median(engine, code, count))  # type: ignore[misc]
    if wanted & set(_CLUSTER.values()):
        try:
            facts = _cluster_life(engine)
            found.update({_CLUSTER[key]: value for key, value in facts.items()})
        except SetupError as error:
            found.update(dict.fromkeys(_CLUSTER.values(), str(error)))
    return {row: value for row, value in found.items() if row in wanted}


def _figure(measurement: Callable[[], float]) -> float | str:
    try:
        return measurement()
    except SetupError as error:
        return str(error)


def _median(engine: Engine, code: str, count: int) -> float:
    words = [engine.python, "-P", "-c", code.format(name=engine.name)]
    runs = [engine.run(isolation.inside(words), timeout_s=_TIMEOUT_S) for _ in range(count + 1)]
    return statistics.median(float(run.split()[-1]) for run in runs[1:])


def _cluster_life(engine: Engine) -> dict[str, float]:
    """Start, idle, stop, in a PID namespace: see cluster_life.py."""
    if not isolation.is_possible():
        raise SetupError("needs a PID namespace, lest `stop` ends what is not ours")
    words = [
        sys.executable, "-P", str(Path(__file__).with_name("cluster_life.py")),
        str(_SETTLE_S), str(_IDLE_S),
        shlex.join([engine.command, "start", "--head", "--port", "0"]),
        shlex.join([engine.command, "stop"]),
    ]  # fmt: skip
    facts: dict[str, float] = json.loads(
        engine.run(isolation.as_first(words), timeout_s=_TIMEOUT_S).splitlines()[-1]
    )
    if "error" in facts:
        raise SetupError(str(facts["error"]))
    return facts
