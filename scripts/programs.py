"""Runs the example programs on one cluster, one after the other, and tells how each ended.

See scripts/programs for how it is called. On mray the cluster is made by `mray start` and the
programs are submitted to it, or with ``apart`` run under `mray run`, which gives each one a cluster
of its own. On Ray a driver of ours keeps a cluster that the programs connect to, since `ray stop`
would end every Ray on the machine. Programs whose docstring says ``Needs: MODULE``, or ``Needs on
Ray: MODULE``, are skipped where that Python cannot import it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parent / "examples" / "programs"
#: Only counted: the programs need them, whatever the machine has.
CPU_COUNT = 4
_TIMEOUT_S = 90
_KEEP_RAY = f"""
import sys, ray
print(ray.init(address="local", num_cpus={CPU_COUNT}, log_to_driver=False).address_info["address"])
sys.stdout.flush()
sys.stdin.read()
"""


@dataclass
class Outcome:
    """How a program ended. ``state``: ok, failed, skipped."""

    name: str
    state: str
    seconds: float
    #: The last line it printed, or why it was skipped.
    says: str
    #: All it printed, of those that failed.
    output: str = ""


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="programs, without .py; all by default")
    parser.add_argument("--engine", choices=("mray", "ray"), default="mray")
    parser.add_argument("--python", default=sys.executable, help="the Python that has the engine")
    parser.add_argument("--json", action="store_true", help="one object a program, as a list")
    parser.add_argument("--apart", action="store_true", help="a cluster for each: `mray run`")
    given = parser.parse_args()
    if given.apart and given.engine == "ray":
        parser.error("--apart is for mray")
    names = [name.removesuffix(".py") for name in given.names] or known()
    unknown = sorted(set(names) - set(known()))
    if unknown:
        parser.error(f"no such program: {', '.join(unknown)}; there are {', '.join(known())}")
    outcomes = []
    width = max(map(len, names))
    engine = "mray apart" if given.apart else given.engine
    with cluster(engine, given.python) as environment:
        for name in names:
            outcome = run(name, engine, given.python, environment)
            outcomes.append(outcome)
            if not given.json:
                took = f"{outcome.seconds:.2f} s"
                print(f"{name:<{width}}  {outcome.state:<7}  {took:>8}  {outcome.says}", flush=True)
    if given.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    else:
        _conclude(outcomes)
    return int(any(outcome.state == "failed" for outcome in outcomes))


def known() -> list[str]:
    """The names of all programs."""
    return sorted(path.stem for path in PROGRAMS.glob("*.py"))


@contextlib.contextmanager
def cluster(engine: str, python: str) -> Iterator[dict[str, str]]:
    """A running cluster, as the environment in which programs find it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MRAY_"))}
    if engine == "ray":
        kept |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
        keeper = subprocess.Popen(
            [python, "-c", _KEEP_RAY], env=kept, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert keeper.stdout is not None
        try:
            address = keeper.stdout.readline().strip()
            if not address:
                raise SystemExit(f"scripts/programs: {python} did not start a cluster of Ray")
            yield {**kept, "RAY_ADDRESS": address}
        finally:
            keeper.communicate()
        return
    # Short: the path of a unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="mray-p-", dir="/tmp") as folder:
        kept |= {"MRAY_TMPDIR": folder}
        if engine == "mray apart":
            yield kept
            return
        mray = [python, "-m", "mray.cli"]
        start = [*mray, "start", "--head", "--port", "0", "--num-cpus", str(CPU_COUNT)]
        subprocess.run(start, env=kept, check=True, stdout=subprocess.DEVNULL)
        try:
            yield {**kept, "MRAY_ADDRESS": "auto"}
        finally:
            subprocess.run([*mray, "stop"], env=kept, check=True, stdout=subprocess.DEVNULL)


def run(name: str, engine: str, python: str, environment: dict[str, str]) -> Outcome:
    """Run one program to its end."""
    path = PROGRAMS / f"{name}.py"
    only = "( on Ray)?" if engine == "ray" else ""
    needs = re.compile(rf"^Needs{only}: (?P<module>\S+)$", re.MULTILINE)
    for need in needs.finditer(path.read_text("utf-8")):
        if not _can_import(need["module"], python, environment):
            return Outcome(name, "skipped", 0.0, f"there is no {need['module']}")
    command = [python, str(path)]
    if engine != "ray":
        verb = "submit" if engine == "mray" else "run"
        command = [python, "-m", "mray.cli", verb, "--as-ray", str(path)]
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="program-") as folder:
        try:
            done = subprocess.run(
                command, env=environment, cwd=folder, timeout=_TIMEOUT_S, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            output = error.stdout or b""
            text = output.decode(errors="replace") if isinstance(output, bytes) else output
            return Outcome(name, "failed", float(_TIMEOUT_S), "it did not end", text)
    seconds = round(time.monotonic() - began_at, 3)
    lines = [line for line in done.stdout.splitlines() if _is_own(line)]
    says = lines[-1] if lines else ""
    if done.returncode != 0:
        return Outcome(name, "failed", seconds, f"exit {done.returncode}: {says}", done.stdout)
    return Outcome(name, "ok", seconds, says)


def _is_own(line: str) -> bool:
    """Whether the program itself printed it: not a worker, not `mray submit`."""
    return bool(line.strip()) and line[0] not in "(\x1b\r" and not line.startswith("mray: ")


def _can_import(module: str, python: str, environment: dict[str, str]) -> bool:
    return not subprocess.run(
        [python, "-c", f"import {module}"], env=environment, check=False, capture_output=True
    ).returncode


def _conclude(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        if outcome.output:
            print(f"\n--- {outcome.name}\n{outcome.output.rstrip()}")
    states = [outcome.state for outcome in outcomes]
    seconds = sum(outcome.seconds for outcome in outcomes)
    counted = ", ".join(f"{states.count(s)} {s}" for s in ("ok", "failed", "skipped"))
    print(f"\n{len(outcomes)} programs in {seconds:.1f} s: {counted}")


if __name__ == "__main__":
    sys.exit(main())
