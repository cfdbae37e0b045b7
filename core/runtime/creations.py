"""An actor's creation as its maker keeps it: what it needs, and what is told of its end."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from mray.class_names import short_name
from mray.ownership.references import Entry
from mray.placement import plain
from mray.runtime.arguments import Packed, argument_of, ref_info
from mray.serialization.error_names import error_of
from mray.tasks.event_batch import Record
from mray.tasks.events import TaskRecorder
from mray.wire.messages import ActorSpec, ActorState


class Creation:
    """An actor made by this process, from ``.remote()`` until it is dead for good."""

    __slots__ = (
        "born",
        "entry",
        "incarnation",
        "packed",
        "parent",
        "recorded",
        "sent_at",
        "spec",
        "unresolved",
    )

    def __init__(self, spec: ActorSpec, packed: Packed, entry: Entry) -> None:
        self.spec = spec
        self.packed = packed
        #: The entry behind the handles.
        self.entry = entry
        self.unresolved = 0
        #: For who looks at tasks: see Task. The last incarnation whose creation ended.
        self.parent = b""
        self.born = monotonic()
        self.sent_at = 0.0
        self.incarnation = -1
        self.recorded = True

    def record(self, recorder: TaskRecorder, word: ActorState, now: float) -> None:
        """Record that the creation of an incarnation has ended, if the head's ``word`` says so."""
        if word.state not in ("ALIVE", "DEAD") or word.incarnation <= self.incarnation:
            return
        self.incarnation = word.incarnation
        if not self.recorded:
            return
        spec = self.spec
        error: bytes | tuple[str, str] = word.error or ("ACTOR_DIED", "")
        if word.cause is not None and not word.error:
            error = error_of(word.cause)
        worker = word.worker.process_id if word.worker is not None else b""
        recorder.created(
            short_name(spec.class_name), plain(spec.resources),
            Record(
                spec.task_id, 0, word.incarnation, self.born, self.sent_at, self.sent_at,
                int((now - self.sent_at) * 1e6) if self.sent_at else 0, word.state == "DEAD",
                self.parent, spec.actor_id, now,
            ),
            error, (worker, word.node_id, word.pid),
        )  # fmt: skip

    def complete(self) -> ActorSpec:
        """The spec with its arguments, which are all there now."""
        spec, packed = self.spec, self.packed
        self.sent_at = monotonic()
        in_store = packed.in_store
        return ActorSpec(
            spec.actor_id, spec.job_id, spec.owner, spec.class_key, spec.class_name, spec.task_id,
            packed.data, [argument_of(entry) for entry in packed.deps],
            ref_info(in_store) if in_store is not None else None,
            in_store.located if in_store is not None else None,
            spec.resources, spec.placement_resources, spec.max_restarts, spec.max_task_retries,
            spec.max_concurrency, spec.name, spec.namespace, spec.detached, spec.runtime_env,
            spec.is_async, spec.handle, spec.options, spec.serializers,
            spec.max_oom_restarts, spec.group, spec.captures, spec.where,
        )  # fmt: skip


class CreationWaiter:
    """Counts down the arguments of an actor's creation; ``then`` is called with it in the end."""

    __slots__ = ("creation", "then")

    def __init__(self, creation: Creation, then: Callable[[Creation], None]) -> None:
        self.creation = creation
        self.then = then

    def fire(self, entry: Entry) -> None:
        """An argument is there."""
        self.creation.unresolved -= 1
        if not self.creation.unresolved:
            self.then(self.creation)
