"""What went wrong, in Ray's names of errors: WORKER_DIED, TASK_EXECUTION_EXCEPTION ...

Covers the error of a value and the cause of a death. Runs no code of the user's: what is read of an
error are the plain values beside it (see failures.py).
"""

from __future__ import annotations

import pickle

from mray.serialization.envelope import ERROR_PREFIX
from mray.wire.messages import DeathCause

#: A longer message is cut.
MESSAGE_MAX = 500

#: Exceptions of mray.exceptions -> Ray's names of errors.
ERROR_TYPES = {
    "ActorDiedError": "ACTOR_DIED",
    "ActorUnavailableError": "ACTOR_UNAVAILABLE",
    "ActorUnschedulableError": "ACTOR_UNSCHEDULABLE_ERROR",
    "LocalRayletDiedError": "LOCAL_RAYLET_DIED",
    "NodeDiedError": "NODE_DIED",
    "ObjectFetchTimedOutError": "OBJECT_FETCH_TIMED_OUT",
    "ObjectFreedError": "OBJECT_FREED",
    "ObjectLostError": "OBJECT_LOST",
    "ObjectReconstructionFailedError": "OBJECT_UNRECONSTRUCTABLE",
    "OutOfDiskError": "OUT_OF_DISK_ERROR",
    "OutOfMemoryError": "OUT_OF_MEMORY",
    "OwnerDiedError": "OWNER_DIED",
    "RayActorError": "ACTOR_DIED",
    "ReferenceCountingAssertionError": "OBJECT_DELETED",
    "RuntimeEnvSetupError": "RUNTIME_ENV_SETUP_FAILED",
    "TaskCancelledError": "TASK_CANCELLED",
    "TaskUnschedulableError": "TASK_UNSCHEDULABLE_ERROR",
    "WorkerCrashedError": "WORKER_DIED",
}
RAISED = "TASK_EXECUTION_EXCEPTION"


def explain_error(envelope: bytes, raised: bool) -> tuple[str, str]:
    """(Ray's name, message) of the error in an ERROR envelope. ``raised``: by the task itself, so
    that another task's end in it is not this one's. Runs no code of the user's: what is
    read of it are plain values (see failures.py)."""
    if not envelope:
        return RAISED, ""
    try:
        facts, _, stand_in, nested = pickle.loads(envelope[len(ERROR_PREFIX) :])
        if stand_in is None:
            return RAISED, ""
        class_name, text = str(stand_in[0]), str(stand_in[1])
    except Exception as error:  # Damaged, or made by another version: the task failed all the same.
        return RAISED, f"(its error cannot be read: {type(error).__name__})"
    short = class_name.rpartition(".")[2]
    if facts is None and short in ERROR_TYPES and (not raised or short == "TaskCancelledError"):
        if nested is not None and nested[2] is not None:
            text = f"{nested[2][0]}: {nested[2][1]}"
        return ERROR_TYPES[short], _cut(text)
    return RAISED, _cut(f"{class_name}: {text}" if text else class_name)


def error_of(cause: DeathCause) -> tuple[str, str]:
    """(Ray's name, message) of the end of an attempt with its worker."""
    name = "WORKER_DIED"
    if cause.oom or cause.kind == "kernel_oom":
        name = "OUT_OF_MEMORY"
    elif cause.kind == "node_died":
        name = "NODE_DIED"
    text = cause.text
    if not text and cause.exit_code is not None:
        text = f"its worker (pid {cause.pid}) ended with exit code {cause.exit_code}"
    elif not text and cause.signal is not None:
        text = f"its worker (pid {cause.pid}) was ended by signal {cause.signal}"
    return name, _cut(text or cause.kind)


def _cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MESSAGE_MAX else text[: MESSAGE_MAX - 1] + "…"
