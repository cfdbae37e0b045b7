"""Every exception a user of mray may see, under Ray's names.

Owns classes, facts and texts. Raises nothing. Facts are attributes, given by keyword and pickled
with the exception; the text is made of them. A single string instead of facts is taken as the text
(for the classes whose first argument in Ray is something else, as that).

::

    RayError
    ├── RayTaskError                   the task raised; also of the raised exception's own class
    ├── TaskCancelledError
    ├── WorkerCrashedError             the process ended under the task
    ├── OutOfMemoryError               the memory monitor ended it
    ├── NodeDiedError, LocalRayletDiedError
    ├── RayActorError
    │   ├── ActorDiedError             for good
    │   └── ActorUnavailableError      for now
    ├── ObjectLostError
    │   ├── ObjectFetchTimedOutError, ObjectFreedError, OwnerDiedError
    │   ├── ObjectReconstructionFailedError
    │   │   ├── ObjectReconstructionFailedMaxAttemptsExceededError
    │   │   └── ObjectReconstructionFailedLineageEvictedError
    │   ├── ReferenceCountingAssertionError (AssertionError)
    │   └── ReferenceLostError (GetTimeoutError)      mray's own: the id was pickled out of band
    ├── GetTimeoutError (TimeoutError)
    ├── ObjectStoreFullError, OutOfDiskError, PlasmaObjectNotAvailable
    ├── RuntimeEnvSetupError
    ├── TaskUnschedulableError, ActorUnschedulableError
    ├── TaskPlacementGroupRemoved, ActorPlacementGroupRemoved
    ├── PendingCallsLimitExceeded
    ├── ActorAlreadyExistsError, ActorHandleNotFoundError (both ValueError)
    ├── ObjectRefStreamEndOfStreamError, AsyncioActorExit
    ├── OufOfBandObjectRefSerializationException, UnserializableException
    ├── AuthenticationError, CrossLanguageError, RpcError, UserCodeException
    └── RaySystemError
        ├── StreamingGeneratorReplayInconsistentError
        ├── RayChannelError
        │   └── RayChannelTimeoutError (TimeoutError)
        └── RayCgraphCapacityExceeded, RayDirectTransportError
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from mray.exception_texts import ending, hex_id, listed, place
from mray.serialization.dual import make_dual
from mray.units import format_bytes

T = TypeVar("T")
_ARGS: Any = vars(BaseException)["args"]


class RayError(Exception):
    """Base of all of mray's exceptions."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Not by calling the class with args: facts are keywords, and the text is made already.
        return _restore, (type(self), self.args, self.__dict__)


def _restore(cls: type[RayError], args: tuple[Any, ...], state: dict[str, Any]) -> RayError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


# ---------------------------------------------------------------------------------------- tasks


class _TaskFailure(NamedTuple):
    """What a RayTaskError knows. One value, so that a user's attributes cannot mix with it."""

    function_name: str
    traceback_str: str
    cause: BaseException | None
    proctitle: str | None
    pid: int | None
    ip: str | None
    actor_repr: str | None
    actor_id: str | None
    chain: tuple[str, ...]


class _Fact(Generic[T]):
    """A read-only attribute taken from the error's _TaskFailure."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, error: RayTaskError, owner: type | None = None) -> T:
        value: T = getattr(error._task_failure, self._name)
        return value

    def __set__(self, error: RayTaskError, value: T) -> None:
        raise AttributeError(f"{self._name} of a {type(error).__name__} cannot be changed")


class RayTaskError(RayError):
    """A task or an actor method raised. ``str()`` is the remote traceback.

    ``get`` raises what ``as_instanceof_cause`` returns. Attributes unknown here are the cause's.
    """

    #: The remote function or method that raised.
    function_name = _Fact[str]()
    #: The remote traceback, headed by function, process and machine.
    traceback_str = _Fact[str]()
    #: The exception that was raised, or an UnserializableException that stands in for it.
    cause = _Fact["BaseException | None"]()
    #: Title, pid and machine of the process that ran the task.
    proctitle = _Fact["str | None"]()
    pid = _Fact["int | None"]()
    ip = _Fact["str | None"]()
    #: For a method: the actor's own repr, and its id in hex.
    actor_repr = _Fact["str | None"]()
    actor_id = _Fact["str | None"]()
    #: The remote functions the error passed through, outermost first.
    chain = _Fact["tuple[str, ...]"]()

    def __init__(
        self,
        function_name: str,
        traceback_str: str = "",
        cause: BaseException | None = None,
        proctitle: str | None = None,
        pid: int | None = None,
        ip: str | None = None,
        actor_repr: str | None = None,
        actor_id: str | None = None,
        *,
        chain: tuple[str, ...] = (),
    ) -> None:
        # Not cause.args: a user's class may have made that a property.
        args = _ARGS.__get__(cause) if cause is not None else (traceback_str or function_name,)
        super().__init__(*args)
        self._task_failure = _TaskFailure(
            function_name, traceback_str or function_name, cause, proctitle, pid, ip,
            actor_repr, actor_id, chain or (function_name,),
        )  # fmt: skip

    def __init_subclass__(cls, **options: object) -> None:
        """Ask the cause's class nothing when a dual class is made; see dual.py."""

    def as_instanceof_cause(self) -> RayTaskError:
        """This error as an instance of its cause's class too, so that users can catch it as that.

        Returns self where that is so already or cannot be.
        """
        cause = self.cause
        if cause is None or isinstance(self, type(cause)):
            return self
        dual = make_dual(RayTaskError, cause)
        if dual is None:
            return self
        dual.__dict__["_task_failure"] = self._task_failure
        return dual

    def __str__(self) -> str:
        return self.traceback_str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.args))})"

    def __getattr__(self, name: str) -> Any:
        # Only for what is neither here nor on the cause's class. Dunder names are the protocols'
        # own questions: __notes__ is the one that is data.
        failure = self.__dict__.get("_task_failure")
        cause = failure.cause if failure is not None else None
        if cause is None or (name.startswith("__") and name != "__notes__"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(cause, name)

    def __reduce__(self) -> tuple[Any, ...]:
        extra = {k: v for k, v in self.__dict__.items() if k != "_task_failure"}
        return _restore_task_error, (
            tuple(self._task_failure), type(self) is not RayTaskError, extra,
        )  # fmt: skip

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        # The user's class may have one, and would come before object's.
        return self.__reduce__()


def _restore_task_error(
    failure: tuple[Any, ...], is_dual: bool, extra: dict[str, Any]
) -> RayTaskError:
    *positional, chain = failure
    error = RayTaskError(*positional, chain=chain)
    if is_dual:
        error = error.as_instanceof_cause()
    error.__dict__.update(extra)
    return error


class UnserializableException(RayError):
    """Stands in for an exception that could not be sent, or not be read here.

    ``class_name`` is its full name, ``text`` its str(), ``original_args`` its args (repr() where an
    arg is no plain value), ``reason`` why it could not travel.
    """

    def __init__(
        self,
        original_stack_trace: str = "",
        *,
        class_name: str = "",
        text: str = "",
        original_args: tuple[Any, ...] = (),
        reason: str = "",
        pickled: bytes | None = None,
    ) -> None:
        self.original_stack_trace = original_stack_trace
        self.class_name = class_name
        self.text = text
        self.original_args = original_args
        self.reason = reason
        #: The exception as it was sent, when only reading it failed.
        self.pickled = pickled
        head = f"{class_name}: {text}" if text else class_name or "an exception"
        why = f" (the exception itself could not be brought here: {reason})" if reason else ""
        super().__init__("\n".join(part for part in (head + why, original_stack_trace) if part))


class TaskCancelledError(RayError):
    """The task was cancelled, by ``cancel`` or with the task that started it."""

    def __init__(
        self,
        task_id: str | bytes | None = None,
        error_message: str | None = None,
        *,
        task_name: str = "",
    ) -> None:
        self.task_id = hex_id(task_id)
        self.error_message = error_message
        self.task_name = task_name
        which = " ".join(filter(None, (task_name, self.task_id)))
        text = f"task {which} was cancelled" if which else "the task was cancelled"
        super().__init__(f"{text}: {error_message}" if error_message else text)


class WorkerCrashedError(RayError):
    """The worker process ended while it ran the task."""

    def __init__(
        self,
        message: str | None = None,
        *,
        task_name: str = "",
        pid: int | None = None,
        node: str = "",
        exit_code: int | None = None,
        signal: int | None = None,
        cause_text: str = "",
        stderr_tail: Sequence[str] = (),
    ) -> None:
        self.task_name = task_name
        self.pid = pid
        self.node = node
        self.exit_code = exit_code
        self.signal = signal
        self.cause_text = cause_text
        self.stderr_tail = tuple(stderr_tail)
        what = f"the worker of task {task_name}" if task_name else "the worker"
        super().__init__(
            message
            or f"{what}{place(pid, node)} ended before the task was done: "
            + ending(exit_code, signal, cause_text, self.stderr_tail)
        )


class OutOfMemoryError(RayError):
    """The worker was ended for want of memory: by the memory monitor, or by the kernel.

    Sizes are bytes; ``victims``, ``top_processes`` and ``attempts`` hold the values of
    mray.wire.oom, ``object_store`` what is used and what there is.
    """

    def __init__(
        self,
        message: str = "the node ran out of memory and this task was ended",
        *,
        kind: str = "",
        node: str = "",
        used: int = 0,
        limit: int = 0,
        threshold: int = 0,
        victims: Sequence[Any] = (),
        top_processes: Sequence[Any] = (),
        object_store: tuple[int, int] = (0, 0),
        attempts: Sequence[Any] = (),
        retry_decision: str = "",
        reason: str = "",
    ) -> None:
        self.message = message
        #: node_memory, task_limit or kernel; empty where the node could not tell.
        self.kind = kind
        self.node = node
        self.used = used
        self.limit = limit
        self.threshold = threshold
        self.victims = tuple(victims)
        self.top_processes = tuple(top_processes)
        self.object_store = object_store
        self.attempts = tuple(attempts)
        #: Why it was not run again.
        self.retry_decision = retry_decision
        #: Why this worker and no other.
        self.reason = reason
        super().__init__(message)


class NodeDiedError(RayError):
    """The node went away."""

    def __init__(
        self, message: str = "the node died", *, node_id: str | bytes | None = None
    ) -> None:
        self.message = message
        self.node_id = hex_id(node_id)
        super().__init__(message)


class LocalRayletDiedError(RayError):
    """The node daemon of this machine ended; its workers end with it."""

    def __init__(self, message: str | None = None, *, node: str = "", cause_text: str = "") -> None:
        self.node = node
        self.cause_text = cause_text
        super().__init__(
            message
            or f"the node daemon (raylet){place(None, node)} died"
            + (f": {cause_text}" if cause_text else "; see `mray logs raylet`")
        )


class PendingCallsLimitExceeded(RayError):
    """More calls wait for the actor than its max_pending_calls allows."""


class TaskUnschedulableError(RayError):
    """No node can ever run the task."""

    def __init__(
        self, error_message: str = "no node can run the task", *, task_name: str = ""
    ) -> None:
        self.error_message = error_message
        self.task_name = task_name
        super().__init__(f"{task_name}: {error_message}" if task_name else error_message)


class ActorUnschedulableError(RayError):
    """No node can ever hold the actor."""

    def __init__(
        self, error_message: str = "no node can hold the actor", *, class_name: str = "",
        actor_id: bytes = b"",
    ) -> None:  # fmt: skip
        self.error_message = error_message
        self.class_name = class_name
        self.actor_id = actor_id.hex()
        what = f"the actor {class_name}: " if class_name else ""
        super().__init__(what + error_message)


class TaskPlacementGroupRemoved(RayError):
    """The placement group of a waiting task was removed."""

    def __init__(self, message: str = "the task's placement group was removed") -> None:
        super().__init__(message)


class ActorPlacementGroupRemoved(RayError):
    """The placement group of an actor was removed."""

    def __init__(self, message: str = "the actor's placement group was removed") -> None:
        super().__init__(message)


class RuntimeEnvSetupError(RayError):
    """The environment that the task, actor or job asks for could not be made."""

    def __init__(self, error_message: str | None = None) -> None:
        self.error_message = error_message
        text = "the runtime environment could not be set up"
        super().__init__(f"{text}: {error_message}" if error_message else text)


# --------------------------------------------------------------------------------------- actors


class RayActorError(RayError):
    """A call to an actor did not come back."""

    def __init__(
        self,
        actor_id: str | bytes | None = None,
        error_msg: str = "the actor failed before the call was done",
        actor_init_failed: bool = False,
        preempted: bool = False,
        *,
        class_name: str = "",
    ) -> None:
        self.actor_id = hex_id(actor_id)
        self.error_msg = error_msg
        self.class_name = class_name
        self._actor_init_failed = actor_init_failed
        self._preempted = preempted
        super().__init__(error_msg)

    @property
    def actor_init_failed(self) -> bool:
        """Whether the constructor raised."""
        return self._actor_init_failed

    @property
    def preempted(self) -> bool:
        """Whether the node was taken away."""
        return self._preempted


class ActorDiedError(RayActorError):
    """The actor is dead and will not come back. ``cause`` is its constructor's error, if any."""

    def __init__(
        self,
        cause: RayTaskError | str | None = None,
        *,
        actor_id: str | bytes | None = None,
        class_name: str = "",
        name: str = "",
        pid: int | None = None,
        node: str = "",
        exit_code: int | None = None,
        signal: int | None = None,
        cause_text: str = "",
        stderr_tail: Sequence[str] = (),
        preempted: bool = False,
    ) -> None:
        self.cause = cause if isinstance(cause, RayTaskError) else None
        self.name = name
        self.pid = pid
        self.node = node
        self.exit_code = exit_code
        self.signal = signal
        self.cause_text = cause_text
        self.stderr_tail = tuple(stderr_tail)
        what = " ".join(
            filter(None, ("the actor", class_name, f"{name!r}" if name else "", hex_id(actor_id)))
        ) + place(pid, node)
        if isinstance(cause, str):
            text = cause
        elif self.cause is not None:
            text = f"{what} died because its constructor raised:\n{self.cause}"
        else:
            text = f"{what} is dead: " + ending(exit_code, signal, cause_text, self.stderr_tail)
        super().__init__(actor_id, text, self.cause is not None, preempted, class_name=class_name)

    def without_cause(self) -> ActorDiedError:
        """A copy that keeps text and facts, to be sent apart from ``cause``."""
        copy = _restore(type(self), self.args, {**self.__dict__, "cause": None})
        assert isinstance(copy, ActorDiedError)
        return copy


class ActorUnavailableError(RayActorError):
    """The actor cannot be reached for now; the call may or may not have run."""

    def __init__(
        self,
        error_message: str = "it cannot be reached",
        actor_id: str | bytes | None = None,
        *,
        class_name: str = "",
    ) -> None:
        what = " ".join(filter(None, ("the actor", class_name, hex_id(actor_id))))
        super().__init__(
            actor_id,
            f"{what} is unavailable: {error_message}. The call may or may not have run",
            class_name=class_name,
        )


class ActorAlreadyExistsError(ValueError, RayError):
    """The name is taken by a living actor."""

    def __init__(self, error_message: str = "an actor of that name exists already") -> None:
        self.error_message = error_message
        super().__init__(error_message)


class ActorHandleNotFoundError(ValueError, RayError):
    """The handle is of another cluster or session."""

    def __init__(self, error_message: str = "the actor is unknown to this cluster") -> None:
        self.error_message = error_message
        super().__init__(error_message)


class AsyncioActorExit(RayError):
    """Raised inside an async actor to end it; users never see it."""


# -------------------------------------------------------------------------------------- objects


class GetTimeoutError(RayError, TimeoutError):
    """``get`` gave up. ``pending`` holds (object id in hex, task name, what it waits for)."""

    def __init__(
        self,
        message: str | None = None,
        *,
        pending: Sequence[tuple[str, str, str]] = (),
        timeout_s: float | None = None,
    ) -> None:
        self.pending = [tuple(entry) for entry in pending]
        self.timeout_s = timeout_s
        if message is None:
            after = f" after {timeout_s:g} s" if timeout_s is not None else ""
            message = f"get timed out{after}"
            if pending:
                lines = [
                    f"  {ref}{f' of {task}' if task else ''}: {reason or 'reason unknown'}"
                    for ref, task, reason in pending
                ]
                message += f"; {len(lines)} not ready:\n" + listed(lines)
        super().__init__(message)


class ObjectLostError(RayError):
    """The value is gone and cannot be had again; ``reason`` says why."""

    _story = "no copy of it is left, and it cannot be made again"

    def __init__(
        self,
        object_ref_hex: str = "",
        owner_address: Any = None,
        call_site: str = "",
        *,
        task_name: str = "",
        reason: str = "",
    ) -> None:
        self.object_ref_hex = object_ref_hex
        self.owner_address = owner_address
        self.call_site = call_site
        self.task_name = task_name
        self.reason = reason
        what = f"object {object_ref_hex}" if object_ref_hex else "the object"
        made = f" of task {task_name}" if task_name else ""
        site = f"\nThe reference was made at: {call_site}" if call_site else ""
        super().__init__(f"{what}{made} cannot be had: {reason or self._story}{site}")


class ObjectFetchTimedOutError(ObjectLostError):
    """Copies should exist but none could be fetched in time."""

    _story = "its copies could not be fetched in time"


class ObjectFreedError(ObjectLostError):
    """It was freed by hand while references were left."""

    _story = "it was freed by hand (internal free) while this reference was left"


class OwnerDiedError(ObjectLostError):
    """The process that owned the object ended, and with it the object."""

    _story = (
        "the process that owned it has ended. The owner of an object is the process that put it "
        "or that submitted its task"
    )


class ReferenceCountingAssertionError(ObjectLostError, AssertionError):
    """The object went while a reference was left: a bug of mray's."""

    _story = "it was deleted while this reference was left, which is a bug in mray"


class ObjectReconstructionFailedError(ObjectLostError):
    """All copies were lost, and running the task again failed or is not allowed."""

    _story = "all copies were lost and its task cannot be run again"

    def __init__(
        self,
        object_ref_hex: str = "",
        reason: Any = None,
        reason_message: str | None = None,
        owner_address: Any = None,
        call_site: str = "",
        *,
        task_name: str = "",
    ) -> None:
        self.reason_message = reason_message
        super().__init__(
            object_ref_hex, owner_address, call_site,
            task_name=task_name,
            reason=reason_message or (str(reason) if reason is not None else ""),
        )  # fmt: skip
        self.reason = reason if reason is not None else self.reason


class ObjectReconstructionFailedMaxAttemptsExceededError(ObjectReconstructionFailedError):
    """The task has no retries left."""

    _story = "all copies were lost and its task has no retries left (raise max_retries)"


class ObjectReconstructionFailedLineageEvictedError(ObjectReconstructionFailedError):
    """What is needed to run the task again was dropped to save memory."""

    _story = "all copies were lost and the description of its task was dropped (max_lineage_bytes)"


class ReferenceLostError(ObjectLostError, GetTimeoutError):
    """Nobody knows the object any more: the reference was pickled where mray could not see it.

    A GetTimeoutError too, which is what Ray's waiting for such an object ends in.
    """

    _story = (
        "its owner does not know it any more. The reference was pickled outside mray (plain "
        "pickle), so nothing kept the object; pass references as arguments or inside values"
    )

    def __init__(self, *args: Any, timeout_s: float | None = None, **facts: Any) -> None:
        super().__init__(*args, **facts)
        self.timeout_s = timeout_s


class ObjectStoreFullError(RayError):
    """The object store has no room, after evicting, spilling and waiting.

    ``holders`` are (who, bytes), biggest first.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        requested_bytes: int | None = None,
        capacity_bytes: int | None = None,
        used_bytes: int | None = None,
        holders: Sequence[tuple[str, int]] = (),
    ) -> None:
        self.requested_bytes = requested_bytes
        self.capacity_bytes = capacity_bytes
        self.used_bytes = used_bytes
        self.holders = [tuple(holder) for holder in holders]
        if message is None:
            asked = f" for {format_bytes(requested_bytes)}" if requested_bytes is not None else ""
            message = f"the object store of this node has no room{asked}"
            if capacity_bytes is not None and used_bytes is not None:
                used, capacity = format_bytes(used_bytes), format_bytes(capacity_bytes)
                message += f": {used} of {capacity} are in use"
            if holders:
                lines = [f"  {who}: {format_bytes(held)}" for who, held in holders]
                message += ", held by\n" + listed(lines)
            message += "\nDrop references, or start with a larger object_store_memory"
        super().__init__(message)


class OutOfDiskError(RayError):
    """The disk that takes spilled objects is full."""

    def __init__(
        self, message: str | None = None, *, path: str = "", used_fraction: float | None = None
    ) -> None:
        self.path = path
        self.used_fraction = used_fraction
        if message is None:
            use = f" is {used_fraction:.1%} full" if used_fraction is not None else " is full"
            where = f"the disk of {path}" if path else "the disk for spilled objects"
            message = f"{where}{use}: nothing more is spilled. Make room, or set another directory"
        super().__init__(message)


class PlasmaObjectNotAvailable(RayError):
    """The object is not in this node's store."""


class ObjectRefStreamEndOfStreamError(RayError):
    """A streaming generator has no further item."""


class OufOfBandObjectRefSerializationException(RayError):
    """An ObjectRef was pickled by user code, and the configuration forbids that."""


# --------------------------------------------------------------------------------------- system


class RaySystemError(RayError):
    """mray itself failed."""

    def __init__(self, client_exc: Any = "", traceback_str: str | None = None) -> None:
        self.client_exc = client_exc
        self.traceback_str = traceback_str
        super().__init__(
            f"system error: {client_exc}" + (f"\n{traceback_str}" if traceback_str else "")
        )


class StreamingGeneratorReplayInconsistentError(RaySystemError):
    """A generator that ran again yielded another number of items."""


class RayChannelError(RaySystemError):
    """A channel between processes is closed or broken."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """A channel gave or took nothing in time."""


class RayCgraphCapacityExceeded(RaySystemError):
    """A compiled graph has too many results in flight."""


class RayDirectTransportError(RaySystemError):
    """A transfer between devices failed."""


class RpcError(RayError):
    """A request to another process of mray failed."""

    def __init__(self, message: str = "a request failed", rpc_code: int | None = None) -> None:
        self.message = message
        self.rpc_code = rpc_code
        super().__init__(message)


class AuthenticationError(RayError):
    """The cluster's token is missing or wrong."""

    def __init__(self, message: str = "the cluster token is missing or wrong") -> None:
        self.message = message
        super().__init__(message)


class CrossLanguageError(RayError):
    """An error raised in another language; mray runs Python only."""


class UserCodeException(RayError):
    """User code failed outside a task, for instance in a callback."""
