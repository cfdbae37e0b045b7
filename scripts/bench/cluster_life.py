"""Measures one cluster from start to stop: time to start, idle cost, time to stop.

Runs as the first process of a PID namespace of its own, which start_up.py makes. So what runs in
/proc is the cluster and nothing else; `ray stop`, which ends processes by words in their command
lines, finds no others; and nothing survives the measurement.

    python cluster_life.py SETTLE_S IDLE_S START_COMMAND STOP_COMMAND     prints JSON
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time


def cluster_pids() -> list[int]:
    """Every process here but this one."""
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return sorted(pid for pid in pids if pid != os.getpid() and not _is_zombie(pid))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _is_zombie(pid: int) -> bool:
    return _stat(pid)[:1] in ([], ["Z"])


def cpu_seconds(pid: int) -> float:
    """User and system time that a process has used."""
    fields = _stat(pid)
    ticks = int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def pss_bytes(pid: int) -> int:
    """Memory of a process, with shared pages divided among those who share them."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass  # Ended while we looked; it has no memory then.
    return 0


class Commands:
    """Runs commands, and buries the orphans that a first process inherits.

    A daemon that has ended would otherwise stay a zombie, and a stop command wait for it in vain.
    """

    def __init__(self) -> None:
        self._ended: dict[int, int] = {}
        self._changed = threading.Condition()
        threading.Thread(target=self._bury, daemon=True).start()

    def _bury(self) -> None:
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                time.sleep(0.005)  # No child yet: there is nothing to wait on.
                continue
            with self._changed:
                self._ended[pid] = os.waitstatus_to_exitcode(status)
                self._changed.notify_all()

    def run(self, command: str) -> float:
        """Run a command; the seconds it took. CalledProcessError when it failed."""
        # To a file: a daemon may keep the output open after its starter has ended.
        with tempfile.TemporaryFile("w+") as output:
            started_at = time.perf_counter()
            pid = subprocess.Popen(
                shlex.split(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            ).pid
            with self._changed:
                self._changed.wait_for(lambda: pid in self._ended)
            seconds = time.perf_counter() - started_at
            status = self._ended[pid]
            if status:
                output.seek(0)
                raise subprocess.CalledProcessError(status, command, output.read())
        return seconds


def measure(settle_s: float, idle_s: float, start: str, stop: str) -> dict[str, float]:
    """Start a cluster, let it idle, stop it."""
    commands = Commands()
    start_s = commands.run(start)
    time.sleep(settle_s)
    before = {pid: cpu_seconds(pid) for pid in cluster_pids()}
    began_at = time.perf_counter()
    time.sleep(idle_s)
    seconds = time.perf_counter() - began_at
    pids = cluster_pids()
    used = sum(cpu_seconds(pid) - before.get(pid, 0.0) for pid in pids)
    idle = {
        "processes": len(pids),
        "pss_mb": sum(map(pss_bytes, pids)) / 1e6,
        "cpu_percent": 100 * used / seconds,
    }
    return {"start_s": start_s, **idle, "stop_s": commands.run(stop)}


if __name__ == "__main__":
    try:
        print(json.dumps(measure(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4])))
    except subprocess.CalledProcessError as error:
        tail = (error.output or "").strip()[-500:]
        print(json.dumps({"error": f"`{error.cmd}` ended with {error.returncode}: {tail}"}))
