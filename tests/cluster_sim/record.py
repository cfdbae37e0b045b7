"""What happened in a simulated cluster, and what must be true of it.

- A task ends exactly once: with its value, which is the sum that its plan says, or with an error
  that something that happened explains.
- It begins at most 1 + retries times.
- Calls of an actor are answered by one living incarnation at a time, and each begins at most once
  where it may not be retried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clockwork import Clockwork, Violation

if TYPE_CHECKING:
    from mray.object_ref import ObjectRef
    from mray.runtime.calls import Work
    from mray.runtime.runtime import Runtime

    from .cluster import SimWorker
    from .labour import PlanExecutor


class Record:
    """See the module."""

    def __init__(self, world: Clockwork) -> None:
        self.world = world
        self.templates: dict[bytes, dict[Any, Any]] = {}
        #: How often each task has begun, and with which attempts.
        self.begins: dict[bytes, list[int]] = {}
        self.begun = self.begun_abroad = 0
        self.ends = 0
        #: Living incarnations of each actor.
        self.incarnations: dict[bytes, dict[bytes, int]] = {}
        self.worker_deaths = 0
        self.dead_owners: set[bytes] = set()
        #: Calls of actors that were begun: (actor, incarnation) -> numbers of plans, in order.
        self.served: dict[tuple[bytes, int], list[int]] = {}

    def submitted(self, rt: Runtime, plan: dict[str, Any], ref: ObjectRef[Any]) -> None:
        """A task is on its way."""
        self.world.say(f"{rt.process_id.hex()[:8]} submits {plan['number']}")

    def began(self, plan: dict[str, Any], work: Work, executor: PlanExecutor) -> None:
        """A worker has begun a call."""
        task_id, attempt = work.spec.task_id, work.spec.attempt
        self.begun += 1
        self.begun_abroad += work.owner.node_id != executor.rt.node.node_id
        self.world.say(
            f"{executor.rt.process_id.hex()[:8]} begins {plan['number']} (attempt {attempt})"
        )
        begins = self.begins.setdefault(task_id, [])
        begins.append(attempt)
        spec = executor.actor_spec
        retries = plan.get("retries", 3) if spec is None else plan.get("retries", 0)
        if retries >= 0 and len(begins) > 1 + retries:
            raise Violation(f"plan {plan['number']} has begun {len(begins)} times: {begins}")
        if spec is not None:
            worker = executor.worker
            assert worker is not None
            served = self.served.setdefault((spec.actor_id, worker.incarnation), [])
            served.append(plan["number"])

    def ended(self, plan: dict[str, Any], work: Work, executor: PlanExecutor) -> None:
        """A worker has run a call to its end."""
        self.ends += 1

    def actor_made(self, spec: Any, worker: SimWorker) -> None:
        """An actor's instance is there."""
        living = self.incarnations.setdefault(spec.actor_id, {})
        self.world.say(
            f"actor {spec.actor_id.hex()[:8]} lives in {worker.process_id.hex()[:8]}, "
            f"incarnation {worker.incarnation}"
        )
        living[worker.process_id] = worker.incarnation
        if len(set(living.values())) < len(living):
            raise Violation(f"incarnation {worker.incarnation} of an actor lives twice")

    def worker_died(self, worker: SimWorker) -> None:
        """A worker is dead, for whatever reason."""
        self.worker_deaths += 1
        self.dead_owners.add(worker.process_id)
        for living in self.incarnations.values():
            living.pop(worker.process_id, None)

    def driver_died(self, rt: Runtime) -> None:
        """A driver is dead."""
        self.dead_owners.add(rt.process_id)


def value_of(plan: dict[str, Any], args: int = 0) -> int:
    """What a plan comes to: its number, its kids' values, the sum of its arguments."""
    total: int = plan["number"] + args
    return total + sum(value_of(kid) for kid in plan.get("kids", ()))
