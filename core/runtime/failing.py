"""The error of a task or an actor's call that could not be run, from why: the worker died, or none
can be had; or the head's last word on the actor."""

from __future__ import annotations

from mray.exceptions import (
    ActorDiedError,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    TaskPlacementGroupRemoved,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from mray.runtime.oom import facts_of, is_oom, oom_error
from mray.serialization.pickler import deserialize
from mray.tasks.actor_calls import ActorCalls, FailCall
from mray.wire.messages import ActorState, DeathCause


def failure_of(name: str, kind: str, text: str, cause: DeathCause | None) -> RayError:
    """For a task of this name. ``kind`` as in LeaseRefused, or group_removed, unschedulable;
    ``cause`` of a worker's death."""
    if cause is not None:
        return WorkerCrashedError(
            task_name=name,
            pid=cause.pid or None,
            node=cause.node_id.hex()[:8],
            exit_code=cause.exit_code,
            signal=cause.signal,
            cause_text=cause.text,
            stderr_tail=cause.stderr_tail,
        )
    if kind == "env_failed":
        return RuntimeEnvSetupError(text)
    if kind == "group_removed":
        return TaskPlacementGroupRemoved(text)
    if kind == "unschedulable":
        return TaskUnschedulableError(text, task_name=name)
    return WorkerCrashedError(text, task_name=name, cause_text=text)


def call_failure_of(calls: ActorCalls, effect: FailCall) -> RayError:
    """For a call that is over with the actor's incarnation, or with the actor."""
    state = effect.state
    if state.cause is not None and is_oom(state.cause) and not state.error:
        decision = "not retried: the actor restarts, but no max_task_retries is left"
        if effect.kind == "died":
            decision = "not restarted: no max_restarts is left"
        return oom_error(state.cause, facts_of(state.cause), calls.class_name, (), decision)
    if effect.kind == "unavailable":
        return ActorUnavailableError(
            f"the actor {calls.class_name} restarts, and whether the call ran is unknown: "
            + (state.cause.text if state.cause is not None else ""),
            calls.actor_id,
            class_name=calls.class_name,
        )
    return _died(calls, state)


def _died(calls: ActorCalls, state: ActorState) -> RayError:
    """The error of calls to a dead actor, from the head's last word."""
    if state.error:
        cause = deserialize(state.error)
        if isinstance(cause, RayTaskError):
            return ActorDiedError(
                cause,
                actor_id=calls.actor_id,
                class_name=state.class_name,
                name=state.name,
                pid=state.pid or None,
            )
        if isinstance(cause, RayError):
            return cause
    reason = state.cause or DeathCause("unknown", "no cause was reported")
    text = f"the actor {state.class_name or calls.class_name}: {reason.text}"
    if reason.kind == "env_failed":
        return RuntimeEnvSetupError(reason.text)
    if reason.kind == "unschedulable":
        name = state.class_name or calls.class_name
        return ActorUnschedulableError(reason.text, class_name=name, actor_id=calls.actor_id)
    if reason.kind == "group_removed":
        return ActorPlacementGroupRemoved(text)
    return ActorDiedError(
        actor_id=calls.actor_id,
        class_name=state.class_name or calls.class_name,
        name=state.name,
        pid=reason.pid or state.pid or None,
        node=(reason.node_id or state.node_id).hex()[:8],
        exit_code=reason.exit_code,
        signal=reason.signal,
        cause_text=reason.text,
        stderr_tail=reason.stderr_tail,
    )
