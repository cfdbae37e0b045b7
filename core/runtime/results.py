"""What a call leaves: return values packed for its caller, and errors.

Owns how many values a result stands for, what goes inline and what into the store, whether an
error is to be retried, and an error's form on the wire. No reply is too big for a message
(batches.py). Sends nothing. The items of streaming
generators are packed here too; when they leave is generators.py's.
"""

from __future__ import annotations

import logging
import os
import pickle
from types import GeneratorType
from typing import TYPE_CHECKING, Any

from mray.exceptions import RayError, RayTaskError, TaskCancelledError
from mray.ids import TaskId, object_id
from mray.runtime.batches import ERROR_BYTES_MAX, REPLY_BYTES_MAX
from mray.runtime.calls import RAISED, RETRY, Done
from mray.serialization.failures import error_envelope, serialize_exception
from mray.serialization.inspection import unpicklable_error
from mray.serialization.pickler import Serialized, pack
from mray.wire.messages import ActorSpec, Located, TaskTemplate

if TYPE_CHECKING:
    from mray.runtime.runtime import Runtime

log = logging.getLogger("mray.worker")

#: A packed value: inline or a place in the store, and the references inside.
Packed = tuple[bytes | None, Located | None, list[Any]]


class Results:
    """See the module."""

    def __init__(self, runtime: Runtime) -> None:
        self.rt = runtime
        #: In an actor: the instance, and what it is. For errors.
        self.actor: Any = None
        self.actor_spec: ActorSpec | None = None

    def take(self, done: Done, template: TaskTemplate, value: Any) -> None:
        """Make ``value`` the returns of a call.

        Raises TypeError or ValueError when it is not as many values as were asked for, and what
        packing raises.
        """
        count = template.num_returns
        if type(value) is GeneratorType:
            self._take_generator(done, template, value)
            return
        if count == 1:
            self._add(done, template, value)
            return
        if count == 0:
            return
        if not hasattr(value, "__len__"):
            raise TypeError(
                f"{template.name} was to return {count} values (num_returns={count}), "
                f"it returned one of type {type(value).__name__}, which has no length"
            )
        if len(value) != count:
            raise ValueError(
                f"{template.name} was to return {count} values (num_returns={count}), "
                f"it returned {len(value)}"
            )
        # All are packed before any is stored: of a call that fails nobody would free it.
        packed = [self._pack(template, item) for item in value]
        room = REPLY_BYTES_MAX
        for index, one in enumerate(packed, 1):
            try:
                room -= self._keep(done, index, one, room)
            except Exception as error:  # No room: what is stored is the caller's to free.
                done.status = RAISED
                self.fail(done, template, error, kept=index - 1)
                return

    def _take_generator(self, done: Done, template: TaskTemplate, items: Any) -> None:
        """A generator with a fixed number of returns: what it yields before it raises counts."""
        count, room = template.num_returns, REPLY_BYTES_MAX
        try:
            for index in range(1, count + 1):
                try:
                    item = next(items)
                except StopIteration:
                    raise ValueError(
                        f"{template.name} was to return {count} values (num_returns={count}), "
                        f"its generator yielded {index - 1}"
                    ) from None
                room -= self._keep(done, index, self._pack(template, item), room)
        except SystemExit:
            raise
        except BaseException as error:
            done.status = self.verdict(template, error)
            self.fail(done, template, error, kept=len(done.returns))
            return
        if count and next(items, done) is not done:
            log.warning(
                "%s yields more than the %d values it was to return: the rest is dropped",
                template.name,
                count,
            )
        items.close()

    def _add(self, done: Done, template: TaskTemplate, value: Any) -> None:
        """The one value of a call. Written out, for speed: most calls end here."""
        try:
            packed = pack(value)
        except Exception as error:
            raise unpicklable_error(value, f"the return value of {template.name}", error) from error
        if type(packed) is bytes and len(packed) <= self.rt.objects.inline_max:
            done.returns.append((packed, None))
            done.nested.append([])
        else:
            self._keep(done, 1, packed, len(packed))

    def _pack(self, template: TaskTemplate, value: Any) -> bytes | Serialized:
        try:
            return pack(value)
        except Exception as error:
            raise unpicklable_error(value, f"the return value of {template.name}", error) from error

    def _keep(self, done: Done, index: int, packed: bytes | Serialized, room: int) -> int:
        """Put a value into the reply, or into the store where it has not so much ``room``; how much
        it takes of the reply."""
        data, located, refs = self._place(done, index, packed, room)
        done.returns.append((data, located))
        done.nested.append(refs)
        return 0 if data is None else len(data)

    def item(self, done: Done, template: TaskTemplate, index: int, value: Any) -> Packed:
        """Pack one item of a stream, which becomes the object ``index`` of the task."""
        try:
            packed = pack(value)
        except Exception as error:
            what = f"an item that {template.name} yields"
            raise unpicklable_error(value, what, error) from error
        if type(packed) is bytes and len(packed) <= self.rt.objects.inline_max:
            return packed, None, []
        return self._place(done, index, packed, len(packed))

    def _place(self, done: Done, index: int, packed: bytes | Serialized, room: int) -> Packed:
        refs = list(packed.refs) if isinstance(packed, Serialized) else []
        size = len(packed)
        if size <= self.rt.objects.inline_max and size <= room:
            return packed if isinstance(packed, bytes) else packed.to_bytes(), None, refs
        copy = self.rt.store.copy

        def write(view: memoryview) -> None:
            if isinstance(packed, bytes):
                copy(view[:size], memoryview(packed))
            else:
                packed.write_into(view, copy)

        made = object_id(TaskId(done.spec.task_id), index)
        own = self.rt.node.node_id
        owner = done.owner if done.owner.node_id != own else None
        self.rt.store.put(made, done.owner.process_id, size, write, owner=owner)
        return None, Located(own, size), refs

    def verdict(self, template: TaskTemplate, error: BaseException) -> int:
        """The status of a call that raised: to be retried, or not."""
        wanted = template.retry_exceptions
        if not wanted:
            return RAISED
        if wanted == b"*":
            return RETRY if isinstance(error, Exception) else RAISED
        types = pickle.loads(wanted)
        return RETRY if isinstance(error, types) else RAISED

    def fail(self, done: Done, template: TaskTemplate, error: BaseException, kept: int = 0) -> None:
        """Make the error every return of a call, but for the first ``kept``."""
        count = max(1, template.num_returns)
        data, refs = self.packed_error(done, template, error, count)
        done.returns[kept:] = [(data, None)] * (count - kept)
        done.nested[kept:] = [refs] * (count - kept)

    def packed_error(
        self, done: Done, template: TaskTemplate, error: BaseException, count: int = 1
    ) -> tuple[bytes, list[Any]]:
        """The envelope of what a call raised, and the references inside. It is sent ``count`` times
        in one message."""
        refs: list[Any] = []
        if isinstance(error, KeyboardInterrupt):
            cancelled = TaskCancelledError(done.spec.task_id.hex(), task_name=template.name)
            error = cancelled.with_traceback(error.__traceback__)
        return self.envelope_of(error, template.name, refs, ERROR_BYTES_MAX // count), refs

    def envelope_of(
        self, error: BaseException, name: str, refs: list[Any], bytes_max: int = ERROR_BYTES_MAX
    ) -> bytes:
        """The error on the wire, as raised by ``name`` in this process."""
        if isinstance(error, RayError) and not isinstance(error, RayTaskError):
            frame = error.__traceback__
            if frame is None or frame.tb_next is None:
                return error_envelope(error, refs)
        spec = self.actor_spec
        return serialize_exception(
            error,
            name,
            os.getpid(),
            self.rt.node.ip,
            actor_repr=_repr(self.actor) if spec is not None else None,
            actor_id=spec.actor_id.hex() if spec is not None else None,
            proctitle=f"ray::{name}",
            refs=refs,
            bytes_max=bytes_max,
        )


def _repr(actor: object) -> str | None:
    try:
        return repr(actor)
    except Exception:  # a broken __repr__ of the user's must not hide the error being told
        return type(actor).__name__
