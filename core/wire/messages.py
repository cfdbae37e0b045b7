"""Every message of mray: the source of truth of the protocol.

A message is a frozen tagged struct (msgpack arrays: add fields last, with defaults). User bytes are
opaque: head and node daemons carry them and never unpickle. A request carries ``rid``; its reply
carries the same ``rid``; ``Refused`` may answer any request. Handlers are idempotent, so a request
that is sent again after silence does no harm. Times on the wire are durations, never clock times
(except ``…_unix_s``, for people).

Dialogues (A: B: lines name who speaks):

joining     node: RegisterNode / head: NodeRegistered; node: Heartbeat …; head: NodeGone
            new head: RegisterAgain (to who beats); node -> its processes: HeadAway … HeadBack
            anyone: GetHeadState / node: HeadState
            driver|worker: RegisterProcess / node: ProcessRegistered; driver: GetKeys / ClusterKeys
            head -> nodes: NodeJoined, ClusterNews (what changed on the others)
            driver: RegisterJob / head: JobRegistered … driver: FinishJob
dying       node -> its processes and head: ProcessDied; head -> other nodes -> theirs: ProcessDied
            head -> nodes -> their processes: NodeGone
            process -> node -> that node: CheckProcess / ProcessDied, or nothing if it lives
            anyone: DrainNode / node: Ack (it takes nothing new, and leaves within the deadline)
leases      owner: LeaseDemand (how many more, absolute) / node: LeaseGranted … LeaseRefused
            node: LeasesWanted (others wait) ; owner: LeaseReturned
            own node: LeaseElsewhere / owner to that node: LeaseDemand / LeaseGranted, or
            LeaseRefused "busy": the own node has that part of the demand again
            owner: LeaseReturned to that node, LeaseOverElsewhere to the own one
            worker: WorkerBlocked … WorkerUnblocked (its CPU goes back while it waits in get)
            worker: GetGpus (as what needs some begins) / node: GpusHeld
tasks       owner: PushTasks / worker: TaskReplies (finished and handed-back tasks, batched)
            owner: StealTasks / worker: TaskReplies with `returned`
            borrower: CancelObject; owner: CancelTask / worker: NotBegun, or a reply when it ends
            worker | owner: EndTask (cancelled by force) / node ends the worker
            worker: ItemsYielded (of generators) ; owner: ItemsConsumed (backpressure)
            worker: SerializersChanged / driver: Ack (it has fetched them, or cannot)
objects     borrower: WatchObject / owner: ObjectReady (at once or when it is)
            reader: CopyMissing (it could not get the value) / owner: ObjectReady (as for a watch)
references  anyone: Borrows / peer: BorrowsHeard (again until it comes; one at a time to a peer)
store       client: CreateObject / node: ObjectCreated; client: SealObject | AbortObject
            client: PinObjects / node: ObjectsPinned; client: UnpinObjects; owner: FreeObjects
            node: GiveUpPlaces / owner: PlacesGivenUp (before an object of its own goes to disk)
transfer    process: FetchObjects / node: ObjectsFetched (what wait() waits for, as it comes)
            node: CopyMade … CopyGone ; owner (to a node): PromoteCopies / PromotedCopies
            node: LocateObjects / owner: ObjectsLocated (no node that was named has it)
            puller: AskChunks / source: chunks (not messages: node/transfer/chunks.py), or
            ChunksRefused; puller: EndPull. draining node: AdoptCopies / node: CopiesAdopted
actors      owner: RegisterActor / head: ActorRegistered; head -> node -> worker: StartActor
            worker -> head: ActorStarted; anyone: WatchActor / head: ActorState (now and on change)
            anyone: KillActor / head: Ack; owner: ActorOutOfScope; worker: ActorExiting
groups      anyone: CreatePlacementGroup / head: Ack; RemovePlacementGroup / Ack
            head: ReserveBundles / node: BundlesReserved (now or when there is room)
            head: CommitBundles (all are reserved) or ReturnBundles (given up, or removed)
            anyone: WatchPlacementGroup / head: PlacementGroupState (now and on change; the maker
            of a group watches it); GetPlacementGroups / PlacementGroups
jobs        cli: SubmitJob / head: JobSubmitted; head -> node: StartJob; node -> head: JobExited
            cli: GetJobs / head: Jobs; cli: StopJob / head: Ack; head -> node: SignalJob
packages    anyone: PutPackage / head: PackageState; node: GetPackage / head: PackagePiece
logs        anyone: ListLogs / node: LogFiles; ReadLog / LogChunk; node -> driver: WorkerLines
            worker: OutputLost (its disk is full … has room again)
            driver: DrainLogs / node: Ack (every line written so far has been sent)
oom         anyone: GetOomState / node: OomState; node -> its drivers: MemoryNews
            process: HandlesPressure; node: MemoryPressure / process: PressureHandled
            anyone: GetPeaks / node: Peaks
memory      anyone: GetMemory / node: MemoryReport; node: GetReferences / process: ReferenceViews
            holder: FreeValues / owner: Ack; anyone: CollectGarbage / node: Ack
task events owner: TaskEvents / head: Ack; anyone: GetTaskEvents / head: TaskViews
            anyone: GetRunning / node: Running; anyone: GetTasks / node: TaskViews (the node asks
            its processes the same); CountTasks / TaskCounts; anyone: GetStacks / node: Stacks
metrics     process: ReportMetrics (what changed; again and again); anyone: GetMetrics / NodeMetrics
"""

from __future__ import annotations

from typing import Annotated, Union

import msgspec


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Base of all messages."""


# ---------------------------------------------------------------------------------- vocabulary

# What a peer says of times and amounts reaches timers and counts: checked here, once, so that no
# handler meets NaN, infinity or what is below zero. A request that breaks a bound is refused.

#: A duration.
Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
#: Bytes, and how many of something.
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
#: As Count, where -1 means without end.
CountOrNoEnd = Annotated[int, msgspec.Meta(ge=-1, le=1 << 53)]
#: Resources that are asked for: fixed point.
Amounts = dict[str, Annotated[int, msgspec.Meta(ge=0, le=1 << 60)]]


class Address(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where a process listens. ``ipc`` serves the same machine, ``tcp`` ("host:port") the rest."""

    process_id: bytes
    node_id: bytes
    ipc: str = ""
    tcp: str = ""


class NodeInfo(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A node as the cluster knows it. ``resources`` are fixed point (mray.resources)."""

    node_id: bytes
    address: Address
    ip: str
    hostname: str
    pid: int
    resources: dict[str, int]
    labels: dict[str, str]
    session_dir: str
    log_dir: str
    store_path: str
    store_capacity_bytes: int
    is_head: bool
    mray_version: str
    python_version: str
    #: The memory this node may use, and where that limit was read.
    memory_limit_bytes: int = 0
    memory_source: str = ""
    #: The file for what the store cannot take: its addresses follow those of the store's file.
    overflow_path: str = ""
    #: What its memory monitor does: "every 250 ms, ends workers above 0.95 …", or "off (why)".
    memory_monitor: str = ""
    #: "host:port" that gives other nodes its objects; "" where the node listens on no tcp port.
    bulk: str = ""


class DeathCause(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The one exact cause of a process's end.

    ``kind`` is one of: exit (exit_code), signal (signal), killed (by mray; ``text`` says why),
    kernel_oom, intended (asked to go: idle, job over, exit_actor), node_died, owner_died,
    creation_failed, env_failed (its runtime_env could not be made), out_of_scope, ray_kill,
    drained (its node takes nothing new and leaves: begun anew elsewhere, not charged).
    """

    kind: str
    text: str = ""
    exit_code: int | None = None
    signal: int | None = None
    pid: int = 0
    node_id: bytes = b""
    stderr_tail: list[str] = []
    #: Number of the last task the process began (PushTasks order of TaskSpec.seq), -1 if none.
    last_seq: int = -1
    #: Of ends for want of memory: mray.wire.oom.OomFacts as msgpack.
    oom: bytes = b""


class Located(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A value in a node's store."""

    node_id: bytes
    size_bytes: Size


class RefGroup(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """References of one owner inside a value. ``token``: the registration under which the owner
    of the value borrows them already; 0 when that owner is the owner of the references too."""

    owner: Address
    object_ids: list[bytes]
    token: int = 0


class RefInfo(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A reference on the wire: the object and its owner's address."""

    object_id: bytes
    owner: Address


# ------------------------------------------------------------------------------------- generic


class Ack(Message, frozen=True, tag=1):
    rid: int


class Refused(Message, frozen=True, tag=2):
    """A request failed. ``kind`` is an exception name of mray.exceptions or a builtin's."""

    rid: int
    kind: str
    text: str


class Ping(Message, frozen=True, tag=3):
    rid: int


class Shutdown(Message, frozen=True, tag=4):
    """End yourself in order, within ``grace_s``; a node ends its workers first."""

    rid: int
    reason: str
    grace_s: Seconds


# ------------------------------------------------------------------------------------- joining


class RunningActor(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An actor that has a worker on a node."""

    actor_id: bytes
    incarnation: int
    worker_id: bytes


class RunningBundle(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A bundle of a placement group that a node has reserved."""

    group_id: bytes
    index: int
    attempt: int
    committed: bool


class NodeContents(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a node has when it registers again: for a head that has begun anew."""

    actors: list[RunningActor]
    bundles: list[RunningBundle]
    #: Living drivers and workers.
    processes: list[bytes]
    #: Jobs that the node knows.
    jobs: list[bytes]
    #: Submitted jobs whose drivers it runs, with their pids.
    submissions: list[tuple[str, int]]


class RegisterNode(Message, frozen=True, tag=10):
    """``cluster_id``, ``epoch``: of the last head that this node obeyed; "" and 0 before."""

    rid: int
    node: NodeInfo
    cluster_id: str = ""
    epoch: Count = 0
    running: NodeContents | None = None


class NodeRegistered(Message, frozen=True, tag=11):
    rid: int
    cluster_id: str
    #: msgpack of the cluster's mray.config.Config.
    config: bytes
    head: Address
    nodes: list[NodeInfo]
    #: Grows with each start of the cluster's head.
    epoch: Count = 0


class SpillFigures(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A node's disk as its store uses it. Totals count from the node's start."""

    #: Spilled objects on disk now; those made in the overflow file are not among them.
    spilled_objects: int = 0
    spilled_bytes_total: int = 0
    spilled_objects_total: int = 0
    restored_bytes_total: int = 0
    restored_objects_total: int = 0
    #: What is wrong with disks that fail.
    troubles: list[str] = []


class LostOutput(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What the workers of a node printed and the disk of its logs had no room for, since the node's
    start and by their last words."""

    lines: int = 0
    size_bytes: int = 0
    #: Why there is no room now; "": there is, for all that is known.
    trouble: str = ""


class Heartbeat(Message, frozen=True, tag=12):
    node_id: bytes
    available: dict[str, int]
    pending: list[tuple[dict[str, int], int]]
    store_used_bytes: int
    workers: int
    #: On disk: spilled, and in the overflow file.
    store_spilled_bytes: int = 0
    #: What the node uses, may use, and from where on it kills: 0 where its monitor is off.
    memory_used_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_threshold_bytes: int = 0
    spilling: SpillFigures = SpillFigures()
    #: Of the head that the node obeys.
    epoch: Count = 0
    #: It takes nothing new and is about to end.
    draining: bool = False
    lost_output: LostOutput = LostOutput()


class RegisterAgain(Message, frozen=True, tag=272):
    """head -> node: this head has begun anew, and does not know yet what the node has. ``head``: it
    may have begun elsewhere, and listens there now."""

    epoch: Count
    head: Address | None = None


class HeadAway(Message, frozen=True, tag=270):
    """node -> its processes: the head does not answer, since ``away_s`` seconds. What they ask it
    waits for HeadBack. ``final``: it was waited for long enough; the node ends."""

    away_s: Seconds
    text: str
    final: bool = False


class HeadBack(Message, frozen=True, tag=271):
    """node -> its processes: the head answers. What it was asked, and asked to tell of, is said
    again; it may know nothing of that. ``head``: where it listens, if that has changed."""

    epoch: Count
    head: Address | None = None


class GetHeadState(Message, frozen=True, tag=273):
    rid: int


class HeadState(Message, frozen=True, tag=274):
    """How a node finds its head. ``text`` says why it counts as away, ``wait_s`` how long it is
    waited for from now on; both 0 and "" while it answers."""

    rid: int
    away: bool
    away_s: float
    text: str
    wait_s: float
    epoch: Count


class GetKeys(Message, frozen=True, tag=335):
    """driver -> its node, by unix socket: what tcp connections of the cluster need."""

    rid: int


class ClusterKeys(Message, frozen=True, tag=336):
    """``parts`` of mray.rpc.door.Keys; empty where the node has no port."""

    rid: int
    parts: list[bytes]


class NodeJoined(Message, frozen=True, tag=13):
    node: NodeInfo


class NodeGone(Message, frozen=True, tag=14):
    node_id: bytes
    cause: DeathCause


class RegisterProcess(Message, frozen=True, tag=15):
    """``kind`` is driver, worker or client. The node watches ``pid`` from now on."""

    rid: int
    kind: str
    address: Address
    pid: int
    job_id: bytes
    start_time_s: float = 0.0


class ProcessRegistered(Message, frozen=True, tag=16):
    rid: int
    node: NodeInfo
    head: Address
    config: bytes
    cluster_id: str


class RegisterJob(Message, frozen=True, tag=17):
    """A driver announces itself. ``submission_id`` is set for a driver started by `mray submit`."""

    rid: int
    driver: Address
    pid: int
    entrypoint: str
    namespace: str
    submission_id: str = ""
    #: msgpack of mray.runtime_env: the job's environment for its workers.
    runtime_env: bytes = b""
    sys_path: list[str] = []
    cwd: str = ""
    as_ray: bool = False
    log_to_driver: bool = True


class JobRegistered(Message, frozen=True, tag=18):
    rid: int
    job_id: bytes
    namespace: str
    #: The job's environment: the submission's with the driver's own laid over it.
    runtime_env: bytes = b""


class FinishJob(Message, frozen=True, tag=19):
    """The driver ends in order; its actors, objects and workers go."""

    rid: int
    job_id: bytes


class JobGone(Message, frozen=True, tag=20):
    """head -> nodes: end the job's workers, free what its processes owned."""

    job_id: bytes


class ProcessDied(Message, frozen=True, tag=21):
    process_id: bytes
    process_kind: str
    job_id: bytes
    cause: DeathCause


class JobInfo(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What workers of a job need before they run anything of it."""

    job_id: bytes
    driver: Address
    namespace: str
    runtime_env: bytes
    sys_path: list[str]
    cwd: str
    as_ray: bool
    log_to_driver: bool


class GetJobInfo(Message, frozen=True, tag=22):
    rid: int
    job_id: bytes


class JobInfoReply(Message, frozen=True, tag=23):
    """``over``: the job has ended; its detached actors may live on, and be started again."""

    rid: int
    job: JobInfo | None
    over: bool = False


class NodeNews(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What is free on a node now. ``total`` {}: as it was."""

    node_id: bytes
    available: dict[str, int]
    total: dict[str, int] = {}
    #: Requests that wait there for a worker or for room.
    waiting: int = 0
    store_used_bytes: int = 0
    draining: bool = False


class ClusterNews(Message, frozen=True, tag=285):
    """head -> nodes: nodes on which something has changed."""

    nodes: list[NodeNews]


class CheckProcess(Message, frozen=True, tag=286):
    """process -> its node -> that node: does this process live? ProcessDied, or NodeGone, says no;
    nothing says yes."""

    process_id: bytes
    node_id: bytes


class DrainNode(Message, frozen=True, tag=290):
    rid: int
    reason: str
    deadline_s: Seconds


# -------------------------------------------------------------------------------------- leases


class LeaseDemand(Message, frozen=True, tag=30):
    """How many more leases of one class the owner wants; replaces its former demand.

    ``class_id`` is the owner's own number for (resources, job, environment, strategy).
    """

    class_id: int
    count: Count
    resources: Amounts
    job_id: bytes
    runtime_env: bytes = b""
    label: str = ""
    #: The worker has the node's CPUs beside actors to itself: of a task that memory ended twice.
    exclusive: bool = False
    #: Which nodes may serve it: mray.placement.Where as msgpack, b"" for any.
    where: bytes = b""
    #: The owner's node, where that is not the one asked.
    home: bytes = b""
    #: It is for this node alone: it waits, and is not given back when there is no room.
    stay: bool = False
    #: Nodes that had no room for it just now.
    avoid: list[bytes] = []


class LeaseGranted(Message, frozen=True, tag=31):
    class_id: int
    lease_id: int
    worker: Address
    worker_pid: int


class LeaseRefused(Message, frozen=True, tag=32):
    """``kind``: infeasible (stays queued; said once), env_setup (stays queued: its
    environment is being made), busy (of another than the own node: no room, not queued any more),
    worker_start_failed or env_failed (final)."""

    class_id: int
    kind: str
    text: str


class LeaseReturned(Message, frozen=True, tag=33):
    lease_id: int
    #: False when the worker must not be used again (max_calls reached, broken environment).
    reuse: bool = True


class LeasesWanted(Message, frozen=True, tag=34):
    """Somebody waits for what you hold: return idle leases now and busy ones when they drain."""

    waiting: int


class LeaseElsewhere(Message, frozen=True, tag=287):
    """own node -> owner: ask that node for so many of the leases that you asked me for. ``stay``:
    only that one can ever serve them."""

    class_id: int
    count: int
    node: Address
    stay: bool = False


class LeaseOverElsewhere(Message, frozen=True, tag=370):
    """owner -> own node: a lease of the node that you named has gone back to it, and with it this
    much: you would hear of it 0.2 s later, or not at all when it was a short one."""

    node_id: bytes
    resources: Amounts


class WorkerBlocked(Message, frozen=True, tag=35):
    """The worker's task waits in get: its CPU is free for others."""


class WorkerUnblocked(Message, frozen=True, tag=36):
    """The wait is over: the CPU is taken back, beyond the limit if need be."""


# --------------------------------------------------------------------------------------- tasks


class TaskTemplate(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What all calls of one remote function (or actor method) with the same options share.

    Sent once per owner and worker; tasks name it by number.
    """

    number: int
    #: Key of the pickled function in the head's KV, namespace "fn".
    function_key: bytes
    name: str
    #: STREAMING and DYNAMIC of mray.tasks.streams are below 0.
    num_returns: int
    job_id: bytes
    resources: dict[str, int]
    #: For actor methods: the method's name.
    method: str = ""
    #: Retry the task when it raises: b"" no, b"*" any exception, else pickled tuple of types.
    retry_exceptions: bytes = b""
    max_calls: int = 0
    #: MessagePack of further options that only the worker reads (concurrency group, ...).
    options: bytes = b""
    #: May be run again when its worker dies (max_retries is not 0): told to the memory monitor.
    retriable: bool = False
    #: Of a streaming generator: it pauses while so many of its items are not consumed; 0: never.
    backpressure: int = 0
    #: The placement group it runs in, and whether what it submits runs there too.
    group: bytes = b""
    captures: bool = False


class Argument(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A resolved top-level reference: its value inline (envelope bytes) or in a store."""

    ref: RefInfo
    data: bytes | None = None
    located: Located | None = None


class TaskSpec(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One call. ``args`` is the envelope of ``(args, kwargs)`` with placeholders for ``deps``."""

    task_id: bytes
    template: int
    #: Order of pushes from this owner to this worker: grows, over all leases of the worker.
    seq: int
    args: bytes = b""
    deps: list[Argument] = []
    #: The envelope of args when it is too big to travel inline.
    args_in_store: RefInfo | None = None
    args_located: Located | None = None
    attempt: int = 0
    #: Of a generator that runs again: so many items are with the owner already.
    skip: int = 0


class PushTasks(Message, frozen=True, tag=40):
    owner: Address
    templates: list[TaskTemplate]
    tasks: list[TaskSpec]
    #: For actor calls: the incarnation meant; a worker of another refuses the calls.
    actor_id: bytes = b""
    incarnation: int = 0
    #: Version of the job's serializers that the owner knows: the worker fetches it if it is behind.
    serializers: int = 0


class Returned(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One return value: inline envelope bytes or a place in the store, and the refs inside it."""

    data: bytes | None = None
    located: Located | None = None
    refs: list[RefGroup] = []


class TaskReply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """``status``: 0 ok, 1 the task raised (every return holds the error), 2 raised but to be
    retried (retry_exceptions matched), 3 cancelled, 4 wrong incarnation, 5 the environment or the
    arguments could not be made (returns hold the error)."""

    task_id: bytes
    status: int
    returns: list[Returned]
    run_us: int = 0


class TaskReplies(Message, frozen=True, tag=41):
    replies: list[TaskReply]
    #: Tasks handed back unstarted.
    returned: list[bytes] = []
    #: True when tasks were handed back because the running task blocks: send no more until a reply.
    blocked: bool = False
    #: True when the worker will exit after this message (max_calls): return the lease, no reuse.
    exiting: bool = False


class StreamPart(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Items that one run of a generator yielded, one after the other. ``first``: the number of the
    first, from 1. ``error``: what it raised after them; the reply says whether that counts."""

    task_id: bytes
    attempt: int
    first: int
    items: list[Returned]
    error: Returned | None = None


class ItemsYielded(Message, frozen=True, tag=215):
    """Before the reply of the task, in order."""

    parts: list[StreamPart]


class ItemsConsumed(Message, frozen=True, tag=216):
    """So many items of a generator have been taken so far; -1: nobody wants any more of them."""

    task_id: bytes
    count: int


class SerializersChanged(Message, frozen=True, tag=160):
    """A worker registered a serializer for the job; the driver fetches the version."""

    rid: int
    version: int


class StealTasks(Message, frozen=True, tag=42):
    count: int


class CancelTask(Message, frozen=True, tag=43):
    task_id: bytes
    force: bool
    recursive: bool
    #: One that has begun is left alone.
    unless_begun: bool = False


class CancelObject(Message, frozen=True, tag=210):
    """A borrower cancels the task that makes an object."""

    object_id: bytes
    force: bool
    recursive: bool


class NotBegun(Message, frozen=True, tag=211):
    """Tasks that were cancelled before the worker began them: it has forgotten them."""

    task_ids: list[bytes]


class EndTask(Message, frozen=True, tag=212):
    """End the worker if the last task it began is the one with this number (TaskSpec.seq). From
    the worker itself or from whoever it is lent to."""

    worker_id: bytes
    seq: int
    text: str


# ------------------------------------------------------------------------------------- objects


class WatchObject(Message, frozen=True, tag=50):
    """Tell me when the object is there. Answered by ObjectReady, once per watch."""

    object_id: bytes


class ObjectReady(Message, frozen=True, tag=51):
    """``status``: 0 ready, 1 unknown to its owner (freed or never there)."""

    object_id: bytes
    status: int
    data: bytes | None = None
    located: Located | None = None
    text: str = ""


class CopyMissing(Message, frozen=True, tag=325):
    """The reader's node found the value on none of these nodes, and why: the owner looks, and has
    it made again if it is lost. Answered like WatchObject."""

    object_id: bytes
    node_ids: list[bytes]
    reason: str = ""


class Borrows(Message, frozen=True, tag=140):
    """Who holds which objects: the batches of one sender count once each and in order.

    The receiver heeds a batch whose ``seq`` is above that of the last one, and confirms every
    batch. Within one, adds come first, then offers, drops, asks. (See core/ownership/.)
    """

    seq: int
    #: The sender borrows objects of the receiver: (token, objects). Tokens are never used twice.
    adds: list[tuple[int, list[bytes]]] = []
    #: The sender is about to hand objects of the receiver to this borrower, under this token.
    offers: list[tuple[Address, int, list[bytes]]] = []
    #: The sender holds nothing of the receiver under these tokens any more.
    drops: list[tuple[int, list[bytes]]] = []
    #: A process has died that offered objects of the sender to the receiver: (sender, the dead,
    #: token, objects). What the receiver did not get it drops, and takes from the dead no more.
    asks: list[tuple[Address, bytes, int, list[bytes]]] = []


class BorrowsHeard(Message, frozen=True, tag=141):
    seq: int


class ExplainObjects(Message, frozen=True, tag=54):
    """Why are these not ready? For the text of GetTimeoutError."""

    rid: int
    object_ids: list[bytes]


class ObjectsExplained(Message, frozen=True, tag=55):
    rid: int
    reasons: list[str]


# --------------------------------------------------------------------------------------- store


class CreateObject(Message, frozen=True, tag=60):
    rid: int
    object_id: bytes
    size_bytes: Size
    owner_id: bytes
    #: The system has no pages for it in memory: make it in the overflow file, where there is one.
    on_disk: bool = False
    #: How an owner on another node is reached.
    owner: Address | None = None


class ObjectCreated(Message, frozen=True, tag=61):
    """The writer may fill ``[offset, offset+size)`` of the arena. ``cold`` are the byte ranges
    (offset, length) inside it that hold no pages yet: the writer claims them with
    posix_fallocate before it touches them."""

    rid: int
    offset: int
    cold: list[tuple[int, int]]


class SealObject(Message, frozen=True, tag=62):
    object_id: bytes


class AbortObject(Message, frozen=True, tag=63):
    object_id: bytes
    reason: str = ""


class Source(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Where else an object is: nodes that have a copy, and its owner, who knows of more."""

    owner: Address
    #: -1: there is none, the object is of this node.
    size_bytes: Annotated[int, msgspec.Meta(ge=-1, le=1 << 60)]
    node_ids: list[bytes]


class PinObjects(Message, frozen=True, tag=64):
    """Pin sealed objects for the sender and tell where they are. Missing ones have offset -1.

    ``sources`` are parallel to ``object_ids``, or empty where all are of this node. What is not
    here is pulled from there first.
    """

    rid: int
    object_ids: list[bytes]
    sources: list[Source] = []


class ObjectsPinned(Message, frozen=True, tag=65):
    rid: int
    #: (offset, size_bytes) in the order asked.
    places: list[tuple[int, int]]
    #: Why a missing one is not here, "" where that is not known; empty when there are no reasons.
    reasons: list[str] = []


class UnpinObjects(Message, frozen=True, tag=66):
    """(object, number of pins given up)"""

    pins: list[tuple[bytes, Count]]


class FreeObjects(Message, frozen=True, tag=67):
    """The owner's last reference is gone."""

    object_ids: list[bytes]


class GetStoreStats(Message, frozen=True, tag=68):
    rid: int
    objects: bool = False


class StoreStats(Message, frozen=True, tag=69):
    rid: int
    capacity_bytes: int
    used_bytes: int
    warm_bytes: int
    object_count: int
    #: (object_id, size, state, pins, owner_id) when asked for.
    objects: list[tuple[bytes, int, str, int, bytes]] = []
    #: On disk now: objects that were spilled, and those that were made there (overflow).
    spilled_bytes: int = 0
    spilled_objects: int = 0
    overflow_bytes: int = 0
    #: Since the start; seconds are those of all threads, so bytes by seconds is one thread's rate.
    spilled_bytes_total: int = 0
    spilled_objects_total: int = 0
    spill_s: float = 0.0
    restored_bytes_total: int = 0
    restored_objects_total: int = 0
    restore_s: float = 0.0
    #: Directories and URLs that take spilled objects, and what is wrong with those that fail.
    spill_directories: list[str] = []
    spill_troubles: list[str] = []
    #: Objects that came from other nodes and what was sent to them, since the start.
    pulled_bytes_total: int = 0
    sent_bytes_total: int = 0


class GiveUpPlaces(Message, frozen=True, tag=130):
    """node -> owner: forget where these objects are, but for those with buffers over them."""

    rid: int
    object_ids: list[bytes]


class PlacesGivenUp(Message, frozen=True, tag=131):
    """owner -> node: these are forgotten; from now on it pins them like any reader."""

    rid: int
    object_ids: list[bytes]


# ------------------------------------------------------------------------------------ transfer


class CopyMade(Message, frozen=True, tag=305):
    """node -> owner: the node has a further copy of these objects, that may go at any time; or what
    a process made of them that has died, of which the owner may not have heard."""

    object_ids: list[bytes]
    node_id: bytes


class CopyGone(Message, frozen=True, tag=306):
    """node -> owner: the node has these objects no more, or (it drains) will soon not have them."""

    object_ids: list[bytes]
    node_id: bytes
    text: str


class PromoteCopies(Message, frozen=True, tag=307):
    """owner -> node: your copies of these are the ones to keep (to spill, not to drop)."""

    rid: int
    object_ids: list[bytes]


class FetchObjects(Message, frozen=True, tag=308):
    """process -> its node: have copies of these made here, and pin nothing.

    ``priority`` 1: wait() waits, and is told of each by ObjectsFetched; 2: arguments of tasks to
    come, nobody is told.
    """

    object_ids: list[bytes]
    sources: list[Source]
    priority: int


class PromotedCopies(Message, frozen=True, tag=309):
    """``missing`` are not there any more."""

    rid: int
    missing: list[bytes]


class LocateObjects(Message, frozen=True, tag=310):
    """node -> owner: which nodes have these?"""

    rid: int
    object_ids: list[bytes]


class ObjectsLocated(Message, frozen=True, tag=311):
    """The nodes of each, in the order asked; none for one that is freed, lost or being made."""

    rid: int
    nodes: list[list[bytes]]


class ObjectsFetched(Message, frozen=True, tag=312):
    """node -> process: these are here, or cannot be had (``reasons``, "" for one that is here)."""

    object_ids: list[bytes]
    reasons: list[str]


class AskChunks(Message, frozen=True, tag=313):
    """puller -> source, by their bulk sockets: send these chunks of an object, by number.

    ``pull`` is the puller's number for what it does. ``owed``: chunks of this pull that this source
    has been asked for by now and that have not come. ``tried``: nodes that could not give it.
    """

    pull: int
    object_id: bytes
    chunks: list[int]
    owed: int
    tried: list[bytes] = []


class ChunksRefused(Message, frozen=True, tag=314):
    """source -> puller: ask these nodes, who have or are getting it; or nobody (``text``)."""

    pull: int
    node_ids: list[bytes]
    text: str


class EndPull(Message, frozen=True, tag=315):
    """puller -> source: no more of this."""

    pull: int


class AdoptCopies(Message, frozen=True, tag=316):
    """draining node -> node: have copies of these made, to be kept."""

    rid: int
    object_ids: list[bytes]
    sources: list[Source]


class CopiesAdopted(Message, frozen=True, tag=317):
    rid: int
    missing: list[bytes]


# -------------------------------------------------------------------------------------- actors


class ActorSpec(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """All that is needed to make an actor, again and again."""

    actor_id: bytes
    job_id: bytes
    owner: Address
    class_key: bytes
    class_name: str
    #: Constructor call, as in TaskSpec.
    task_id: bytes
    args: bytes
    deps: list[Argument]
    args_in_store: RefInfo | None
    args_located: Located | None
    #: Held while the actor lives / only while it is placed (Ray's 1-for-placement CPU rule).
    resources: Amounts
    placement_resources: Amounts
    max_restarts: CountOrNoEnd
    max_task_retries: int
    max_concurrency: int
    name: str = ""
    namespace: str = ""
    detached: bool = False
    runtime_env: bytes = b""
    is_async: bool = False
    #: Pickled description of methods, for handles made by get_actor.
    handle: bytes = b""
    options: bytes = b""
    #: As in PushTasks.
    serializers: int = 0
    #: Restarts after ends for want of memory that are not counted in max_restarts; -1: no end.
    max_oom_restarts: CountOrNoEnd = 0
    #: The placement group it lives in, and whether what it submits runs there too.
    group: bytes = b""
    captures: bool = False
    #: Which nodes may have it: mray.placement.Where as msgpack; b"" for any.
    where: bytes = b""


class RegisterActor(Message, frozen=True, tag=70):
    rid: int
    spec: ActorSpec
    get_if_exists: bool = False


class ActorRegistered(Message, frozen=True, tag=71):
    """``existing`` is the spec of the actor that already has the name, with get_if_exists."""

    rid: int
    existing: ActorSpec | None = None


class StartActor(Message, frozen=True, tag=72):
    """head -> node, and node -> the worker it chose."""

    spec: ActorSpec
    incarnation: int


class ActorStarted(Message, frozen=True, tag=73):
    """worker -> head. ``error`` is the envelope of the constructor's error, b"" if none."""

    actor_id: bytes
    incarnation: int
    worker: Address
    pid: int
    error: bytes = b""


class ActorStartFailed(Message, frozen=True, tag=74):
    """node -> head: no worker could be had."""

    actor_id: bytes
    incarnation: int
    cause: DeathCause


class WatchActor(Message, frozen=True, tag=75):
    actor_id: bytes


class ActorState(Message, frozen=True, tag=76):
    """``state``: PENDING, ALIVE, RESTARTING, DEAD (Ray's names). ``reason`` says what a pending
    one waits for. ``error`` is the envelope of the constructor's error, if that was the end."""

    actor_id: bytes
    state: str
    incarnation: int
    worker: Address | None
    pid: int = 0
    node_id: bytes = b""
    cause: DeathCause | None = None
    error: bytes = b""
    reason: str = ""
    class_name: str = ""
    name: str = ""
    restarts_left: int = 0
    namespace: str = ""


class ConstructorRefs(Message, frozen=True, tag=252):
    """worker -> owner of the actor, before its ActorStarted: the references in the error that the
    constructor raised. They live as long as the actor's handles. ``task_id``: of the creation."""

    task_id: bytes
    groups: list[RefGroup]


class KillActor(Message, frozen=True, tag=77):
    """``cause``: why, where nobody asked for it; with no_restart."""

    rid: int
    actor_id: bytes
    no_restart: bool = True
    cause: DeathCause | None = None


class ActorOutOfScope(Message, frozen=True, tag=78):
    """The last handle is gone: end the actor after the calls it has."""

    actor_id: bytes


class StopActor(Message, frozen=True, tag=79):
    """head -> node: end the actor's worker; ``force`` at once, else after queued calls."""

    actor_id: bytes
    incarnation: int
    force: bool
    cause: DeathCause


class TerminateActor(Message, frozen=True, tag=80):
    """node -> worker: finish queued calls, then exit."""

    actor_id: bytes


class ActorExiting(Message, frozen=True, tag=81):
    """worker -> node: I end on purpose (exit_actor, terminated); not a crash."""

    cause: DeathCause


class GetActor(Message, frozen=True, tag=82):
    rid: int
    name: str
    namespace: str


class ActorFound(Message, frozen=True, tag=83):
    rid: int
    spec: ActorSpec | None


class ListActors(Message, frozen=True, tag=84):
    rid: int


class ActorList(Message, frozen=True, tag=85):
    rid: int
    actors: list[ActorState]


# ------------------------------------------------------------------------------------------ kv


class KvPut(Message, frozen=True, tag=90):
    rid: int
    namespace: str
    key: bytes
    value: bytes
    overwrite: bool = True


class KvPutDone(Message, frozen=True, tag=91):
    rid: int
    added: bool


class KvGet(Message, frozen=True, tag=92):
    """``wait_s`` > 0 holds the reply until the key is there or the time is over."""

    rid: int
    namespace: str
    key: bytes
    wait_s: Seconds = 0.0


class KvValue(Message, frozen=True, tag=93):
    rid: int
    value: bytes | None


class KvDelete(Message, frozen=True, tag=94):
    rid: int
    namespace: str
    key: bytes
    prefix: bool = False


class KvKeys(Message, frozen=True, tag=95):
    rid: int
    namespace: str
    prefix: bytes


class KvKeyList(Message, frozen=True, tag=96):
    rid: int
    keys: list[bytes]


class PutPackage(Message, frozen=True, tag=245):
    """A piece of a package of a runtime_env, in order; without ``data``: is it there?"""

    rid: int
    name: str
    total_bytes: Size
    offset: Size
    data: bytes


class PackageState(Message, frozen=True, tag=246):
    """What the head has of a package by now."""

    rid: int
    have_bytes: int
    complete: bool


class GetPackage(Message, frozen=True, tag=247):
    rid: int
    name: str
    offset: Size


class PackagePiece(Message, frozen=True, tag=248):
    """``total_bytes`` -1: there is no such package."""

    rid: int
    total_bytes: int
    data: bytes


# ---------------------------------------------------------------------------------------- jobs


class SubmitJob(Message, frozen=True, tag=100):
    rid: int
    submission_id: str
    #: argv of the driver; run without a shell.
    entrypoint: list[str]
    #: The command as the user gave it, for people.
    display: str
    runtime_env: bytes
    metadata: dict[str, str]
    cwd: str
    environ: dict[str, str]


class JobSubmitted(Message, frozen=True, tag=101):
    rid: int
    submission_id: str


class StartJob(Message, frozen=True, tag=102):
    submission_id: str
    entrypoint: list[str]
    cwd: str
    environ: dict[str, str]
    runtime_env: bytes


class JobExited(Message, frozen=True, tag=103):
    """node -> head. All of the job's output is in its log by now."""

    submission_id: str
    cause: DeathCause


class SignalJob(Message, frozen=True, tag=104):
    """head -> node: stop signal, then SIGKILL after ``wait_s``."""

    submission_id: str
    signal: int
    wait_s: Seconds


class JobDetails(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """``status`` is Ray's: PENDING, RUNNING, STOPPED, SUCCEEDED, FAILED."""

    submission_id: str
    job_id: bytes
    status: str
    entrypoint: str
    message: str
    exit_code: int | None
    start_unix_s: float
    end_unix_s: float
    metadata: dict[str, str]
    node_id: bytes
    pid: int
    log_name: str
    #: SUBMISSION (by mray submit) or DRIVER (connected by itself).
    kind: str = "SUBMISSION"


class GetJobs(Message, frozen=True, tag=105):
    """All jobs, or those whose submission or job id begins with ``prefix``."""

    rid: int
    prefix: str = ""


class Jobs(Message, frozen=True, tag=106):
    rid: int
    jobs: list[JobDetails]


class StopJob(Message, frozen=True, tag=107):
    rid: int
    submission_id: str


class JobStarted(Message, frozen=True, tag=108):
    """node -> head: the driver process of a submission runs."""

    submission_id: str
    pid: int
    error: str = ""


# ---------------------------------------------------------------------------------------- logs


class ListLogs(Message, frozen=True, tag=110):
    rid: int
    pattern: str = "*"


class LogFile(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A file of the log directory."""

    name: str
    size_bytes: int
    modified_unix_s: float


class LogFiles(Message, frozen=True, tag=111):
    rid: int
    files: list[LogFile]


class ReadLog(Message, frozen=True, tag=112):
    """Read from ``offset`` (bytes since the log began, across rotation); a negative ``offset``
    means "the last -offset lines"; ``wait_s`` holds the reply until there is something new."""

    rid: int
    name: str
    offset: int
    max_bytes: int = 262_144
    wait_s: Seconds = 0.0


class LogChunk(Message, frozen=True, tag=113):
    rid: int
    data: bytes
    next_offset: int
    #: True when nothing more was there and the writer is gone or the file is complete so far.
    at_end: bool
    #: Bytes that rotation had already dropped before ``offset``.
    skipped_bytes: int = 0


class WorkerLines(Message, frozen=True, tag=114):
    """Output of a worker for its driver. ``is_error``: standard error. ``name`` is the task or
    actor shown in the prefix ``(name pid=…)``."""

    job_id: bytes
    pid: int
    ip: str
    name: str
    is_error: bool
    lines: list[str]


class DrainLogs(Message, frozen=True, tag=115):
    rid: int
    job_id: bytes


# ---------------------------------------------------------------------------------- inspection


class GetNodes(Message, frozen=True, tag=120):
    rid: int


class NodeView(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A node with its last heartbeat."""

    node: NodeInfo
    state: str
    available: dict[str, int]
    pending: list[tuple[dict[str, int], int]]
    store_used_bytes: int
    workers: int
    since_heartbeat_s: float
    cause: DeathCause | None = None
    store_spilled_bytes: int = 0
    memory_used_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_threshold_bytes: int = 0
    spilling: SpillFigures = SpillFigures()
    #: It takes nothing new and is about to end.
    draining: bool = False
    lost_output: LostOutput = LostOutput()


class Nodes(Message, frozen=True, tag=121):
    rid: int
    cluster_id: str
    head: Address
    nodes: list[NodeView]
    uptime_s: float = 0.0


class WorkerView(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A worker process of a node. ``state``: starting, idle, leased, actor, blocked, dead."""

    process_id: bytes
    pid: int
    state: str
    job_id: bytes
    actor_id: bytes
    owner_id: bytes
    resources: dict[str, int]
    age_s: float
    #: Of one that has ended: why, and how long ago.
    cause: DeathCause | None = None
    ended_s: float = 0.0


class GetWorkers(Message, frozen=True, tag=122):
    """``ended``: also the last that have ended, after those that live, the newest first."""

    rid: int
    ended: bool = False


class Workers(Message, frozen=True, tag=123):
    rid: int
    workers: list[WorkerView]
    drivers: list[WorkerView]


class SetWorkerTitle(Message, frozen=True, tag=124):
    """worker -> node: lines from these offsets on (bytes since the log began, across rotation) are
    shown as those of the task or actor ``name``. Sent of an actor once, and of tasks that printed,
    when they are over; what runs is in the progress file (core/progress.py)."""

    name: str
    out_offset: int
    err_offset: int
    #: Of a task's title in the progress file; -1 for an actor's.
    number: int = -1


class MayRetire(Message, frozen=True, tag=372):
    """node -> worker: you are idle, and one too many. Ack: nobody needs it. Refused: it owns what
    others hold, and stays."""

    rid: int


class OutputLost(Message, frozen=True, tag=345):
    """worker -> node: what tasks printed had no room on the log's disk, so much of it in all.
    ``trouble``: why there is none now; "": there is room again."""

    lines: Size
    size_bytes: Size
    trouble: str


class GetOomState(Message, frozen=True, tag=175):
    """How is the node's memory, and whom would the monitor end?"""

    rid: int


class OomState(Message, frozen=True, tag=176):
    """``facts``: JSON for people and programs, as `mray oom explain --json` prints it."""

    rid: int
    facts: bytes


class MemoryNews(Message, frozen=True, tag=177):
    """node -> its drivers: a warning of the memory monitor, or its summary of a period."""

    text: str


class HandlesPressure(Message, frozen=True, tag=190):
    """process -> node: it has callbacks for want of memory, or has none any more."""

    has_callbacks: bool


class MemoryPressure(Message, frozen=True, tag=191):
    """node -> its workers and drivers: its memory has passed the soft mark. Bytes."""

    used_bytes: int
    limit_bytes: int
    threshold_bytes: int
    soft_mark_bytes: int


class PressureHandled(Message, frozen=True, tag=192):
    """process -> node: its callbacks have returned; it can be ended."""


class GetPeaks(Message, frozen=True, tag=193):
    """How much memory have these tasks had? Of none named: only by function."""

    rid: int
    task_ids: list[bytes]


class PeakMemory(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The most private memory that was seen of one attempt of a task."""

    task_id: bytes
    attempt: int
    peak_bytes: int


class FunctionPeak(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Of ``count`` attempts of one function, the median (of the last hundred) and the most."""

    name: str
    count: int
    p50_bytes: int
    max_bytes: int


class Peaks(Message, frozen=True, tag=194):
    """Of attempts that run and that ended. What was too short to be seen is not in it."""

    rid: int
    peaks: list[PeakMemory]
    functions: list[FunctionPeak]


class ReferenceView(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One object as one process knows it, for `mray memory`.

    ``kinds``: how often the process holds it in which way (mray.memory_report.KINDS).
    ``state``: ready, error (the value is one), pending (at the owner; with ``reason``), or unread
    (by a borrower, who does not know).
    """

    object_id: bytes
    #: The owner; b"" where the process does not know it (it only reads the value in place).
    owner_id: bytes
    #: What makes it: a task's name, "put", an actor's class; "" where only the owner knows.
    name: str
    #: -1: not known here.
    size_bytes: int
    state: str
    reason: str
    in_store: bool
    kinds: dict[str, int]
    #: Owner: processes that registered, and under how many tokens.
    borrowers: list[tuple[bytes, int]]
    #: -1: not recorded.
    age_s: float
    call_site: str


class TaskView(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One attempt of a task, as `mray list tasks` shows it. Times are 0 where they are not known.

    ``type``: NORMAL_TASK, ACTOR_TASK or ACTOR_CREATION_TASK. ``state``: PENDING_ARGS_AVAIL,
    PENDING_NODE_ASSIGNMENT, SUBMITTED_TO_WORKER, RUNNING, FINISHED or FAILED.
    """

    task_id: bytes
    attempt: int
    name: str
    type: str
    state: str
    job_id: bytes
    parent_id: bytes
    actor_id: bytes
    owner_id: bytes
    worker_id: bytes
    node_id: bytes
    pid: int
    resources: dict[str, int]
    #: Submitted, arguments there, sent to its worker, begun, ended.
    created_unix_s: float
    ready_unix_s: float
    sent_unix_s: float
    start_unix_s: float
    end_unix_s: float
    error_type: str = ""
    error_message: str = ""
    #: Why it is not over, of one that is not.
    reason: str = ""
    #: The most memory that was seen of it, 0: not seen.
    peak_bytes: int = 0


class TaskEvents(Message, frozen=True, tag=195):
    """owner -> head: attempts that ended (``batch``: mray.tasks.event_batch, ``count`` of them).
    ``dropped``: how many more ended of which the owner kept nothing. ``rid`` 0: not answered."""

    rid: int
    count: Count
    dropped: Count
    batch: bytes


class GetTaskEvents(Message, frozen=True, tag=196):
    """Attempts that ended, newest first: those that pass all filters (key, "=" or "!=", value),
    ``limit`` at most. Answered by TaskViews."""

    rid: int
    filters: list[tuple[str, str, str]]
    limit: Count


class TaskViews(Message, frozen=True, tag=197):
    """``total`` passed the filters, ``views`` are the newest of them. ``forgotten``: ended attempts
    of which nothing is kept any more. ``silent``: pids of processes that did not answer."""

    rid: int
    total: int
    views: list[TaskView]
    forgotten: int = 0
    silent: list[int] = []


class GetRunning(Message, frozen=True, tag=198):
    """anyone -> node -> workers: what runs now? Processes get ``wait_s`` to answer."""

    rid: int
    wait_s: Seconds = 1.0


class Running(Message, frozen=True, tag=199):
    """Workers that answered, each with (task id, microseconds since it began)."""

    rid: int
    workers: list[tuple[bytes, list[tuple[bytes, int]]]]


class GetTasks(Message, frozen=True, tag=200):
    """anyone -> node -> processes: tasks of yours that have not ended, newest first; filters and
    limit as in GetTaskEvents. Answered by TaskViews.

    ``running``: what Running told. Of a worker that is not in it, the oldest task runs.
    """

    rid: int
    filters: list[tuple[str, str, str]]
    limit: Count
    running: list[tuple[bytes, list[tuple[bytes, int]]]] = []
    wait_s: Seconds = 2.0


class TaskCount(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Attempts of one function, for `mray summary tasks`. Times in microseconds, of those that
    finished; ``resources`` as the last one asked for them."""

    name: str
    type: str
    states: dict[str, int]
    resources: dict[str, int]
    mean_us: int = 0
    p50_us: int = 0
    max_us: int = 0


class CountTasks(Message, frozen=True, tag=201):
    """anyone -> head: attempts that ended; anyone -> node -> processes: tasks that have not.
    Counted by function. Answered by TaskCounts."""

    rid: int
    running: list[tuple[bytes, list[tuple[bytes, int]]]] = []
    wait_s: Seconds = 2.0


class TaskCounts(Message, frozen=True, tag=202):
    rid: int
    rows: list[TaskCount]
    forgotten: int = 0
    silent: list[int] = []


class GetStacks(Message, frozen=True, tag=203):
    """anyone -> node: what do the threads of your processes do? ``pids`` empty: all."""

    rid: int
    pids: list[int]
    wait_s: Seconds = 2.0


class Stacks(Message, frozen=True, tag=204):
    """(pid, kind, title, text) of each process; ``text`` says so where one did not answer."""

    rid: int
    stacks: list[tuple[int, str, str, str]]


class GetReferences(Message, frozen=True, tag=150):
    """node -> process: what do you hold? At most ``limit`` objects, the biggest."""

    rid: int
    limit: Count


class ReferenceViews(Message, frozen=True, tag=151):
    """The totals are over all objects of the process, the views are of the biggest."""

    rid: int
    #: The task it runs, or its actor's class; "" for a driver.
    title: str
    object_count: int
    views: list[ReferenceView]
    #: How many objects are held in each way.
    kinds: dict[str, int]
    #: (call site, objects, bytes) of the process's own objects, most bytes first; bounded.
    sites: list[tuple[str, int, int]]


class GetMemory(Message, frozen=True, tag=152):
    """What fills this node's store and tables. Processes get ``wait_s`` to answer."""

    rid: int
    limit: Count
    wait_s: Seconds = 2.0


class FreeValues(Message, frozen=True, tag=154):
    """holder -> owner: free these values though references are left. Answered by Ack."""

    rid: int
    object_ids: list[bytes]


class CollectGarbage(Message, frozen=True, tag=155):
    """anyone -> node (answered by Ack) -> its processes (not answered): run gc.collect()."""

    rid: int


class StoredView(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An object in a node's store. ``pins``: (process, how often)."""

    object_id: bytes
    owner_id: bytes
    size_bytes: int
    state: str
    pins: list[tuple[bytes, int]]


class ProcessReferences(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A process of the node. ``views`` is None when it did not answer."""

    process_id: bytes
    pid: int
    #: driver or worker.
    kind: str
    job_id: bytes
    title: str
    actor_id: bytes
    views: ReferenceViews | None


class MemoryReport(Message, frozen=True, tag=153):
    rid: int
    store: StoreStats
    #: The biggest.
    stored: list[StoredView]
    processes: list[ProcessReferences]


# ------------------------------------------------------------------------- placement groups


class GroupSpec(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A placement group as its maker wants it."""

    group_id: bytes
    job_id: bytes
    maker: Address
    #: PACK, SPREAD, STRICT_PACK or STRICT_SPREAD.
    strategy: str
    #: Fixed point.
    bundles: list[Amounts]
    name: str = ""
    namespace: str = ""
    detached: bool = False
    #: STRICT_PACK: the node to prefer.
    soft_node: bytes = b""
    #: For each bundle the labels that its node has to have: mray.placement texts.
    selectors: list[dict[str, str]] = []
    #: The detached actor that made it, with which it ends; else it ends with its job.
    actor_id: bytes = b""


class PlacementGroupState(Message, frozen=True, tag=230):
    """``state``: PENDING, CREATED, RESCHEDULING, REMOVED (Ray's names). ``reason`` says what one
    that is not created waits for; ``infeasible`` that no node can ever give it. ``nodes``: where
    the bundles are, b"" for nowhere. ``spec`` is None of a group that the head does not know."""

    group_id: bytes
    spec: GroupSpec | None
    state: str
    nodes: list[bytes] = []
    reason: str = ""
    infeasible: bool = False
    #: Seconds from its making to its first creation; 0.0 until then.
    created_after_s: float = 0.0
    attempts: int = 0


class CreatePlacementGroup(Message, frozen=True, tag=231):
    rid: int
    spec: GroupSpec


class RemovePlacementGroup(Message, frozen=True, tag=232):
    rid: int
    group_id: bytes


class WatchPlacementGroup(Message, frozen=True, tag=233):
    group_id: bytes


class GetPlacementGroups(Message, frozen=True, tag=234):
    """All, or those with this name in the namespace, or this id."""

    rid: int
    name: str = ""
    namespace: str = ""
    group_id: bytes = b""


class PlacementGroups(Message, frozen=True, tag=235):
    rid: int
    groups: list[PlacementGroupState]


class ReserveBundles(Message, frozen=True, tag=236):
    """head -> node: take these bundles (by index) out of what is free, together, when there is
    room. ``commit``: no other node has a part in it, so tasks may use them at once."""

    group_id: bytes
    #: Grows with each try to place the group: an answer to a former one is void.
    attempt: int
    bundles: dict[int, Amounts]
    commit: bool = False


class BundlesReserved(Message, frozen=True, tag=237):
    """node -> head. ``refusal``: why it never will be."""

    group_id: bytes
    attempt: int
    refusal: str = ""


class CommitBundles(Message, frozen=True, tag=238):
    group_id: bytes
    attempt: int


class ReturnBundles(Message, frozen=True, tag=239):
    """head -> node: end what runs in the group's bundles and give them back. ``attempt`` -1: all;
    else only what was reserved in that try."""

    group_id: bytes
    attempt: int = -1


# ------------------------------------------------------------------------------------- metrics


class MetricPoint(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One series of a family: its tags and how much. ``values``: one, or of a histogram the
    number of values in each bucket, the last without an upper end, and the sum of all values."""

    tags: dict[str, str]
    values: list[float]


class MetricFamily(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Series of one name. ``kind``: counter, gauge or histogram, whose buckets' inclusive upper
    ends are ``boundaries``, ascending."""

    name: str
    kind: str
    about: str
    boundaries: list[float]
    points: list[MetricPoint]


class ReportMetrics(Message, frozen=True, tag=255):
    """process -> node: the series that changed since the last report, as they stand: of counters
    and histograms what this process counted in its life. ``refused``: how many records in all the
    process threw away because it had too many series."""

    families: list[MetricFamily]
    refused: int = 0


class GetMetrics(Message, frozen=True, tag=256):
    """anyone -> node: the figures of the node and what its processes reported."""

    rid: int


class NodeMetrics(Message, frozen=True, tag=257):
    """Names are those that Prometheus gets; tags are without those of the node, ``labels``."""

    rid: int
    labels: dict[str, str]
    families: list[MetricFamily]


class GetGpus(Message, frozen=True, tag=250):
    """worker -> its node, when what needs GPUs begins: which does it hold?"""

    rid: int


class GpusHeld(Message, frozen=True, tag=251):
    """Numbers of the node's GPUs, from 0; a part of one names it as well."""

    rid: int
    numbers: list[int]


AnyMessage = Union[  # noqa: UP007 (a type written with | would need 90 of them)
    Ack, Refused, Ping, Shutdown,
    RegisterNode, NodeRegistered, Heartbeat, NodeJoined, NodeGone, RegisterProcess,
    ProcessRegistered, RegisterJob, JobRegistered, FinishJob, JobGone, ProcessDied, GetJobInfo,
    JobInfoReply, ClusterNews, CheckProcess, DrainNode,
    LeaseDemand, LeaseGranted, LeaseRefused, LeaseReturned, LeasesWanted, WorkerBlocked,
    WorkerUnblocked, LeaseElsewhere, LeaseOverElsewhere,
    PushTasks, TaskReplies, StealTasks, SerializersChanged, CancelTask,
    CancelObject, NotBegun, EndTask, MayRetire,
    ItemsYielded, ItemsConsumed,
    WatchObject, ObjectReady, CopyMissing, Borrows, BorrowsHeard, ExplainObjects, ObjectsExplained,
    CreateObject, ObjectCreated, SealObject, AbortObject, PinObjects, ObjectsPinned, UnpinObjects,
    FreeObjects, GetStoreStats, StoreStats, GiveUpPlaces, PlacesGivenUp,
    CopyMade, CopyGone, PromoteCopies, FetchObjects, PromotedCopies, LocateObjects, ObjectsLocated,
    ObjectsFetched, AskChunks, ChunksRefused, EndPull, AdoptCopies, CopiesAdopted,
    RegisterActor, ActorRegistered, StartActor, ActorStarted, ActorStartFailed, WatchActor,
    ActorState, KillActor, ActorOutOfScope, StopActor, TerminateActor, ActorExiting, GetActor,
    ActorFound, ListActors, ActorList,
    KvPut, KvPutDone, KvGet, KvValue, KvDelete, KvKeys, KvKeyList,
    PutPackage, PackageState, GetPackage, PackagePiece,
    SubmitJob, JobSubmitted, StartJob, JobExited, SignalJob, GetJobs, Jobs, StopJob, JobStarted,
    ListLogs, LogFiles, ReadLog, LogChunk, WorkerLines, DrainLogs,
    GetNodes, Nodes, GetWorkers, Workers, SetWorkerTitle, OutputLost, GetOomState, OomState,
    MemoryNews, HandlesPressure, MemoryPressure, PressureHandled, GetPeaks, Peaks,
    GetReferences, ReferenceViews, GetMemory, MemoryReport, FreeValues, CollectGarbage,
    TaskEvents, GetTaskEvents, TaskViews, GetRunning, Running, GetTasks, CountTasks, TaskCounts,
    GetStacks, Stacks, ReportMetrics, GetMetrics, NodeMetrics,
    PlacementGroupState, CreatePlacementGroup, RemovePlacementGroup, WatchPlacementGroup,
    GetPlacementGroups, PlacementGroups, ReserveBundles, BundlesReserved, CommitBundles,
    ReturnBundles,
    GetGpus, GpusHeld, ConstructorRefs,
    HeadAway, HeadBack, RegisterAgain, GetHeadState, HeadState, GetKeys, ClusterKeys,
]  # fmt: skip
