"""The runtime of one driver or worker: assembles its parts and turns the event loop.

Owns the pump, the mailbox, the address of this process, its connections to node daemon and head,
and the order in which a round of work is done. The parts own their dialogues: objects.py (values,
waits), borrowing.py (references that come and go), tasks.py (submitting, leases), actors.py.

Whoever turns the loop, one thread at a time (turn.py says which), owns every machine. Other
threads leave notes in the mailbox and wait on locks that the loop releases; what they read without
asking (an entry's ``ready`` and value) is written by the loop in that order. So no lock guards a
machine, and a finalizer never blocks.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from mray.config import Config
from mray.environments import merge_environments, pack_environment
from mray.exceptions import LocalRayletDiedError, RaySystemError, RpcError
from mray.ids import IdMaker, JobId
from mray.last_deaths import LastDeaths
from mray.object_ref import ObjectRef
from mray.ownership.entry import Entry
from mray.ownership.ledger import Ledger
from mray.rpc.chaos import install
from mray.rpc.door import Door
from mray.rpc.pump import Pump, RequestFailed, Timer
from mray.runtime.actors import ActorsPart
from mray.runtime.borrowing import BorrowingPart, Found
from mray.runtime.cancels import CancelsPart
from mray.runtime.fetching import FetchingPart
from mray.runtime.freeing import FreeingPart
from mray.runtime.head_link import HeadLink
from mray.runtime.leasing import LeasingPart
from mray.runtime.mailbox import Mailbox
from mray.runtime.metrics import MetricsPart
from mray.runtime.node_book import NodeBook
from mray.runtime.node_deaths import node_gone
from mray.runtime.objects import ObjectsPart
from mray.runtime.placing import PlacingPart
from mray.runtime.pressure import PressurePart
from mray.runtime.recovering import RecoveringPart
from mray.runtime.reference_report import ReferenceReports
from mray.runtime.serializers import SerializersPart
from mray.runtime.streams import StreamsPart
from mray.runtime.task_report import TaskReports
from mray.runtime.tasks import TasksPart
from mray.runtime.turn import Turn
from mray.runtime_env import checked
from mray.serialization.failures import error_envelope
from mray.store.client import StoreClient
from mray.tasks.task import Task
from mray.uploads import PACKAGE_TIMEOUT_S, Uploads
from mray.wire.messages import (
    ActorSpec,
    Address,
    CheckProcess,
    GiveUpPlaces,
    Message,
    NodeGone,
    NodeInfo,
    ProcessDied,
    Refused,
)

log = logging.getLogger("mray.runtime")

ReplyT = TypeVar("ReplyT", bound=Message)
#: Notes read in one round before sockets get their turn.
_NOTES_PER_ROUND = 5000
_NODE_GONE = RequestFailed("LocalRayletDiedError", "the node daemon has ended")


class Runtime:
    """See the module. ``mode`` is driver or worker."""

    def __init__(
        self,
        *,
        mode: str,
        door: Door,
        address: Address,
        node: NodeInfo,
        head: Address,
        job_id: JobId,
        namespace: str,
        config: Config,
    ) -> None:
        self.mode = mode
        self.address = address
        self.node = node
        self.head = head
        self.job_id = job_id
        self.namespace = namespace
        self.config = config
        self.pid = os.getpid()
        self.process_id = address.process_id
        self.ids = IdMaker(self.process_id[1:13], job_id)
        self.pump = install(Pump(door, node.node_id), config, mode)
        self.mailbox = self.pump.inbox = Mailbox(door.wake)
        self.ledger = Ledger(address, int.from_bytes(os.urandom(7), "little"))
        self.references = self.ledger.references
        self.store = StoreClient(
            node.store_path, ask=self.ask_store, post=self.post_store, schedule=self.post,
            overflow_path=node.overflow_path,
        )  # fmt: skip
        self.head_link = HeadLink(self)
        self.dead_processes = LastDeaths()
        self.dead_nodes: dict[bytes, NodeGone] = {}
        self.objects = ObjectsPart(self)
        self.fetching = FetchingPart(self)
        self.borrowing = BorrowingPart(self)
        #: What makes the ObjectRefs of a pickle.
        self.ref_maker = self.borrowing.ref_maker
        self.tasks = TasksPart(self)
        self.placing = PlacingPart(self)
        self.nodes = NodeBook(self)
        #: What templates of functions belong to: this runtime, or the placement group that captures
        #: what is submitted here; and that group, b"" for none.
        self.scope: object = self
        self.scope_group = b""
        self.streams = StreamsPart(self)
        self.actors = ActorsPart(self)
        self.cancels = CancelsPart(self)
        self.serializers = SerializersPart(self)
        self.reports = ReferenceReports(self)
        self.freeing = FreeingPart(self)
        self.pressure = PressurePart(self)
        self.task_reports = TaskReports(self)
        self.metrics = MetricsPart(self)
        #: Called with each ProcessDied, after the parts; with each NodeGone, after all processes of
        #: the node are told dead.
        self.on_death: list[Callable[[ProcessDied], None]] = []
        self.on_node_gone: list[Callable[[NodeGone], None]] = []
        self.recovering = RecoveringPart(self)
        self.leasing = LeasingPart(self)
        self._timer: Timer | None = None
        self._timer_at = float("inf")
        self._thread: threading.Thread | None = None
        self.closed = False
        #: Set when the node daemon is dead: the error that everything pending and new fails with.
        self.lost = b""
        self.turn: Turn | None = None
        self._node_pidfd = -1
        #: Threads that wait for an answer of the node daemon.
        self._asked_node: dict[int, Callable[[Message], None]] = {}
        #: What tasks submitted here inherit: msgpack as in environment.py.
        self.environment = b""
        self.uploads = Uploads()
        #: In an actor's process: what it is, and its how-manyeth life.
        self.actor_spec: ActorSpec | None = None
        self.incarnation = 0
        #: In a worker: accelerators.Accelerators.
        self.accelerators: Any = None
        #: In a worker: the task it runs or its actor's class, for people.
        self.title = ""
        self.pump.hooks.append(self._round)
        self.pump.on(ProcessDied, self._process_died)
        self.pump.on(NodeGone, lambda sender, message: node_gone(self, sender, message))
        self.pump.on(GiveUpPlaces, self.store.give_up_places)

    # -- life

    def start(self) -> None:
        """Turn the loop: in a thread of its own, or by ``turn`` where there is one."""
        self._watch_node()
        self.pump.running = True
        target = self._run if self.turn is None else self.turn.stand_in
        self._thread = threading.Thread(target=target, name="mray-loop", daemon=True)
        self._thread.start()
        self.metrics.start()

    def take_turns(self, *, guarded: bool) -> None:
        """Let this thread turn the loop whenever it waits. See turn.py."""
        self.turn = turn = Turn(self.pump, guarded=guarded)
        wake = self.pump.door.wake
        locked = turn.lock.locked

        mailbox = self.mailbox

        def wake_if_turning() -> None:
            # First: notes left from here on need no wake-up of their own.
            mailbox.asleep = False
            # Whoever begins to turn the loop reads the notes first.
            if locked():
                wake()

        mailbox.wake = wake_if_turning

    def send_now(self) -> None:
        """Send what this thread has left to be sent, before it goes on to something long."""
        turn = self.turn
        if turn is not None and turn.here() and not turn.lock.locked():
            turn.lead(lambda: not self.mailbox.posts)

    def block_on(self, lock: threading.Lock, timeout_s: float | None) -> bool:
        """Acquire a lock that the loop releases; False if the time ran out first.

        Raises RaySystemError within the loop, where finalizers of the user may come to run.
        """
        turn = self.turn
        if turn is not None and turn.turning == threading.get_ident():
            raise RaySystemError(
                "get(), wait() or put() would wait for ever: it was called by a finalizer "
                "(__del__ or a weakref callback) that Python ran in the middle of mray's event "
                "loop. Finalizers must not use the API; have them leave a note for a thread"
            )
        if turn is not None and turn.here():
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            return turn.lead(lambda: lock.acquire(blocking=False), deadline)
        if turn is not None:
            turn.hurry()
        if timeout_s is None:
            return lock.acquire()
        return lock.acquire(timeout=min(max(timeout_s, 0.0), threading.TIMEOUT_MAX))

    def _watch_node(self) -> None:
        """Learn of the node daemon's end from the kernel: no message will tell."""
        try:
            self._node_pidfd = os.pidfd_open(self.node.pid)
        except ProcessLookupError:
            self.post(self._node_died)
            return
        self.pump.door.watch(self._node_pidfd, self._node_died)

    def _node_died(self) -> None:
        self.pump.door.unwatch(self._node_pidfd)
        if self.lost:
            return
        self.lost = error_envelope(
            LocalRayletDiedError(
                node=self.node.node_id.hex()[:8],
                cause_text=f"pid {self.node.pid} has ended; its last words are in "
                f"{self.node.log_dir}/raylet.out",
            )
        )
        for arrived in list(self._asked_node.values()):
            arrived(_NODE_GONE)
        self.tasks.lose_all(self.lost)
        self.objects.lose_all(self.lost)

    def _run(self) -> None:
        while self.pump.running:
            try:
                self.pump.run_once(None)
            except Exception:
                # One round is lost, not the process: its users would hang without a word.
                log.exception("a round of the event loop failed")

    def close(self) -> None:
        """Stop the loop and close everything. Waiting threads get an error."""
        if self.closed or os.getpid() != self.pid:
            return  # In a fork, sockets and files are the parent's.
        self.closed = True
        self.pump.stop()
        if self.turn is not None:
            self.turn.stop()
        if (thread := self._thread) and thread.ident and thread is not threading.current_thread():
            thread.join(timeout=5.0)  # Without an ident it could not be started.
        self.objects.release_all()
        self.store.close()
        if self._node_pidfd >= 0:
            os.close(self._node_pidfd)
        self.pump.door.close()
        self.mailbox.posts.clear()

    def is_closed(self) -> bool:
        """Whether close() was called, perhaps by another thread."""
        return self.closed

    def environment_of(self, own: Mapping[str, Any] | None) -> bytes:
        """The environment of a task or actor submitted here with ``runtime_env=own``, its
        packages uploaded. Raises what Uploads.resolve() does."""
        if not own:
            return self.environment
        resolved = self.uploads.resolve(
            checked(own), lambda make: self.ask_any(self.head, make, PACKAGE_TIMEOUT_S)
        )
        return merge_environments(self.environment, pack_environment(resolved))

    # -- talking to the daemons, from any thread but the loop's

    def ask(
        self,
        peer: Address,
        make: Callable[[int], Message],
        reply: type[ReplyT],
        timeout_s: float = 30.0,
    ) -> ReplyT:
        """Send a request and block for its reply.

        Raises RpcError when none comes, RaySystemError when it is refused.
        """
        answer = self.ask_any(peer, make, timeout_s)
        if isinstance(answer, RequestFailed):
            raise RpcError(answer.text)
        if isinstance(answer, Refused):
            raise RaySystemError(answer.text)
        if not isinstance(answer, reply):
            raise RaySystemError(f"expected {reply.__name__}, got {type(answer).__name__}")
        return answer

    def _loop_is_here(self) -> bool:
        if self.turn is not None:
            return self.turn.turning == threading.get_ident()
        return self._thread is threading.current_thread()

    def ask_any(
        self, peer: Address, make: Callable[[int], Message], timeout_s: float = 30.0
    ) -> Message:
        """Send a request and block for whatever answers it, RequestFailed included."""
        if self._loop_is_here():
            raise RuntimeError("the event loop may not wait for itself")
        if self.closed:
            return RequestFailed("RpcError", "this process is no longer connected")
        if self.lost and peer.process_id == self.node.node_id:
            return _NODE_GONE
        lock = threading.Lock()
        lock.acquire()
        box: list[Message] = []

        def arrived(message: Message) -> None:
            if not box:
                box.append(message)
                lock.release()

        if peer.process_id == self.node.node_id:
            self._asked_node[id(lock)] = arrived

        def begin() -> None:
            if peer.process_id == self.head.process_id:
                self.head_link.ask(make, arrived, timeout_s)
            else:
                self.reach(peer)
                self.pump.request(peer.process_id, make, arrived, timeout_s)

        self.post(begin)
        # Longer than the request's own end: the loop answers in time, or it is gone.
        answered = self.block_on(lock, timeout_s + self.head_link.margin_s(peer))
        self._asked_node.pop(id(lock), None)
        if not answered:
            return RequestFailed("RpcError", "the event loop of this process does not answer")
        return box[0]

    def ask_store(self, make: Callable[[int], Message], timeout_s: float) -> Message:
        """A request to the node's object store."""
        answer = self.ask_any(self.node.address, make, timeout_s)
        if isinstance(answer, RequestFailed):
            raise RpcError(f"object store of node {self.node.node_id.hex()[:8]}: {answer.text}")
        return answer

    def post_store(self, message: Message) -> None:
        """Tell the node's object store something. From finalizers too."""
        self.post_to(self.node.address, message)

    def post_to(self, peer: Address, message: Message) -> None:
        """Have the loop send, after the notes left before."""

        def send() -> None:
            self.tell(peer, message)

        self.post(send)

    def flush(self, timeout_s: float = 2.0) -> None:
        """Wait until the loop has read all notes and sent what they led to."""
        for _ in range(2):
            lock = threading.Lock()
            lock.acquire()
            self.post(lock.release)
            self.block_on(lock, timeout_s)

    def post(self, call: Callable[[], None]) -> None:
        """Have the loop run ``call``, after the notes left before."""
        self.mailbox.posts.append(call)
        self.mailbox.wake()

    # -- within the loop

    def tell(self, peer: Address, message: Message) -> bool:
        """Send; False if the peer is gone."""
        return self.reach(peer) and self.pump.send(peer.process_id, message)

    def reach(self, peer: Address) -> bool:
        """Connect to a process that is alive; False if it is dead.

        A process is told of the deaths that come, not of those before its time. So the first
        connection looks whether anybody is there: sockets listen before their address is known.
        Of a process that is reached by tcp its node is asked; ProcessDied comes if it is not.
        """
        door = self.pump.door
        process_id = peer.process_id
        if door.knows(process_id):
            return True
        own = self.node.node_id
        if process_id == self.head.process_id:  # It may be away, and comes back as itself.
            return self.head_link.reach()
        is_dead = process_id in self.dead_processes or peer.node_id in self.dead_nodes
        listens = False if is_dead else door.somebody_listens(peer, own)
        if listens is False:
            door.hang_up(process_id)
            return False
        door.dial(peer, own)
        if listens is None:
            self.pump.send(own, CheckProcess(process_id, peer.node_id))
        return True

    def _round(self) -> None:
        mailbox, references = self.mailbox, self.references
        posts = mailbox.posts
        tasks, actors = self.tasks, self.actors
        for _ in range(_NOTES_PER_ROUND):
            if not posts:
                break
            note = posts.popleft()
            kind = type(note)
            if kind is Entry:
                note.local -= 1
                if not (note.local or note.inside):
                    references.settle(note)
            elif kind is Task:
                if self.lost:
                    tasks.refuse(note, self.lost)
                elif note.actor_id:
                    actors.submit(note)
                else:
                    tasks.submit(note)
            elif kind is Found:
                self.borrowing.adopted(note)
            else:
                try:
                    note()
                except Exception:
                    log.exception("a call in the event loop failed")
        if posts:
            mailbox.wake()
        while mailbox.resolved:
            task = mailbox.resolved.popleft()
            if task.actor_id:
                actors.resolved(task)
            else:
                tasks.resolved(task)
        now = self.pump.clock()
        tasks.turn(now)
        actors.turn()
        if tasks.recorder.count:
            self.task_reports.turn()
        self.borrowing.settle_up()
        while references.effects:
            self.borrowing.settle_up()
        self.borrowing.flush(now)
        if mailbox.resolved:
            mailbox.wake()
        self._arm(tasks.dispatcher.deadline())

    def _arm(self, deadline: float | None) -> None:
        if deadline is None or deadline >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = deadline
        self._timer = self.pump.at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        self.tasks.dispatcher.tick(self.pump.clock())

    def _process_died(self, sender: bytes, message: ProcessDied) -> None:
        self.process_died(message)

    def process_died(self, message: ProcessDied) -> None:
        """A process is dead: every part learns of it."""
        self.dead_processes.add(message)
        self.borrowing.process_died(message)
        self.tasks.process_died(message)
        self.actors.process_died(message)
        for call in self.on_death:
            call(message)
        self.pump.hang_up(message.process_id)

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    # -- what ObjectRef needs

    def pickled_out_of_band(self, entry: Entry) -> None:
        """See objects.py."""
        self.borrowing.pickled_out_of_band(entry)

    def future(self, ref: ObjectRef[Any]) -> concurrent.futures.Future[Any]:
        """See objects.py."""
        return self.objects.future(ref)
