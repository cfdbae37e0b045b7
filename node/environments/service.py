"""The environments of a node: who waits for one that is being made goes on when it is there.

Shell over cache.py and making.py. Demands for leases, starts of actors and jobs pass through here;
what needs no environment, or one that is there, passes at once. Nobody who waits here holds
resources, and nobody waits for ever: every part has a time limit.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Final

from mray.node.environments import cache
from mray.node.environments.making import Making
from mray.node.environments.parts import plan_of
from mray.node.sched.head_link import HeadLink
from mray.node.workers.children import Children
from mray.rpc.pump import Pump
from mray.runtime.params import Places
from mray.session_files import Session
from mray.wire.messages import (
    ActorStartFailed,
    DeathCause,
    LeaseDemand,
    LeaseRefused,
    Message,
    StartActor,
    StartJob,
    StopActor,
)

#: What parts may take on the disk that no job uses any more.
UNUSED_BYTES_MAX: Final = 10 * 1024 * 1024 * 1024
_WAIT: Final = "env_setup"
_FAILED: Final = "env_failed"

_Waiter = StartActor | StartJob | tuple[bytes, LeaseDemand]


class Environments:
    """``on_demand`` and ``on_actor`` are called when the environment is there, ``on_job`` also with
    the reason why it is not."""

    def __init__(
        self,
        pump: Pump,
        children: Children,
        head: HeadLink,
        session: Session,
        *,
        on_demand: Callable[[bytes, LeaseDemand], None],
        on_actor: Callable[[StartActor], None],
        on_job: Callable[[StartJob, Places, str], None],
    ) -> None:
        self._pump = pump
        self._head = head
        node_id = pump.door.process_id
        self._root = f"{session.path}/runtime_resources/{node_id.hex()[:16]}"
        self._on_demand = on_demand
        self._on_actor = on_actor
        self._on_job = on_job
        self._cache = cache.Cache(UNUSED_BYTES_MAX)
        self._making = Making(
            pump, children, head.ask,
            root=self._root, log_dir=session.logs, node_id=node_id,
            on_made=lambda name, size: self._perform(self._cache.made(name, size)),
            on_failed=lambda name, why: self._perform(
                self._cache.failed(name, why, pump.clock())
            ),
        )  # fmt: skip
        #: Environments that can be had now, by job: demands are frequent.
        self._ready: set[tuple[bytes, bytes]] = set()
        self._waiting: dict[bytes, list[_Waiter]] = {}
        #: Of all that were asked for and are in use.
        self._places: dict[bytes, Places] = {}
        #: Environments whose workers end in their setup hook: why, and since when.
        self._broken: dict[bytes, tuple[str, float]] = {}

    def places(self, runtime_env: bytes) -> Places:
        """Where a worker finds the parts of an environment that is there."""
        return self._places.get(runtime_env, Places())

    # -- those who want one

    def demand(self, sender: bytes, message: LeaseDemand) -> None:
        """An owner wants leases, or, with a count of 0, the environment to be made ahead."""
        if not message.runtime_env:
            self._on_demand(sender, message)
            return
        self._drop(lambda waiter: _is_demand(waiter, sender, message.class_id))
        error = self._objection(message.runtime_env)
        if error:
            self._go_on((sender, message), Places(), error)
        elif (message.job_id, message.runtime_env) in self._ready:
            self._on_demand(sender, message)
        else:
            self._await(message.job_id, message.runtime_env, (sender, message))

    def start_actor(self, sender: bytes, message: StartActor) -> None:
        """The head wants an actor here. Idempotent."""
        spec = message.spec
        error = self._objection(spec.runtime_env)
        known = not spec.runtime_env or (spec.job_id, spec.runtime_env) in self._ready
        if error or known:
            self._go_on(message, Places(), error)
            return
        self._drop(lambda waiter: _is_actor(waiter, spec.actor_id, message.incarnation))
        self._await(spec.job_id, spec.runtime_env, message)

    def start_job(self, sender: bytes, message: StartJob) -> None:
        """The head wants a driver to be started. Idempotent."""
        error = self._objection(message.runtime_env)
        if error:
            self._on_job(message, Places(), error)
            return
        job_id = message.submission_id.encode()
        if not message.runtime_env or (job_id, message.runtime_env) in self._ready:
            self._on_job(message, self.places(message.runtime_env), "")
            return
        self._drop(
            lambda waiter: (
                isinstance(waiter, StartJob) and waiter.submission_id == message.submission_id
            )
        )
        self._await(job_id, message.runtime_env, message)

    # -- those who do not want one any more

    def stop_actor(self, message: StopActor) -> bool:
        """Whether the actor waited here, and does no more."""
        return self._drop(
            lambda waiter: _is_actor(waiter, message.actor_id, message.incarnation)
        )

    def stop_job(self, submission_id: str) -> bool:
        """Whether the job waited here, and does no more."""
        return self._drop(
            lambda waiter: isinstance(waiter, StartJob) and waiter.submission_id == submission_id
        )

    def owner_died(self, process_id: bytes) -> None:
        """Nobody waits for its demands."""
        self._drop(lambda waiter: isinstance(waiter, tuple) and waiter[0] == process_id)

    def owners(self) -> set[bytes]:
        """The processes whose demands wait here."""
        waiters = [waiter for each in self._waiting.values() for waiter in each]
        return {waiter[0] for waiter in waiters if isinstance(waiter, tuple)}

    def job_gone(self, job_id: bytes) -> None:
        """Nothing of the job is left here; ``job_id`` may be the submission's id as bytes."""
        for key in [key for key in self._ready if key[0] == job_id]:
            self._ready.discard(key)
        self._drop(lambda waiter: _job_of(waiter) == job_id)
        self._perform(self._cache.job_gone(job_id))
        used = {env for _, env in self._ready} | set(self._waiting)
        self._places = {env: places for env, places in self._places.items() if env in used}

    def job_over(self, job_id: bytes) -> None:
        """The job has ended: what of it waits here is void, but for detached actors."""
        self._drop(
            lambda waiter: (
                _job_of(waiter) == job_id
                and not (isinstance(waiter, StartActor) and waiter.spec.detached)
            )
        )

    def broken(self, runtime_env: bytes, why: str) -> None:
        """Its workers end while they set themselves up."""
        self._broken[runtime_env] = (why, self._pump.clock())

    def close(self) -> None:
        """End what is under way and remove everything."""
        self._making.close()
        shutil.rmtree(self._root, ignore_errors=True)

    # -- inside

    def _objection(self, runtime_env: bytes) -> str:
        """Why the environment cannot be had for now; "" where it may be."""
        why, since = self._broken.get(runtime_env, ("", 0.0))
        if why and self._pump.clock() < since + cache.RETRY_S:
            return why
        self._broken.pop(runtime_env, None)
        return ""

    def _await(self, job_id: bytes, runtime_env: bytes, waiter: _Waiter) -> None:
        try:
            plan = plan_of(runtime_env)
        except ValueError as error:
            self._go_on(waiter, Places(), str(error))
            return
        self._places[runtime_env] = plan.places(self._root)
        waiters = self._waiting.setdefault(runtime_env, [])
        waiters.append(waiter)
        self._perform(self._cache.need(runtime_env, plan, job_id, self._pump.clock()))
        waits = waiter in self._waiting.get(runtime_env, ())
        if waits and isinstance(waiter, tuple) and waiter[1].count > 0:
            sender, message = waiter
            text = f"its runtime_env is being made: {self._cache.progress(runtime_env)}"
            self._pump.send(sender, LeaseRefused(message.class_id, _WAIT, text))

    def _perform(self, effects: list[cache.Effect]) -> None:
        for effect in effects:
            match effect:
                case cache.Make(part, timeout_s):
                    self._making.make(part, timeout_s)
                case cache.Remove(name):
                    self._making.remove(name)
                case cache.Settled(runtime_env, error):
                    self._settled(runtime_env, error)

    def _settled(self, runtime_env: bytes, error: str) -> None:
        waiters = self._waiting.pop(runtime_env, [])
        places = self.places(runtime_env)
        for waiter in waiters:
            if not error:
                self._ready.add((_job_of(waiter), runtime_env))
            self._go_on(waiter, places, error)

    def _go_on(self, waiter: _Waiter, places: Places, error: str) -> None:
        match waiter:
            case StartActor(spec, incarnation) if error:
                cause = DeathCause("env_failed", error, node_id=self._pump.door.process_id)
                self._head.tell(ActorStartFailed(spec.actor_id, incarnation, cause))
            case StartActor():
                self._on_actor(waiter)
            case StartJob():
                self._on_job(waiter, places, error)
            case (sender, message):
                if error and message.count > 0:
                    refused: Message = LeaseRefused(message.class_id, _FAILED, error)
                    self._pump.send(sender, refused)
                elif not error:
                    self._on_demand(sender, message)

    def _drop(self, is_it: Callable[[_Waiter], bool]) -> bool:
        dropped = False
        for runtime_env, waiters in list(self._waiting.items()):
            left = [waiter for waiter in waiters if not is_it(waiter)]
            dropped = dropped or len(left) < len(waiters)
            if left:
                self._waiting[runtime_env] = left
            else:
                del self._waiting[runtime_env]
        return dropped


def _is_demand(waiter: _Waiter, sender: bytes, class_id: int) -> bool:
    return isinstance(waiter, tuple) and waiter[0] == sender and waiter[1].class_id == class_id


def _is_actor(waiter: _Waiter, actor_id: bytes, incarnation: int) -> bool:
    return (
        isinstance(waiter, StartActor)
        and waiter.spec.actor_id == actor_id
        and waiter.incarnation == incarnation
    )


def _job_of(waiter: _Waiter) -> bytes:
    if isinstance(waiter, StartActor):
        return waiter.spec.job_id
    if isinstance(waiter, StartJob):
        return waiter.submission_id.encode()
    return waiter[1].job_id
