"""What must hold between the tables of leases.py: checks for tests and simulations."""

from __future__ import annotations

from collections.abc import Mapping

from mray.machine import InvariantError
from mray.node.sched.holds import Holds
from mray.node.sched.lines import Line
from mray.node.workers.pool import Pool


def check_holds(holds: Holds, pool: Pool) -> None:
    """InvariantError unless who works has a hold and the other way round."""
    for worker_id in holds.by_worker:
        worker = pool.workers.get(worker_id)
        if worker is None or worker.state in ("starting", "idle"):
            raise InvariantError(f"a hold on worker {worker_id.hex()} that is not at work")
    for worker in pool.workers.values():
        if worker.state in ("leased", "actor") and worker.process_id not in holds.by_worker:
            raise InvariantError(f"{worker.state} worker without a hold")


def check_lines(lines: Mapping[tuple[object, ...], Line]) -> None:
    """InvariantError unless every line waits for what it says."""
    for at, line in lines.items():
        expected = line.count if line.class_id is not None else len(line.starts)
        if line.count <= 0 or line.count != expected + (line.reserve is not None):
            raise InvariantError(f"line {at} waits for {line.count}")
        if line.stay and not line.home and line.short_since is not None:
            raise InvariantError(f"line {at} of our own owner would be given back")
