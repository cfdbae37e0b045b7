"""cancel(): what users call to end a task that they do not want any more.

Owns the arguments and the errors for wrong ones. What is done is runtime/cancels.py's, at the owner
of the task, and runtime/interrupts.py's, where it runs.
"""

from __future__ import annotations

from typing import Any

from mray import current
from mray.object_ref import ObjectRef
from mray.object_ref_generator import ObjectRefGenerator


def cancel(ref: Any, *, force: bool = False, recursive: bool = True) -> None:
    """Cancel the task that makes an object (or all the objects of a generator), if it is not done.

    One that has not begun never does. One that runs gets KeyboardInterrupt; with ``force`` its
    worker is ended. A call of an async actor gets CancelledError; one of a sync actor runs to its
    end, may ask get_runtime_context().is_canceled(), and its result is dropped. ``recursive``: what
    the task has submitted is cancelled too. get() then raises TaskCancelledError; a cancelled task
    is not retried. Does not wait for any of this.

    Raises TypeError for what is no reference, ValueError with ``force`` for a call of an actor.
    """
    rt = current.get()
    if isinstance(ref, ObjectRefGenerator):
        ref = ref._generator_ref
    if not isinstance(ref, ObjectRef):
        raise TypeError(
            f"cancel() takes an ObjectRef, not {type(ref).__name__}; to end an actor, kill() it"
        )
    rt.cancels.cancel(ref._entry, force, recursive)
