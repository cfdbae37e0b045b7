"""One owner of objects on several nodes: the real parts of its runtime around pretended peers.

Owns the stand-ins for what those parts lean on (the pump, the store, leases), so that submitting,
finishing, keeping, losing and rebuilding run the code that drivers and workers run. What the nodes
and readers do is nodes.py's.
"""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mray.ids import object_id
from mray.ownership.entry import Entry
from mray.ownership.ledger import Ledger
from mray.ownership.references import Free, Ready
from mray.runtime.node_book import NodeBook
from mray.runtime.objects import ObjectsPart
from mray.runtime.recovering import RecoveringPart
from mray.runtime.tasks import TasksPart
from mray.serialization.failures import error_envelope
from mray.tasks.task import Task, Template
from mray.wire.messages import Address, Located, TaskTemplate

if TYPE_CHECKING:
    from .nodes import Nodes

OWN = b"node-0"
#: What stands for the value of an object that travels by message.
INLINE = b"inline"


class SimTasks(TasksPart):
    """The owner's tasks. A task that is ready to run goes to the world in place of a worker."""

    def __init__(self, runtime: Any, run: Any) -> None:
        self.rt = runtime
        self.references = runtime.references
        self.recorder = SimpleNamespace(on=False)  # type: ignore[assignment]
        self.pending = {}
        self.doomed = {}
        self.locality = SimpleNamespace(consider=lambda task: None)  # type: ignore[assignment]
        self.dispatcher = SimpleNamespace(submit=run, retry=run)  # type: ignore[assignment]


class Owner:
    """Has the attributes of Runtime that its parts use."""

    def __init__(self, world: Nodes, parallel_max: int, lineage_bytes: int) -> None:
        self.world = world
        self.process_id = b"owner"
        self.address = Address(self.process_id, OWN)
        self.node = SimpleNamespace(node_id=OWN, address=Address(OWN, OWN))
        self.ledger = Ledger(self.address, 1 << 32)
        self.references = self.ledger.references
        self.config = SimpleNamespace(
            tasks=SimpleNamespace(
                max_lineage_bytes=lineage_bytes, max_parallel_rebuilds=parallel_max
            )
        )
        self.mailbox = SimpleNamespace(
            posts=deque(), resolved=deque(), asleep=False, wake=lambda: None
        )
        self.pump = SimpleNamespace(
            on=lambda kind, handler: self.handlers.__setitem__(kind, handler),
            send=world.sent,
            request=world.asked,
            clock=lambda: 0.0,
            door=SimpleNamespace(knows=lambda node_id: True),
        )
        self.handlers: dict[type, Any] = {}
        self.dead_nodes: dict[bytes, Any] = {}
        self.dead_processes: dict[bytes, Any] = {}
        self.on_node_gone: list[Any] = []
        self.store = SimpleNamespace(free_many=lambda ids: world.free(OWN, ids))
        self.borrowing = SimpleNamespace(
            decline=lambda returns: None, receive_refs=lambda entry, refs: None
        )
        self.streams = SimpleNamespace(sources={})
        self.actors = SimpleNamespace()
        self.objects = SimpleNamespace(
            watch_for=lambda entry: None, readiness=ObjectsPart.readiness
        )
        self.nodes = NodeBook(self)  # type: ignore[arg-type]
        self.tasks = SimTasks(self, world.ready)
        self.recovering = world.recovering_type(self)
        self.recovering.said_evicted = True
        self._count = 0
        self._templates: dict[tuple[int, int], Template] = {}

    def tell(self, peer: Address, message: Any) -> bool:
        """Send to a node or reader."""
        return bool(self.world.sent(peer.process_id, message))

    # -- what user code does

    def put(self, size: int = 1000) -> Entry:
        """A value in the owner's own store."""
        self._count += 1
        made = self._count.to_bytes(8, "little") + bytes(20)
        entry = Entry(made, None, self.mailbox, 1, "put")
        entry.located = Located(OWN, size)
        entry.ready = True
        self.references.entries[made] = entry
        self.world.stores[OWN].add(made)
        self.world.kept.add((OWN, made))
        return entry

    def submit(self, args: list[Entry], num_returns: int, max_retries: int) -> Task:
        """A task; one reference to each return is in hand."""
        self._count += 1
        key = num_returns, max_retries
        if key not in self._templates:
            wire = TaskTemplate(len(self._templates), b"f", "f", num_returns, b"job", {})
            self._templates[key] = Template(wire, 0, max_retries)
        task_id = self._count.to_bytes(8, "little") + bytes(16)
        returns = [
            Entry(object_id(task_id, index + 1), None, self.mailbox, 1, "f")  # type: ignore[arg-type]
            for index in range(num_returns)
        ]
        for entry in returns:
            self.references.entries[entry.object_id] = entry
        task = Task(task_id, self._templates[key], b"args", list(args), list(args), returns)
        self.tasks.submit(task)
        return task

    def drop(self, entry: Entry) -> None:
        """The last reference in hand is gone."""
        self.references.drop_local(entry)

    # -- a round of the loop

    def settle(self) -> None:
        """Carry out what events have led to."""
        while self.mailbox.resolved or self.references.effects:
            while self.mailbox.resolved:
                self.tasks.resolved(self.mailbox.resolved.popleft())
            freed = []
            for effect in self.ledger.take():
                if isinstance(effect, Free):
                    freed.append(effect.entry)
                else:
                    assert isinstance(effect, Ready)
                    for watcher in effect.watchers:
                        self.world.sent(watcher, ObjectsPart.readiness(effect.entry))
            if freed:
                self.recovering.copies.freed(freed)

    def crash(self, task: Task, begun: bool) -> None:
        """The task's worker died, as tasks/dispatch.py treats it."""
        if not begun:
            self.world.ready(task)
        elif task.retries_left != 0:
            task.retries_left -= 1
            task.attempt += 1
            self.world.ready(task)
        else:
            self.tasks.fail(task, error_envelope(RuntimeError("its worker died")))

    def check(self) -> None:
        """Raise InvariantError if a machine contradicts itself."""
        self.references.check()
        self.recovering.rebuilding.check()
        self.recovering.locations.check()


__all__ = ["INLINE", "OWN", "Owner", "RecoveringPart"]
